//! The server: one thread, one client at a time, and only so much patience with each.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::registry::Registry;

/// How long a client may keep the server waiting for its request, and as long again for taking
/// the response, while nobody else is queuing.
///
/// Each client that keeps it waiting for longer than [`FLOOR`] halves the patience for the next,
/// down to that floor, until the queue is empty. The kernel queues 128 connections, so whatever
/// they do or leave undone, the last of them waits for at most
///
/// ```text
/// 2 × (1 s + 1/2 s + 1/4 s + …) + 128 × 2 × 10 ms = 6.6 s
/// ```
///
/// or, where a kernel that ticks every 4 ms makes 16 ms of each 10, for 8.1 s: less than the 10 s
/// that Prometheus gives a scrape by default. (Half of it where they only keep silent.)
const PATIENCE: Duration = Duration::from_secs(1);

/// The least patience. Enough for a client that has been queuing: by the time it is accepted its
/// request has nearly always arrived.
const FLOOR: Duration = Duration::from_millis(10);

/// An `accept` that took longer than this had to wait for a connection, so nobody was queuing.
const QUIET: Duration = Duration::from_micros(100);

/// After an `accept` that failed, as it does without a free file descriptor: the connection stays
/// in the queue, so to try again at once would be to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest request, in bytes. Prometheus sends about 300.
const MAX_REQUEST: usize = 8 * 1024;

/// A socket that serves the metrics to whoever asks for them, one client at a time.
///
/// The program owns the loop, as it does with [`TcpListener::accept`]. Between
/// [`accept`](Self::accept) and [`answer`](Scrape::answer) it brings its values up to date:
///
/// ```no_run
/// use metricmote::{MetricsServer, Registry};
///
/// let mut registry = Registry::new();
/// let uptime = registry.gauge("uptime_seconds", "Seconds since the start.", &[])?;
/// let start = std::time::Instant::now();
///
/// let mut server = MetricsServer::bind("127.0.0.1:8043")?;
/// loop {
///     let served = server.accept().and_then(|scrape| {
///         uptime.set(start.elapsed().as_secs_f64());
///         scrape.answer(&mut registry)
///     });
///     if let Err(error) = served {
///         eprintln!("{error:#}");
///     }
/// }
/// # #[allow(unreachable_code)]
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    patience: Duration,
    /// The request of the client that is being served.
    request: Vec<u8>,
    /// The head of its response. Both are kept so that a scrape allocates nothing.
    head: String,
}

impl MetricsServer {
    /// Listens on `address`. Port 0 takes a free one, which [`local_addr`](Self::local_addr) tells.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::bind`]: the port is in use, say.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address)?,
            patience: PATIENCE,
            request: vec![0; MAX_REQUEST],
            head: String::new(),
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

    /// Waits for a client and reads its request.
    ///
    /// # Errors
    ///
    /// The client asked for something else and was refused, or hung up, or took too long; or the
    /// connection could not be accepted. Such an error is there to be printed: the server is as
    /// good as before, so call `accept` again.
    pub fn accept(&mut self) -> Result<Scrape<'_>> {
        let before = Instant::now();
        let (stream, peer) = match self.listener.accept() {
            Ok(connection) => connection,
            Err(error) => {
                thread::sleep(ACCEPT_PAUSE);
                return Err(error).context("cannot accept a connection");
            }
        };
        if before.elapsed() > QUIET {
            self.patience = PATIENCE;
        }
        let mut client = Client {
            stream,
            peer,
            limit: self.patience,
            waited: Duration::ZERO,
            patience: &mut self.patience,
        };
        let request = client.read_request(&mut self.request)?;
        Ok(Scrape {
            client,
            request,
            head: &mut self.head,
        })
    }
}

/// A client that has asked for the metrics and waits for the answer.
#[derive(Debug)]
#[must_use = "the client waits for its answer"]
pub struct Scrape<'a> {
    client: Client<'a>,
    request: Request<'a>,
    head: &'a mut String,
}

impl Scrape<'_> {
    /// The request line, such as `GET /metrics HTTP/1.1`: printable ASCII, whatever a client sends.
    #[must_use]
    pub fn request_line(&self) -> &str {
        self.request.line
    }

    /// Renders the metrics, writes the response and closes the connection.
    ///
    /// # Errors
    ///
    /// The client hung up, or took too long to take the response.
    pub fn answer(mut self, registry: &mut Registry) -> Result<()> {
        let body = registry.render();
        self.head.clear();
        write!(
            self.head,
            "HTTP/1.0 200 OK\r\n\
             Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: {}\r\n\
             Connection: close\r\n\
             \r\n",
            body.len()
        )?;
        let body = if self.request.head_only { "" } else { body };
        self.client.answer(self.head, body, self.request.unread)
    }
}

/// A request for the metrics.
#[derive(Debug)]
struct Request<'a> {
    line: &'a str,
    head_only: bool,
    /// The client sends more than a head: a body, or further requests.
    unread: bool,
}

/// One client's connection: the only place where the server waits for a client.
#[derive(Debug)]
struct Client<'a> {
    stream: TcpStream,
    peer: SocketAddr,
    /// How long it may keep the server waiting, from its first byte to its last.
    limit: Duration,
    waited: Duration,
    /// The server's, for the next client.
    patience: &'a mut Duration,
}

impl Client<'_> {
    /// Reads the request through its blank line. To close a socket with unread bytes is to send
    /// a reset, and a reset can cost the client the response.
    fn read_request<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Request<'b>> {
        let mut length = 0;
        let end = loop {
            if length == buffer.len() {
                return Err(if buffer.contains(&b'\n') {
                    self.refuse(
                        "431 Request Header Fields Too Large",
                        "The request is too long.",
                    )
                } else {
                    self.refuse("414 URI Too Long", "The request line is too long.")
                });
            }
            let received = self
                .read(&mut buffer[length..])
                .with_context(|| format!("no request from {}, only {length} bytes", self.peer))?;
            if received == 0 {
                break length;
            }
            let unsearched = length.saturating_sub(2);
            length += received;
            // A TLS hello, from an `https://` by mistake, has no blank line to wait for.
            if !buffer[0].is_ascii_alphabetic() {
                return Err(self.refuse("400 Bad Request", "Ask in plain HTTP."));
            }
            if let Some(end) = blank_line(&buffer[unsearched..length]) {
                break unsearched + end;
            }
        };
        if length == 0 {
            bail!("{} hung up without a request", self.peer);
        }
        let (head, rest) = buffer[..length].split_at(end);
        match parse(head) {
            Some(("GET" | "HEAD", line)) => Ok(Request {
                line,
                head_only: line.starts_with("HEAD"),
                unread: !rest.is_empty() || announces_body(head),
            }),
            Some(_) => Err(self.refuse("405 Method Not Allowed", "Ask with GET or HEAD.")),
            None => Err(self.refuse(
                "400 Bad Request",
                "Ask in HTTP, as in GET /metrics HTTP/1.1.",
            )),
        }
    }

    fn answer(&mut self, head: &str, body: &str, unread: bool) -> Result<()> {
        self.limit += *self.patience;
        self.write(head, body)
            .with_context(|| format!("{} did not take the response", self.peer))?;
        if unread {
            self.drain();
        }
        Ok(())
    }

    /// Tells the client what is wrong with its request, and returns what there is to report.
    fn refuse(&mut self, status: &str, sentence: &str) -> Error {
        let head = format!(
            "HTTP/1.0 {status}\r\n\
             Allow: GET, HEAD\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\
             Connection: close\r\n\
             \r\n",
            sentence.len() + 1
        );
        // Whether it stays to read that is its own affair.
        if self.write(&head, &format!("{sentence}\n")).is_ok() {
            self.drain();
        }
        anyhow!("refused {}: {status}", self.peer)
    }

    /// Reads and forgets what the client still sends, for as long as there is patience.
    fn drain(&mut self) {
        let mut scrap = [0; 8 * 1024];
        if self.stream.shutdown(Shutdown::Write).is_ok() {
            while self.read(&mut scrap).is_ok_and(|length| length > 0) {}
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(|mut stream, left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(buffer)
        })
    }

    /// Writes all of it, in one system call where the kernel has room.
    fn write(&mut self, head: &str, body: &str) -> io::Result<()> {
        let mut slices = &mut [IoSlice::new(head.as_bytes()), IoSlice::new(body.as_bytes())][..];
        while !slices.is_empty() {
            let written = self.wait(|mut stream, left| {
                stream.set_write_timeout(Some(left))?;
                stream.write_vectored(slices)
            })?;
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    /// Runs one read or write with the time that is left as its time-out.
    ///
    /// The time is counted over all of them: a time-out for each alone would let a client that
    /// sends a byte a second hold the server for ever.
    fn wait(
        &mut self,
        mut operation: impl FnMut(&TcpStream, Duration) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let left = self.limit.saturating_sub(self.waited);
            // To std a time-out of zero is an error of its own.
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let before = Instant::now();
            let result = operation(&self.stream, left);
            self.waited += before.elapsed();
            match result {
                // A signal, or (on Unix) the time-out: the clock above decides.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                result => return result,
            }
        }
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if self.waited > FLOOR {
            *self.patience = (*self.patience / 2).max(FLOOR);
        }
    }
}

/// The end of the first blank line.
fn blank_line(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len())
        .find(|&i| bytes[i] == b'\n' && (bytes[i - 1] == b'\n' || bytes[..i].ends_with(b"\n\r")))
        .map(|i| i + 1)
}

/// The method and the line of a request.
fn parse(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let printable = line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    (printable
        && !method.is_empty()
        && !target.is_empty()
        && version.starts_with("HTTP/1.")
        && words.next().is_none())
    .then_some((method, line))
}

fn announces_body(head: &[u8]) -> bool {
    head.split(|&byte| byte == b'\n').any(|line| {
        ["content-length:", "transfer-encoding:"]
            .iter()
            .any(|name| {
                line.get(..name.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
            })
    })
}
