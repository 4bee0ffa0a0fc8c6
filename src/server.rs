//! The server: it accepts a client, reads what it asks, answers, closes, and accepts the next.

use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, Read, Take, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::patience::Purse;

/// In bytes, to the blank line; a request of Prometheus has about 300.
const LONGEST_REQUEST: u64 = 8 * 1024;

/// Serves text to whoever connects and asks for it, one client at a time.
///
/// The program owns the loop, as with [`TcpListener`]. It brings its values up to date when a
/// client has asked for them, between [`accept`](Self::accept) and [`answer`](Scrape::answer):
/// nobody can see them at any other time.
///
/// ```no_run
/// use std::io::{Write, stderr};
/// use std::time::Instant;
///
/// use metricmote::{MetricsServer, Registry};
///
/// let mut registry = Registry::new();
/// let uptime = registry.gauge("uptime_seconds", "Time since the start.", &[])?;
/// let start = Instant::now();
///
/// let mut server = MetricsServer::bind("127.0.0.1:8043")?;
/// loop {
///     let served = server.accept().and_then(|scrape| {
///         uptime.set(start.elapsed().as_secs_f64());
///         scrape.answer(registry.render())
///     });
///     // A client that hung up is no reason to stop, and neither is a stderr that nobody reads.
///     if let Err(error) = served {
///         let _ = writeln!(stderr(), "{error:#}");
///     }
/// }
/// # #[allow(unreachable_code)]
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct MetricsServer {
    /// Where the kernel queues clients while one is served.
    listener: TcpListener,
    /// How long the clients may keep it waiting for what they send,
    reading: Purse,
    /// and for taking what they are sent.
    writing: Purse,
}

impl MetricsServer {
    /// Listens on `address`; port 0 takes a free one, to be found in [`local_addr`].
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::bind`], such as a port in use.
    ///
    /// [`local_addr`]: Self::local_addr
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address)?,
            reading: Purse::FOR_READING,
            writing: Purse::FOR_WRITING,
        })
    }

    /// The address that the server listens on.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for a client, without limit, and reads its request.
    ///
    /// Each read may wait for the client for 0.3 s, and all of them for 0.9 s; less where others have
    /// used that time and the server has not been idle since.
    ///
    /// # Errors
    ///
    /// The client hung up or said nothing; or it was too slow or sent something else than a request
    /// for the metrics, and was told so: with a status of 400, 405, 408, 414 or 431, and a sentence.
    /// Or it could not be accepted. Print the error and call `accept` again: the server is as good
    /// as before.
    pub fn accept(&mut self) -> Result<Scrape<'_>> {
        let idle_since = Instant::now();
        let accepted = self.listener.accept();
        let idle = idle_since.elapsed();
        self.reading.fill(idle);
        self.writing.fill(idle);
        let (stream, peer) = accepted
            .inspect_err(|error| thread::sleep(pause_after(error.kind())))
            .context("cannot accept a connection")?;

        let mut scrape = Scrape {
            server: self,
            stream,
            peer,
            request_line: String::new(),
            head_only: false,
            // Until all is read: it may be refused before.
            unread: true,
        };
        match scrape.read_request() {
            Ok(()) => Ok(scrape),
            Err(Refused(status, sentence)) => {
                // Whether the client stays to read that is its own affair.
                let _ = scrape.refuse(status, sentence);
                bail!("{peer} was refused: {status}")
            }
            Err(Lost(error)) => Err(error).with_context(|| format!("{peer} sent no request")),
        }
    }
}

/// How long to wait after an `accept` that failed.
fn pause_after(error: ErrorKind) -> Duration {
    use ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput};
    match error {
        // The client is gone, which some systems tell in this way (macOS with `InvalidInput`).
        // A pause would let such clients hold up all others.
        ConnectionAborted | ConnectionReset | InvalidInput => Duration::ZERO,
        // No file descriptor is left: `accept` would fail again at once, and the server spin.
        _ => Duration::from_millis(50),
    }
}

/// A client that has asked for the metrics. Drop it unanswered, and the connection closes.
#[derive(Debug)]
#[must_use = "the client waits for an answer"]
pub struct Scrape<'a> {
    /// It has the purses, and accepts nobody else meanwhile.
    server: &'a mut MetricsServer,
    /// It closes when the scrape is dropped, answered or not.
    stream: TcpStream,
    /// For what is reported of it.
    peer: SocketAddr,
    /// For the program, which may print it.
    request_line: String,
    /// The method is HEAD: the response has no body.
    head_only: bool,
    /// There may be more of the request than has been read, and a close would cost the client the
    /// response.
    unread: bool,
}

/// Why a client gets no metrics.
enum Failure {
    /// With a status and a sentence, which it is told.
    Refused(&'static str, &'static str),
    /// It is gone, or has said nothing; and is told nothing.
    Lost(io::Error),
}

use Failure::{Lost, Refused};

const MALFORMED: Failure = Refused("400 Bad Request", "Ask in HTTP/1: GET /metrics HTTP/1.1");
const WRONG_METHOD: Failure = Refused("405 Method Not Allowed", "Ask with GET or HEAD.");
const TOO_SLOW: Failure = Refused("408 Request Timeout", "Send it all, to the blank line.");
const LINE_TOO_LONG: Failure = Refused("414 URI Too Long", "Ask for something shorter.");
const HEAD_TOO_LONG: Failure =
    Refused("431 Request Header Fields Too Large", "Send fewer headers.");

impl Scrape<'_> {
    /// The request line, such as `GET /metrics HTTP/1.1`: printable ASCII in any case.
    #[must_use]
    pub fn request_line(&self) -> &str {
        &self.request_line
    }

    /// Sends the metrics, as [`Registry::render`](crate::Registry::render) gives them, and closes
    /// the connection.
    ///
    /// Each write may wait for the client for 1 s, and all of them for 3 s; less where others have used
    /// that time and the server has not been idle since.
    ///
    /// # Errors
    ///
    /// The client hung up, or was too slow to take the response, which is cut short then.
    pub fn answer(mut self, exposition: &str) -> Result<()> {
        // Prometheus 3 refuses an answer without it.
        let format = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
        self.respond("200 OK", format, exposition)
    }

    /// Tells the client in a sentence why there are no metrics for it, with the status 500, and
    /// closes the connection. Prometheus then takes the target for down, and shows the status; who
    /// reads the sentence is whoever asks by hand.
    ///
    /// # Errors
    ///
    /// Those of [`answer`](Self::answer).
    pub fn fail(mut self, sentence: &str) -> Result<()> {
        self.refuse("500 Internal Server Error", sentence)
    }

    /// Reads the request line, then the headers to the blank line.
    fn read_request(&mut self) -> Result<(), Failure> {
        let input = Input(&self.stream, &mut self.server.reading);
        let mut input = BufReader::new(input.take(LONGEST_REQUEST));
        // A client that says nothing is told nothing: browsers connect before they have a request.
        let &[first, ..] = input.fill_buf().map_err(Lost)? else {
            return Err(Lost(io::Error::other("it hung up")));
        };
        // A TLS hello, of a scraper set to `https`: a line feed may never come.
        if !first.is_ascii_alphabetic() && !b"\r\n".contains(&first) {
            return Err(MALFORMED);
        }
        let mut line = Vec::new();
        let mut read = read_line(&mut input, &mut line, LINE_TOO_LONG);
        if line.is_empty() {
            // RFC 9112, 2.2: an empty line before the request is to be ignored.
            read = read_line(&mut input, &mut line, LINE_TOO_LONG);
        }
        self.head_only = line.starts_with(b"HEAD ");
        // Not before: a HEAD that is refused gets no body either.
        read?;
        self.request_line = parse_request_line(&line)?.to_owned();

        let mut has_body = false;
        loop {
            read_line(&mut input, &mut line, HEAD_TOO_LONG)?;
            if line.is_empty() {
                break;
            }
            has_body |= announces_body(&line);
        }
        // A body will come; more has come, and may go on; or the limit hides what follows.
        self.unread = has_body || !input.buffer().is_empty() || input.get_ref().limit() == 0;
        Ok(())
    }

    fn refuse(&mut self, status: &str, sentence: &str) -> Result<()> {
        // A 405 must have `Allow`; any other response may.
        let headers = "Content-Type: text/plain; charset=utf-8\r\nAllow: GET, HEAD\r\n";
        self.respond(status, headers, &format!("{sentence}\n"))
    }

    /// Writes head and body, in one system call where the kernel has room for both.
    fn respond(&mut self, status: &str, headers: &str, body: &str) -> Result<()> {
        let head = format!(
            "HTTP/1.0 {status}\r\n\
             {headers}\
             Content-Length: {}\r\n\
             Connection: close\r\n\
             \r\n",
            body.len()
        );
        let body = if self.head_only { "" } else { body };
        let mut unsent = &mut [IoSlice::new(head.as_bytes()), IoSlice::new(body.as_bytes())][..];
        let writing = &mut self.server.writing;
        while !unsent.is_empty() {
            let sent = writing
                .wait(|limit| {
                    self.stream.set_write_timeout(Some(limit))?;
                    self.stream.write_vectored(unsent)
                })
                .with_context(|| format!("{} did not take the response", self.peer))?;
            IoSlice::advance_slices(&mut unsent, sent);
        }
        // A socket that is closed with bytes unread makes the kernel send a reset, at which the
        // client's kernel may throw away the response. So the server says that it has said
        // everything, and reads on until the client, which sees the end, hangs up, or its time is over.
        if self.unread && self.stream.shutdown(Shutdown::Write).is_ok() {
            let mut input = Input(&self.stream, &mut self.server.reading);
            let _ = io::copy(&mut input, &mut io::sink());
        }
        Ok(())
    }
}

/// What a client sends. All waiting for it is taken from the purse for reading.
struct Input<'a>(&'a TcpStream, &'a mut Purse);

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Input(stream, purse) = self;
        purse.wait(|limit| {
            stream.set_read_timeout(Some(limit))?;
            stream.read(buffer)
        })
    }
}

/// The head of a request, buffered, and no more of it than the limit allows.
type Head<'a> = BufReader<Take<Input<'a>>>;

/// Reads a line, and takes off its end: CRLF or, as RFC 9112 allows, a bare LF. The end of the input
/// ends a line too, and the request: all further lines are empty.
fn read_line(input: &mut Head, line: &mut Vec<u8>, too_long: Failure) -> Result<(), Failure> {
    line.clear();
    match input.read_until(b'\n', line) {
        Err(error) if error.kind() == ErrorKind::TimedOut => return Err(TOO_SLOW),
        Err(error) => return Err(Lost(error)),
        Ok(_) if line.ends_with(b"\r\n") => line.truncate(line.len() - 2),
        Ok(_) if line.ends_with(b"\n") => line.truncate(line.len() - 1),
        Ok(_) if input.get_ref().limit() == 0 => return Err(too_long),
        Ok(_) => {}
    }
    Ok(())
}

/// Checks a request line, which is a method, a target and a version with a space between.
fn parse_request_line(line: &[u8]) -> Result<&str, Failure> {
    let line = std::str::from_utf8(line).map_err(|_| MALFORMED)?;
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.0" | "HTTP/1.1"] = words[..] else {
        return Err(MALFORMED);
    };
    // RFC 9110, 5.6.2 and 9.1: a method is a token.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    // The program may print the line, and a terminal obeys control characters.
    let well_formed = !method.is_empty()
        && method.bytes().all(is_token)
        && !target.is_empty()
        && target.bytes().all(|byte| byte.is_ascii_graphic());
    match method {
        "GET" | "HEAD" if well_formed => Ok(line),
        _ if well_formed => Err(WRONG_METHOD),
        _ => Err(MALFORMED),
    }
}

/// Whether a header says that a body follows the head.
fn announces_body(header: &[u8]) -> bool {
    let header = header.to_ascii_lowercase();
    let length = header.strip_prefix(b"content-length:");
    length.is_some_and(|length| length.trim_ascii() != b"0")
        || header.starts_with(b"transfer-encoding:")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On Linux `accept` hands over a connection that is gone; elsewhere it fails for it.
    #[test]
    fn a_connection_that_is_gone_is_no_reason_to_pause() {
        for gone in [
            ErrorKind::ConnectionAborted,
            ErrorKind::ConnectionReset,
            ErrorKind::InvalidInput,
        ] {
            assert_eq!(pause_after(gone), Duration::ZERO);
        }
        let no_descriptor_left = io::Error::from_raw_os_error(24).kind();
        assert_eq!(pause_after(no_descriptor_left), Duration::from_millis(50));
    }
}
