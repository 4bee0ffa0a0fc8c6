//! The server: one thread that answers one client at a time, and waits for none of them long.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::registry::Registry;

/// How long a client may keep the server waiting while it asks, and then again while it receives the
/// answer, when nobody else is queuing.
///
/// These are two turns, each with a limit of its own, and [`Turn`] keeps the account. Half of what a
/// client uses of a turn, beyond a floor that is free, is off the limit for those that follow, down
/// to that floor; the limits are whole again once nobody is queuing. A limit can fall by 1 s in all,
/// so all that queue use 2 s beyond the floor at most. std has the kernel queue 128 connections.
/// Whatever these do or leave undone, the server waits for all of them together for at most
///
/// ```text
/// asking     2 s + 128 ×  8 ms = 3.0 s
/// receiving  2 s + 128 × 28 ms = 5.6 s
/// ```
///
/// or 3.6 s and 6.1 s on a kernel that ticks every 4 ms, where a time-out takes up to a tick longer.
/// Prometheus waits 10 s. The second sum counts only where the metrics are too large for the kernel
/// to take over at once, as some megabytes are; the time to copy them to it comes on top.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lowest limit for asking. It is enough for whoever has been queuing: by the time such a client
/// is accepted, its request has nearly always arrived.
const ASKING_FLOOR: Duration = Duration::from_millis(8);

/// The lowest limit for receiving. On a fast network some megabytes take no longer.
const RECEIVING_FLOOR: Duration = Duration::from_millis(28);

/// How long to wait after an `accept` that failed. Where no file descriptor is left it fails again
/// at once, and the server would spin. Short, because on some systems it is one client's reset that
/// makes it fail.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The longest request, in bytes; one of Prometheus has about 300.
const LONGEST_REQUEST: usize = 8 * 1024;

/// Serves the metrics to whoever connects and asks for them, one client at a time.
///
/// The program owns the loop, as with [`TcpListener`]. It brings its values up to date when a
/// client has asked for them, between [`accept`](Self::accept) and [`answer`](Scrape::answer):
/// nobody can see them at any other time.
///
/// ```no_run
/// use metricmote::{MetricsServer, Registry};
///
/// let mut registry = Registry::new();
/// let uptime = registry.gauge("uptime_seconds", "Time since the start.", &[])?;
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
    /// How long the next client may keep the server waiting: while it asks, while it receives.
    asking_limit: Duration,
    receiving_limit: Duration,
    /// What the client in hand has sent. This and the head of the response are kept from one
    /// scrape to the next, so that none needs to allocate.
    request: Vec<u8>,
    head: String,
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
            asking_limit: PATIENCE,
            receiving_limit: PATIENCE,
            request: vec![0; LONGEST_REQUEST],
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
    /// The client hung up, took too long, or sent something else than a request for the metrics,
    /// and got a 4xx for that; or it could not be accepted, and then the error comes after a pause
    /// of 50 ms. Print it and call `accept` again: the server is as good as before.
    pub fn accept(&mut self) -> Result<Scrape<'_>> {
        let (stream, peer) = self
            .next_connection()
            .inspect_err(|_| thread::sleep(ACCEPT_PAUSE))
            .context("cannot accept a connection")?;
        let mut client = Client {
            stream,
            peer,
            asking: Turn::new(&mut self.asking_limit, ASKING_FLOOR),
            receiving: Turn::new(&mut self.receiving_limit, RECEIVING_FLOOR),
        };
        let request = client.read_request(&mut self.request)?;
        Ok(Scrape {
            client,
            request,
            head: &mut self.head,
        })
    }

    /// Accepts a connection. Where limits have been lowered it first looks whether anybody is queuing:
    /// with nobody in the queue, an `accept` that must not block says that it would have to.
    fn next_connection(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        if self.asking_limit < PATIENCE || self.receiving_limit < PATIENCE {
            self.listener.set_nonblocking(true)?;
            let queued = self.listener.accept();
            self.listener.set_nonblocking(false)?;
            match queued {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.asking_limit = PATIENCE;
                    self.receiving_limit = PATIENCE;
                }
                Ok((stream, peer)) => {
                    // Not on Linux, but on other systems it takes after the listener.
                    stream.set_nonblocking(false)?;
                    return Ok((stream, peer));
                }
                Err(error) => return Err(error),
            }
        }
        self.listener.accept()
    }
}

/// A client that has asked for the metrics. Dropped unanswered it is hung up on.
#[derive(Debug)]
#[must_use = "the client waits for an answer"]
pub struct Scrape<'a> {
    client: Client<'a>,
    request: Request<'a>,
    head: &'a mut String,
}

/// A request for the metrics.
#[derive(Debug)]
struct Request<'a> {
    line: &'a str,
    head_only: bool,
    /// More follows its head: a body, or another request.
    more: bool,
}

impl Scrape<'_> {
    /// The request line, such as `GET /metrics HTTP/1.1`: printable ASCII in any case.
    #[must_use]
    pub fn request_line(&self) -> &str {
        self.request.line
    }

    /// Renders the metrics, sends them, and closes the connection.
    ///
    /// # Errors
    ///
    /// The client hung up, or was too slow to take the response.
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
        self.client
            .write(self.head, body)
            .with_context(|| format!("{} did not take the response", self.client.peer))?;
        if self.request.more {
            self.client.drain();
        }
        Ok(())
    }
}

/// A connection, and the time that whoever is at the other end of it has.
#[derive(Debug)]
struct Client<'a> {
    stream: TcpStream,
    peer: SocketAddr,
    asking: Turn<'a>,
    receiving: Turn<'a>,
}

/// How long the server has waited for a client, in all its reads or in all its writes. Dropped with
/// the client, it lowers the limit for the next one.
#[derive(Debug)]
struct Turn<'a> {
    waited: Duration,
    limit: &'a mut Duration,
    floor: Duration,
}

impl Client<'_> {
    /// Reads a request to the end of its head.
    ///
    /// The head says nothing that matters here, but when a socket is closed with bytes unread the
    /// kernel sends a reset, and then the client may lose the response.
    fn read_request<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Request<'b>> {
        let mut length = 0;
        let end = loop {
            if length == buffer.len() {
                return if buffer.contains(&b'\n') {
                    self.refuse("431 Request Header Fields Too Large", "Send fewer headers.")
                } else {
                    self.refuse("414 URI Too Long", "Ask for something shorter.")
                };
            }
            let received = self
                .read(&mut buffer[length..])
                .with_context(|| format!("{} sent {length} bytes and no request", self.peer))?;
            ensure!(
                length + received > 0,
                "{} hung up without a request",
                self.peer
            );
            if received == 0 {
                break length;
            }
            // The line feeds of a blank line may arrive apart.
            let searched = length.saturating_sub(2);
            length += received;
            if let Some(end) = find_blank_line(&buffer[searched..length]) {
                break searched + end;
            }
            // A TLS hello, from a scraper set to `https`, has no blank line to wait for.
            if !buffer[0].is_ascii_alphabetic() {
                break length;
            }
        };
        let (head, rest) = buffer[..length].split_at(end);
        let Some((method, line)) = parse_request_line(head) else {
            return self.refuse("400 Bad Request", "Ask in HTTP/1: GET /metrics HTTP/1.1");
        };
        if method != "GET" && method != "HEAD" {
            return self.refuse("405 Method Not Allowed", "Ask with GET or HEAD.");
        }
        // A head that fills the buffer leaves no room to see what follows it.
        let more = !rest.is_empty() || length == buffer.len() || announces_body(head);
        Ok(Request {
            line,
            head_only: method == "HEAD",
            more,
        })
    }

    /// Tells the client what is wrong with its request, and returns that as an error.
    fn refuse<T>(&mut self, status: &str, sentence: &str) -> Result<T> {
        let head = format!(
            "HTTP/1.0 {status}\r\n\
             Allow: GET, HEAD\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\
             Connection: close\r\n\
             \r\n",
            sentence.len() + 1
        );
        // Whether the client stays to read that is its own affair.
        if self.write(&head, &format!("{sentence}\n")).is_ok() {
            self.drain();
        }
        bail!("{} was refused: {status}", self.peer)
    }

    /// Reads what the client still sends, while its turn to ask lasts, and forgets it: bytes left
    /// unread would cost it the response.
    fn drain(&mut self) {
        if self.stream.shutdown(Shutdown::Write).is_ok() {
            let mut scrap = [0; 8 * 1024];
            while self.read(&mut scrap).is_ok_and(|received| received > 0) {}
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.asking.wait(|left| {
            self.stream.set_read_timeout(Some(left))?;
            self.stream.read(buffer)
        })
    }

    /// Writes both, with one system call where the kernel has room for them.
    fn write(&mut self, head: &str, body: &str) -> io::Result<()> {
        let mut unsent = &mut [IoSlice::new(head.as_bytes()), IoSlice::new(body.as_bytes())][..];
        while !unsent.is_empty() {
            let sent = self.receiving.wait(|left| {
                self.stream.set_write_timeout(Some(left))?;
                self.stream.write_vectored(unsent)
            })?;
            IoSlice::advance_slices(&mut unsent, sent);
        }
        Ok(())
    }
}

impl<'a> Turn<'a> {
    fn new(limit: &'a mut Duration, floor: Duration) -> Self {
        Self {
            waited: Duration::ZERO,
            limit,
            floor,
        }
    }

    /// Reads or writes once, with what is left of the turn as the time-out.
    ///
    /// All waiting is added up. A time-out for each read alone would let a client that sends a byte
    /// a second hold the server for ever.
    fn wait(
        &mut self,
        mut transfer: impl FnMut(Duration) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let left = self.limit.saturating_sub(self.waited);
            // std rejects a time-out of zero.
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let start = Instant::now();
            let result = transfer(left);
            self.waited += start.elapsed();
            match result.as_ref().map_err(io::Error::kind) {
                // A signal; or the time is up, which Windows calls `TimedOut`.
                Err(ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                _ => return result,
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let charge = self.waited.saturating_sub(self.floor) / 2;
        *self.limit = self.floor.max(self.limit.saturating_sub(charge));
    }
}

/// Where the first blank line ends. A line ends in CRLF or, as RFC 9112 allows, in a bare LF.
fn find_blank_line(bytes: &[u8]) -> Option<usize> {
    let mut ends = (0..bytes.len()).filter(|&end| bytes[end] == b'\n');
    ends.find(|&end| bytes[..end].ends_with(b"\n") || bytes[..end].ends_with(b"\n\r"))
        .map(|end| end + 1)
}

/// The method of a request and its whole first line, where that is well formed.
fn parse_request_line(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let complete = words.next().is_none() && !target.is_empty() && version.starts_with("HTTP/1.");
    // The program may print it: a terminal obeys control characters.
    let printable = line
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    (complete && printable).then_some((method, line))
}

fn announces_body(head: &[u8]) -> bool {
    head.split(|&byte| byte == b'\n').any(|line| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or(line);
        name.eq_ignore_ascii_case(b"content-length")
            || name.eq_ignore_ascii_case(b"transfer-encoding")
    })
}
