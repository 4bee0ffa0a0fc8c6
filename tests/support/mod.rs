//! What the tests share: HTTP as raw bytes, the program as a child process, a server in a thread.

#![allow(dead_code, reason = "no test uses all of it")]

pub mod clients;
pub mod exposition;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use metricmote::{MetricsServer, Scrape};

/// Ends a test that would otherwise wait for ever. No test passes by waiting for it.
pub const GUARD: Duration = Duration::from_secs(30);

/// What Prometheus 2.42 sends.
pub const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\n\
    Host: 127.0.0.1:8043\r\n\
    User-Agent: Prometheus/2.42.0+ds\r\n\
    Accept: application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\
    Accept-Encoding: gzip\r\n\
    X-Prometheus-Scrape-Timeout-Seconds: 1\r\n\
    \r\n";

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(GUARD)).unwrap();
    stream.set_write_timeout(Some(GUARD)).unwrap();
    stream
}

/// Reads to the end of the stream. Fails if the connection is reset.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a clean end");
    response
}

pub fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    read_to_end(&mut stream)
}

pub fn exchange_and_half_close(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut stream)
}

/// Returns the body of a scrape that must succeed.
pub fn scrape(address: SocketAddr) -> String {
    let response = Response::parse(&exchange(address, SCRAPE));
    assert_eq!(response.status, "200 OK");
    response.body
}

/// A response to another method than HEAD.
#[derive(Debug)]
pub struct Response {
    pub status: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// Parses a response, and checks what must be true of each.
    pub fn parse(bytes: &[u8]) -> Self {
        let response = Self::try_parse(bytes);
        response.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(bytes)))
    }

    /// Returns `None` if the response is malformed or truncated.
    pub fn try_parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.0 ")?.to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.to_owned()))
        };
        let headers = lines.map(header).collect::<Option<_>>()?;
        let body = body.to_owned();
        let response = Self {
            status,
            headers,
            body,
        };
        let is_whole = response.header("Content-Length")? == response.body.len().to_string();
        let closes = response.header("Connection")? == "close";
        (is_whole && closes && !head.replace("\r\n", "").contains(['\r', '\n'])).then_some(response)
    }

    /// Returns the value of a header that may be there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|header| header.0 == name);
        let value = values.next().map(|header| header.1.as_str());
        assert!(values.next().is_none(), "{name} twice");
        value
    }
}

/// The program on a free port. It ends with the test.
pub struct Metricmote {
    pub child: Child,
    pub address: SocketAddr,
    printing: Option<JoinHandle<String>>,
}

impl Metricmote {
    pub fn start() -> Self {
        Self::spawn(&["0"], Stdio::null())
    }

    /// Starts the program, and collects what it prints, because it would stop at a full pipe.
    pub fn spawn(arguments: &[&str], stderr: Stdio) -> Self {
        let (mut server, stdout) = Self::spawn_unread(arguments, stderr);
        let stderr = server.child.stderr.take();
        server.printing = Some(thread::spawn(move || {
            let errors = thread::spawn(|| stderr.map(read_text).unwrap_or_default());
            read_text(stdout) + &errors.join().unwrap()
        }));
        server
    }

    /// Starts the program, and returns its output after the first line.
    pub fn spawn_unread(arguments: &[&str], stderr: Stdio) -> (Self, BufReader<ChildStdout>) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_metricmote"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.strip_prefix("Serving http://");
        let address = url.and_then(|url| url.strip_suffix("/metrics\n"));
        let address = address.unwrap_or_else(|| panic!("{line:?}"));
        let address = address.parse().unwrap();
        let printing = None;
        (
            Self {
                child,
                address,
                printing,
            },
            stdout,
        )
    }

    /// Ends the program, and returns what it has printed since its first line, stdout before stderr.
    pub fn end(mut self) -> String {
        self.child.kill().unwrap();
        self.printing.take().unwrap().join().unwrap()
    }

    /// Returns a figure of `/proc/PID/status`.
    #[cfg(target_os = "linux")]
    pub fn status(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Metricmote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_text(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("UTF-8");
    text
}

/// A server of the library in a thread. It ends with the test.
pub struct Served {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Answers `/large` with that many bytes, and everything else with a few.
    pub fn large(bytes: usize) -> Self {
        const LINE: &str = "# padding\n";
        let text = LINE.repeat(bytes / LINE.len());
        Self::start(move |scrape| {
            let is_large = scrape.request_line().contains("/large");
            scrape.answer(if is_large { &text } else { "# small\n" })
        })
    }

    pub fn start(mut answer: impl FnMut(Scrape) -> anyhow::Result<()> + Send + 'static) -> Self {
        let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = server.accept().and_then(&mut answer);
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the server panicked");
    }
}

/// Random numbers that are the same in each run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// Unicode, control characters, and everything that must be escaped.
    pub fn text(&mut self) -> String {
        let alphabet: Vec<char> = "aZ0_ \\\"\n\t\r\0\u{1b}[m{}=,#nö→🦀\u{2028}\u{7f}\u{feff}"
            .chars()
            .collect();
        let length = self.below(12);
        let letters = (0..length).map(|_| alphabet[self.below(alphabet.len())]);
        letters.collect()
    }
}
