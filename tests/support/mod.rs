//! What the tests share: raw HTTP over loopback, the program as a child, a server in a thread.

#![allow(dead_code, reason = "no test uses all of it")]

pub mod exposition;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use metricmote::{MetricsServer, Registry, Scrape};

/// Ends a test that would otherwise wait for ever; no test passes by waiting for it.
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

/// Sends the bytes and reads to the end of the stream, which must be a clean one.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    read_to_end(&mut stream)
}

pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a clean end");
    response
}

/// Sends the bytes, says that there are no more, and reads the response.
pub fn exchange_and_half_close(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut stream)
}

/// A scrape that must succeed; its body.
pub fn scrape(address: SocketAddr) -> String {
    let response = Response::parse(&exchange(address, SCRAPE));
    assert_eq!(response.status, "HTTP/1.0 200 OK");
    response.body
}

#[derive(Debug)]
pub struct Response {
    pub status: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// Takes a response apart, and checks what is true of all but those to HEAD.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {text:?}"));
        assert!(
            !head.replace("\r\n", "").contains(['\r', '\n']),
            "bare line end: {head:?}"
        );
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().to_owned();
        let headers = lines
            .map(|line| {
                line.split_once(": ")
                    .unwrap_or_else(|| panic!("no header: {line:?}"))
            })
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let response = Self {
            status,
            headers,
            body: body.to_owned(),
        };
        assert_eq!(response.header("Connection"), Some("close"));
        let announced: usize = response.header("Content-Length").unwrap().parse().unwrap();
        assert_eq!(body.len(), announced);
        response
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|header| header.0 == name);
        let value = values.next().map(|header| header.1.as_str());
        assert!(values.next().is_none(), "{name} twice");
        value
    }
}

/// The program, on a free port; it ends with the test.
pub struct Metricmote {
    pub child: Child,
    pub address: SocketAddr,
    printing: Option<JoinHandle<String>>,
}

impl Metricmote {
    pub fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metricmote"));
        command.arg("0").stderr(Stdio::null());
        Self::spawn(command)
    }

    /// Runs a command that becomes the program, and gathers what it prints: it prints a line for
    /// each scrape, and would stop at a pipe that is full.
    pub fn spawn(command: Command) -> Self {
        let (mut server, stdout) = Self::spawn_unread(command);
        let stderr = server.child.stderr.take();
        server.printing = Some(thread::spawn(move || {
            let errors = thread::spawn(|| stderr.map(read_text).unwrap_or_default());
            read_text(stdout) + &errors.join().unwrap()
        }));
        server
    }

    /// The same, but after its first line what it prints is for the caller to read.
    pub fn spawn_unread(mut command: Command) -> (Self, BufReader<ChildStdout>) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line
            .strip_prefix("Serving http://")
            .and_then(|line| line.strip_suffix("/metrics\n"))
            .unwrap_or_else(|| panic!("{line:?}"))
            .parse()
            .unwrap();
        (
            Self {
                child,
                address,
                printing: None,
            },
            stdout,
        )
    }

    /// Ends the program; what it has printed since its first line, stdout before stderr.
    pub fn end(mut self) -> String {
        self.child.kill().unwrap();
        self.printing.take().unwrap().join().unwrap()
    }

    /// A figure of `/proc/PID/status`.
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

/// A server of the library in a thread; it ends with the test.
pub struct Served {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves the registry, and passes on what goes wrong.
    pub fn start(
        mut registry: Registry,
        report: impl FnMut(anyhow::Error) + Send + 'static,
    ) -> Self {
        Self::run(report, move |scrape| scrape.answer(registry.render()))
    }

    /// Serves a large text to whoever asks for `/large`, and a small one to all others.
    pub fn start_with_large(
        text: &str,
        report: impl FnMut(anyhow::Error) + Send + 'static,
    ) -> Self {
        let text = text.to_owned();
        Self::run(report, move |scrape| {
            if scrape.request_line().contains("/large") {
                scrape.answer(&text)
            } else {
                scrape.answer("# small\n")
            }
        })
    }

    /// Serves the same text again and again.
    pub fn start_with(text: String, report: impl FnMut(anyhow::Error) + Send + 'static) -> Self {
        Self::run(report, move |scrape| scrape.answer(&text))
    }

    fn run(
        mut report: impl FnMut(anyhow::Error) + Send + 'static,
        mut answer: impl FnMut(Scrape) -> anyhow::Result<()> + Send + 'static,
    ) -> Self {
        let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let served = server.accept().and_then(&mut answer);
                served.unwrap_or_else(&mut report);
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

/// Repeatable random numbers, splitmix64.
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

    /// Unicode, everything that needs an escape, and control characters.
    pub fn text(&mut self) -> String {
        const ALPHABET: [&str; 24] = [
            "a",
            "Z",
            "0",
            "_",
            " ",
            "\\",
            "\"",
            "\n",
            "\\n",
            "\t",
            "\r",
            "\0",
            "\u{1b}[31m",
            "{",
            "}",
            "=",
            ",",
            "#",
            "ö",
            "→",
            "🦀",
            "\u{2028}",
            "\u{7f}",
            "\u{feff}",
        ];
        let length = self.below(12);
        (0..length)
            .map(|_| ALPHABET[self.below(ALPHABET.len())])
            .collect()
    }
}
