//! The server: accepts a client, reads its request, sends the response, closes the connection.
//!
//! Everything here is HTTP. How long the server waits for a client is decided in `budget.rs`.

use std::io::ErrorKind::{self, ConnectionAborted, ConnectionReset, InvalidInput, TimedOut};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Take, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::budget::{Budget, Connection};

/// The most bytes that the server reads of a request, up to its blank line. Prometheus sends about
/// 300.
const LONGEST_REQUEST: u64 = 8 * 1024;

/// A server that answers one client at a time.
///
/// The program owns the loop, as it does with a [`TcpListener`]. Values are only seen when a client
/// asks for them, so the best place to update them is between [`accept`](Self::accept) and
/// [`answer`](Scrape::answer):
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
///             // Unlike eprintln!, this does not panic if stderr is closed.
///             let _ = writeln!(stderr(), "{error:#}");
///         }
///     }
/// }
/// ```
///
/// Do not write `server.accept()?` in that loop: every error concerns one client only, so the first
/// port scan would end the program.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    reading: Budget,
    writing: Budget,
}

impl MetricsServer {
    /// Listens on `address`. With port 0 the system chooses a free port, which
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
    /// There is no limit to how long it waits for a client to connect. Then it waits for the
    /// request for at most 0.6 s at a time and 1.2 s in all, or less if other clients have kept it
    /// waiting before.
    ///
    /// # Errors
    ///
    /// Fails if the connection cannot be accepted, or if the client disconnects, is too slow or
    /// does not send a valid request. A client that has sent anything gets a 4xx response first.
    ///
    /// Every error concerns one client only, so log it and call `accept` again. If the process has
    /// no file descriptors left, `accept` waits for half a second before it fails, so that such a
    /// loop does not fill the log.
    pub fn accept(&mut self) -> Result<Scrape<'_>> {
        let start = Instant::now();
        let (stream, peer) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                thread::sleep(pause_after(error.kind()));
                return Err(error).context("cannot accept a connection");
            }
        };
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
            unread: true,
        };
        match scrape.read_request() {
            Ok(()) => Ok(scrape),
            Err(Refused(status, reason)) => {
                // The client may be gone by now, but what is wrong is its request.
                let _ = scrape.refuse(status, reason);
                bail!("{peer} was refused: {status}")
            }
            Err(Lost(error)) => Err(error).with_context(|| format!("{peer} sent no request")),
        }
    }
}

/// How long to wait after `accept` has failed.
fn pause_after(error: ErrorKind) -> Duration {
    match error {
        // The client disconnected while it was queued. (Linux reports that later, by a failed read,
        // and macOS reports it as `InvalidInput`.) A pause would let such clients hold up all
        // others.
        ConnectionAborted | ConnectionReset | InvalidInput => Duration::ZERO,
        // Most likely no file descriptor is left. Then the next `accept` would fail at once,
        // because the client stays in the queue.
        _ => Duration::from_millis(500),
    }
}

/// A client that has asked for the metrics and waits for the response.
///
/// If it is dropped, the connection is closed without a response.
#[derive(Debug)]
#[must_use = "the client waits for a response"]
pub struct Scrape<'a> {
    connection: Connection<'a>,
    /// The client's address, for error messages.
    peer: SocketAddr,
    request_line: String,
    /// Whether part of the request may still be unread; see `respond`.
    unread: bool,
}

/// Why a client does not get the metrics.
enum Failure {
    /// The request is not acceptable. The client is sent this status and this reason.
    Refused(&'static str, &'static str),
    /// The client has disconnected or never sent anything, so nothing is sent to it.
    Lost(io::Error),
}

use Failure::{Lost, Refused};

const MALFORMED: Failure = Refused("400 Bad Request", "Ask in HTTP/1: GET /metrics HTTP/1.1");
const WRONG_METHOD: Failure = Refused("405 Method Not Allowed", "Ask with GET or HEAD.");
const TOO_SLOW: Failure = Refused("408 Request Timeout", "Send it all, to the blank line.");
const LONG_LINE: Failure = Refused("414 URI Too Long", "Ask for something shorter.");
const LONG_HEAD: Failure = Refused("431 Request Header Fields Too Large", "Send fewer headers.");

impl Scrape<'_> {
    /// Returns the request line, for example `GET /metrics HTTP/1.1`. It is printable ASCII, so it
    /// is safe to print.
    pub fn request_line(&self) -> &str {
        &self.request_line
    }

    /// Sends the metrics, as [`Registry::render`](crate::Registry::render) returns them, and closes
    /// the connection.
    ///
    /// The server waits for the client to take the response for at most 1.5 s at a time and 3 s in
    /// all, or less if other clients have kept it waiting before. If the client goes on sending,
    /// the server also reads on for up to 1.2 s, because closing the connection at once could cost
    /// the client the response.
    ///
    /// # Errors
    ///
    /// Fails if the client disconnects or is too slow. The response is truncated then, which the
    /// client can tell from its `Content-Length`.
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
        match input.fill_buf().map_err(Lost)?.first() {
            None => return Err(Lost(io::Error::other("it disconnected"))),
            Some(b'\r' | b'\n' | b'A'..=b'Z' | b'a'..=b'z') => {}
            // This is not HTTP. It may be a TLS handshake, in which a line feed may never come.
            Some(_) => return Err(MALFORMED),
        }

        self.request_line = read_line(&mut input, LONG_LINE)?;
        if self.request_line.is_empty() {
            // RFC 9112, section 2.2: ignore an empty line before the request.
            self.request_line = read_line(&mut input, LONG_LINE)?;
        }
        check_request_line(&self.request_line)?;

        let mut has_body = false;
        loop {
            let header = read_line(&mut input, LONG_HEAD)?;
            if header.is_empty() {
                break;
            }
            has_body |= announces_body(&header);
        }

        self.unread = has_body || !input.buffer().is_empty() || is_used_up(&input);
        Ok(())
    }

    fn refuse(&mut self, status: &str, reason: &str) -> Result<()> {
        // `Allow` is required for a 405, and may be sent with any other response.
        let headers = "Content-Type: text/plain; charset=utf-8\r\nAllow: GET, HEAD\r\n";
        self.respond(status, headers, &format!("{reason}\n"))
    }

    fn respond(&mut self, status: &str, headers: &str, body: &str) -> Result<()> {
        self.write_response(status, headers, body)
            .with_context(|| format!("{} did not take the response", self.peer))?;
        // If a socket is closed while it holds unread bytes, the kernel sends a reset, and the
        // client's kernel may then discard the response. So close only the writing half, which
        // tells the client that the response is complete, and read on until the client closes its
        // half or its time is over.
        if self.unread && self.connection.stream.shutdown(Shutdown::Write).is_ok() {
            let _ = io::copy(&mut self.connection, &mut io::sink());
        }
        Ok(())
    }

    fn write_response(&mut self, status: &str, headers: &str, body: &str) -> io::Result<()> {
        // Sends the head and a small body in a single packet.
        let mut output = BufWriter::new(&mut self.connection);
        write!(output, "HTTP/1.0 {status}\r\n{headers}")?;
        write!(output, "Content-Length: {}\r\n", body.len())?;
        write!(output, "Connection: close\r\n\r\n")?;
        // A response to HEAD has only the head.
        if !self.request_line.starts_with("HEAD ") {
            output.write_all(body.as_bytes())?;
        }
        output.flush()
    }
}

/// Reads a line and removes its end, which is CRLF or, as RFC 9112 permits, a single LF.
///
/// If the client closes its writing half, that ends the line and the request: all further lines are
/// empty.
fn read_line(input: &mut BufReader<Take<impl Read>>, too_long: Failure) -> Result<String, Failure> {
    let mut line = Vec::new();
    match input.read_until(b'\n', &mut line) {
        Err(error) if error.kind() == TimedOut => return Err(TOO_SLOW),
        Err(error) => return Err(Lost(error)),
        Ok(_) if !line.ends_with(b"\n") && is_used_up(input) => return Err(too_long),
        Ok(_) => {}
    }
    let line = String::from_utf8_lossy(&line);
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Whether `LONGEST_REQUEST` bytes have been read, so that no more of the request will be.
fn is_used_up(input: &BufReader<Take<impl Read>>) -> bool {
    input.get_ref().limit() == 0
}

/// Checks a request line: a method, a target and a version, separated by single spaces.
fn check_request_line(line: &str) -> Result<(), Failure> {
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.0" | "HTTP/1.1"] = words[..] else {
        return Err(MALFORMED);
    };
    // RFC 9110, sections 5.6.2 and 9.1: a method is a token.
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_token = !method.is_empty() && method.bytes().all(in_token);
    // The program may print the line, and a terminal obeys control characters.
    let is_printable = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
    match method {
        _ if !is_token || !is_printable => Err(MALFORMED),
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
