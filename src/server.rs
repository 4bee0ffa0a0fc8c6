//! The server: accepts a client, reads its request, sends a response and closes the connection.
//!
//! Everything here is HTTP. How long the server waits for its clients is decided in `budget.rs`.

use std::io::ErrorKind::{self, ConnectionAborted, ConnectionReset, InvalidInput, TimedOut};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Take, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::budget::{Budget, Connection};

/// The most bytes of a request that the server reads before it responds. Prometheus sends about
/// 300.
const LONGEST_REQUEST: u64 = 8 * 1024;

/// Why a client does not get the metrics.
enum Failure {
    /// The request is not acceptable, so the client gets a response with this status and reason.
    Refused(&'static str, &'static str),
    /// The client has disconnected or has never sent anything, so it gets no response.
    Lost(io::Error),
}

use Failure::{Lost, Refused};

const MALFORMED: Failure = Refused("400 Bad Request", "Ask in HTTP/1: GET /metrics HTTP/1.1");
const WRONG_METHOD: Failure = Refused("405 Method Not Allowed", "Ask with GET or HEAD.");
const TOO_SLOW: Failure = Refused("408 Request Timeout", "Send it all, to the blank line.");
const LONG_LINE: Failure = Refused("414 URI Too Long", "Ask for something shorter.");
const LONG_HEAD: Failure = Refused("431 Request Header Fields Too Large", "Send fewer headers.");

/// A server that answers one client at a time.
///
/// The loop is in your program, as with a [`TcpListener`]. Nobody sees the values of the metrics
/// until a client asks for them, so the best place to update them is between
/// [`accept`](Self::accept) and [`answer`](Scrape::answer):
///
/// ```no_run
/// use std::io::{Write, stderr};
/// use std::time::Instant;
///
/// use metricmote::{MetricsServer, Registry};
///
/// fn main() -> anyhow::Result<()> {
///     let mut registry = Registry::new();
///     let uptime = registry.gauge("uptime_seconds", "Time since the start.", &[])?;
///     let start = Instant::now();
///     let mut server = MetricsServer::bind("127.0.0.1:8043")?;
///     loop {
///         let served = server.accept().and_then(|scrape| {
///             uptime.set(start.elapsed().as_secs_f64());
///             scrape.answer(&registry.render())
///         });
///         if let Err(error) = served {
///             // Unlike eprintln!, this does not panic if nobody reads the output.
///             let _ = writeln!(stderr(), "{error:#}");
///         }
///     }
/// }
/// ```
///
/// To stop the server from another thread, set a flag that the loop checks, and then connect to the
/// server yourself, so that `accept` returns.
///
/// Do not write `server.accept()?` in this loop, because then the first client that connects and
/// hangs up would end the program. Every error concerns one client only.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    /// The time for waiting until clients send their requests.
    reading: Budget,
    /// The time for waiting until clients take their responses.
    writing: Budget,
}

impl MetricsServer {
    /// Listens on `address`. If its port is 0, the system chooses a free port, which
    /// [`local_addr`](Self::local_addr) returns.
    ///
    /// # Errors
    ///
    /// Fails as [`TcpListener::bind`] does, for example if the port is in use.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address)?,
            reading: Budget::FOR_READING,
            writing: Budget::FOR_WRITING,
        })
    }

    /// Returns the address that the server listens on.
    ///
    /// # Errors
    ///
    /// Fails as [`TcpListener::local_addr`] does.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits until a client connects, and reads its request.
    ///
    /// There is no limit to how long it may take until a client connects. From then on, a single
    /// read waits for at most 0.6 s, and all reads together for at most 1.2 s. If other clients
    /// have kept the server waiting before, these limits are lower.
    ///
    /// # Errors
    ///
    /// Fails if the connection cannot be accepted, or if the client disconnects, is too slow or
    /// does not send a valid request. A client that has sent something and is still connected gets
    /// a 4xx response first.
    ///
    /// Every error concerns one client only, so log it and call `accept` again. If the process has
    /// too many files open to accept a connection, `accept` waits for half a second before it
    /// fails, so that such a loop does not fill the log.
    pub fn accept(&mut self) -> Result<Scrape<'_>> {
        let start = Instant::now();
        let (stream, peer) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                thread::sleep(pause_after(error.kind()));
                return Err(error).context("cannot accept a connection");
            }
        };
        // From now on, these budgets limit how long the server waits for this client; see
        // `budget.rs`.
        let idle = start.elapsed();
        self.reading.admit(idle);
        self.writing.admit(idle);

        let mut scrape = Scrape {
            connection: Connection {
                stream,
                reading: &mut self.reading,
                writing: &mut self.writing,
            },
            peer,
            request_line: String::new(),
            // Until the request has been read to its end, more may come.
            more_may_come: true,
        };
        match scrape.read_request() {
            Ok(()) => Ok(scrape),
            Err(Refused(status, reason)) => {
                // If the client does not take this response, the refusal is still the error to
                // report.
                let _ = scrape.refuse(status, reason);
                bail!("{peer} was refused: {status}")
            }
            Err(Lost(error)) => Err(error).with_context(|| format!("{peer} sent no request")),
        }
    }
}

/// Returns how long to wait after `accept` has failed.
fn pause_after(error: ErrorKind) -> Duration {
    match error {
        // The client disconnected while it was in the queue. On some systems that is an error of
        // `accept` (on macOS it is `InvalidInput`). The next client should not wait for it.
        ConnectionAborted | ConnectionReset | InvalidInput => Duration::ZERO,
        // Most likely the process has too many files open. The client stays in the queue, so
        // without a pause `accept` would fail again and again.
        _ => Duration::from_millis(500),
    }
}

/// The scrape of a client, which has sent its request and waits for the response.
///
/// If you drop it, the connection is closed without a response.
#[derive(Debug)]
#[must_use = "the client waits for a response"]
pub struct Scrape<'a> {
    /// It is closed when the scrape is dropped. `answer` and `fail` drop it when they return.
    connection: Connection<'a>,
    /// The client's address, for error messages.
    peer: SocketAddr,
    request_line: String,
    /// Whether the client may send more, or has sent more than has been read. If so, `respond`
    /// reads on before it closes the connection.
    more_may_come: bool,
}

impl Scrape<'_> {
    /// Returns the request line, for example `GET /metrics HTTP/1.1`. It consists of printable
    /// ASCII, so a client cannot use it to control a terminal.
    pub fn request_line(&self) -> &str {
        &self.request_line
    }

    /// Sends the metrics, as [`Registry::render`](crate::Registry::render) returns them, and closes
    /// the connection.
    ///
    /// If the client is slow to take the response, the server waits for it for at most 3 s in all.
    /// If the client goes on sending, the server reads on within the limits of
    /// [`accept`](MetricsServer::accept), because the client could lose the response otherwise. If
    /// other clients have kept the server waiting before, these limits are lower.
    ///
    /// # Errors
    ///
    /// Fails if the client disconnects or is too slow. Then the response is truncated, which the
    /// client notices because of its `Content-Length`.
    pub fn answer(mut self, exposition: &str) -> Result<()> {
        // Prometheus 3 rejects a response without this header.
        let format = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
        self.respond("200 OK", format, exposition)
    }

    /// Sends a response with the status 500 and `reason` as its body, and closes the connection.
    ///
    /// Prometheus then marks the target as down and shows the status. The reason is for people who
    /// open the URL themselves.
    ///
    /// # Errors
    ///
    /// Fails as [`answer`](Self::answer) does.
    pub fn fail(mut self, reason: &str) -> Result<()> {
        self.refuse("500 Internal Server Error", reason)
    }

    /// Reads a request: the request line, headers, and a blank line.
    fn read_request(&mut self) -> Result<(), Failure> {
        let mut input = BufReader::new((&mut self.connection).take(LONGEST_REQUEST));
        // Wait for the first bytes, but do not take them out of the buffer yet.
        match input.fill_buf().map_err(Lost)?.first() {
            None => return Err(Lost(io::Error::other("it disconnected"))),
            Some(b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n') => {}
            // This is not HTTP. In a TLS handshake, for example, it would be no use to wait for the
            // end of a line, which may never come.
            Some(_) => return Err(MALFORMED),
        }

        self.request_line = read_line(&mut input, LONG_LINE)?;
        if self.request_line.is_empty() {
            // RFC 9112, section 2.2: ignore an empty line before the request.
            self.request_line = read_line(&mut input, LONG_LINE)?;
        }
        check_request_line(&self.request_line)?;

        let mut has_body = false;
        let mut header = read_line(&mut input, LONG_HEAD)?;
        while !header.is_empty() {
            has_body |= announces_body(&header);
            header = read_line(&mut input, LONG_HEAD)?;
        }

        // More may come if a body follows, if the buffer already holds the beginning of something
        // else, or if the request has ended just at the limit.
        self.more_may_come = has_body || !input.buffer().is_empty() || is_used_up(&input);
        Ok(())
    }

    fn refuse(&mut self, status: &str, reason: &str) -> Result<()> {
        // `Allow` is required for a 405, and permitted for any other status.
        let headers = "Content-Type: text/plain; charset=utf-8\r\nAllow: GET, HEAD\r\n";
        self.respond(status, headers, &format!("{reason}\n"))
    }

    fn respond(&mut self, status: &str, headers: &str, body: &str) -> Result<()> {
        self.write_response(status, headers, body)
            .with_context(|| format!("{} did not take the response", self.peer))?;
        // If a socket is closed while it contains unread bytes, the kernel sends a reset instead of
        // a normal close, and the client's kernel may then discard the response. So close only the
        // writing half, which tells the client that the response is complete. Then read on until
        // the client closes its half, or until its time is over. A client that was too slow has
        // sent nothing that is unread, so do not wait for it again.
        let reads_on = self.more_may_come && !status.starts_with("408");
        if reads_on && self.connection.stream.shutdown(Shutdown::Write).is_ok() {
            let _ = io::copy(&mut self.connection, &mut io::sink());
        }
        Ok(())
    }

    fn write_response(&mut self, status: &str, headers: &str, body: &str) -> io::Result<()> {
        // With a buffer, the headers and a small body take a single write.
        let mut output = BufWriter::new(&mut self.connection);
        write!(output, "HTTP/1.0 {status}\r\n{headers}")?;
        write!(output, "Content-Length: {}\r\n", body.len())?;
        write!(output, "Connection: close\r\n\r\n")?;
        if !self.request_line.starts_with("HEAD ") {
            output.write_all(body.as_bytes())?;
        }
        output.flush()
    }
}

/// Reads a line and removes its end, which is CRLF or, as RFC 9112 permits, a single LF.
///
/// If the client closes its writing half, the line ends there, and the next one is empty. So this
/// ends the headers as well as a blank line does.
fn read_line(input: &mut BufReader<Take<impl Read>>, too_long: Failure) -> Result<String, Failure> {
    let mut line = Vec::new();
    if let Err(error) = input.read_until(b'\n', &mut line) {
        let too_slow = error.kind() == TimedOut;
        return Err(if too_slow { TOO_SLOW } else { Lost(error) });
    }
    if !line.ends_with(b"\n") && is_used_up(input) {
        return Err(too_long);
    }
    let line = String::from_utf8_lossy(&line);
    let without_end = line.strip_suffix("\r\n").or(line.strip_suffix('\n'));
    Ok(without_end.unwrap_or(&line).to_owned())
}

/// Whether `LONGEST_REQUEST` bytes have been read. Then the input seems to end, even if more
/// follows.
fn is_used_up(input: &BufReader<Take<impl Read>>) -> bool {
    input.get_ref().limit() == 0
}

/// Checks a request line: a method, a target and a version, separated by single spaces.
fn check_request_line(line: &str) -> Result<(), Failure> {
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.0" | "HTTP/1.1"] = words[..] else {
        return Err(MALFORMED);
    };
    // RFC 9110, section 5.6.2, lists the characters of a method.
    let in_method = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_method = !method.is_empty() && method.bytes().all(in_method);
    // Refuse control characters. The program may print the line, and a terminal would obey them.
    let is_target = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_method || !is_target {
        return Err(MALFORMED);
    }
    match method {
        "GET" | "HEAD" => Ok(()),
        _ => Err(WRONG_METHOD),
    }
}

/// Whether a header says that the request has a body.
fn announces_body(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    let length = header.strip_prefix("content-length:");
    length.is_some_and(|length| length.trim() != "0") || header.starts_with("transfer-encoding:")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This cannot be tested from outside, because on Linux `accept` does not fail for such a
    /// client.
    #[test]
    fn a_client_that_disconnects_in_the_queue_delays_nobody() {
        for kind in [ConnectionAborted, ConnectionReset, InvalidInput] {
            assert_eq!(pause_after(kind), Duration::ZERO);
        }
    }
}
