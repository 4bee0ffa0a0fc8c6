//! What the tests share: HTTP as raw bytes, the program as a child process, a server in a thread.

#![allow(dead_code, reason = "no test uses all of it")]

pub mod clients;
pub mod exposition;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
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
    X-Prometheus-Scrape-Timeout-Seconds: 1\r\n\r\n";

/// Whether a time-out has ended a read, which Unix and Windows report differently.
pub fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(GUARD)).unwrap();
    stream.set_write_timeout(Some(GUARD)).unwrap();
    stream
}

/// Reads until the server closes the connection. Panics if the connection is reset.
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

/// Scrapes as Prometheus does, and returns the body. Panics if the status is not 200.
pub fn scrape(address: SocketAddr) -> String {
    let response = Response::parse(&exchange(address, SCRAPE));
    assert_eq!(response.status, "200 OK");
    response.body
}

/// A response to any method but HEAD.
pub struct Response {
    pub status: String,
    headers: String,
    pub body: String,
}

impl Response {
    /// Panics if the response is malformed or truncated.
    pub fn parse(bytes: &[u8]) -> Self {
        let response = Self::try_parse(bytes);
        response.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(bytes)))
    }

    /// Returns `None` if the response is malformed or truncated.
    pub fn try_parse(bytes: &[u8]) -> Option<Self> {
        let (head, body) = std::str::from_utf8(bytes).ok()?.split_once("\r\n\r\n")?;
        let (status, headers) = head.strip_prefix("HTTP/1.0 ")?.split_once("\r\n")?;
        let response = Self {
            status: status.to_owned(),
            headers: headers.to_owned(),
            body: body.to_owned(),
        };
        let is_whole = response.header("Content-Length")? == body.len().to_string();
        let closes = response.header("Connection")? == "close";
        let are_headers = headers.split("\r\n").all(|line| line.contains(": "));
        let are_lines = !head.replace("\r\n", "").contains(['\r', '\n']);
        (is_whole && closes && are_headers && are_lines).then_some(response)
    }

    /// Returns the value of a header, if there is one. Panics if there are two.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.split("\r\n");
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice");
        value
    }
}

/// The program as a child process. It ends with the test.
pub struct Metricmote {
    pub child: Child,
    pub address: SocketAddr,
}

impl Metricmote {
    /// Starts the program on a free port, and discards what it prints.
    pub fn start() -> Self {
        let mut server = Self::spawn(&["0"], Stdio::null());
        let mut stdout = server.child.stdout.take().unwrap();
        thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        server
    }

    /// Starts the program, and leaves what it prints after the first line in `child.stdout`. The
    /// program would stop if it printed more than a pipe holds and nobody read it.
    pub fn spawn(arguments: &[&str], stderr: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metricmote"));
        command.stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.args(arguments).spawn().unwrap();
        // With a larger buffer, it would take more than that line out of the pipe.
        let mut stdout = BufReader::with_capacity(1, child.stdout.as_mut().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.strip_prefix("Serving http://").expect(&line);
        let address = url.strip_suffix("/metrics\n").expect(&line);
        Self {
            child,
            address: address.parse().unwrap(),
        }
    }

    /// Ends the program, and returns what it has printed since its first line. The output to
    /// stderr comes last.
    pub fn end(mut self) -> String {
        self.child.kill().unwrap();
        let stdout = self.child.stdout.take().expect("unread output");
        let stderr = self.child.stderr.take().map(io::read_to_string);
        io::read_to_string(stdout).unwrap() + &stderr.map_or(String::new(), Result::unwrap)
    }

    /// Returns a figure of `/proc/PID/status`, which only Linux has.
    pub fn status(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Metricmote {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A server of the library in a thread, which ends with the test program.
pub struct Served {
    pub address: SocketAddr,
}

impl Served {
    /// Answers `/large` with that many bytes, and everything else with a few.
    pub fn large(bytes: usize) -> Self {
        let text = "# padding\n".repeat(bytes / 10);
        Self::start(move |scrape| {
            let is_large = scrape.request_line().contains("/large");
            scrape.answer(if is_large { &text } else { "# small\n" })
        })
    }

    pub fn start(mut answer: impl FnMut(Scrape) -> anyhow::Result<()> + Send + 'static) -> Self {
        let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || {
            loop {
                let _ = server.accept().and_then(&mut answer);
            }
        });
        Self { address }
    }
}

impl Drop for Served {
    /// Checks that the server has not panicked, so that it still closes connections properly.
    fn drop(&mut self) {
        if !thread::panicking() {
            let mut stream = connect(self.address);
            stream.shutdown(Shutdown::Write).unwrap();
            read_to_end(&mut stream);
        }
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
        let alphabet = "aZ0_ \\\"\n\t\r\0\u{1b}[m{}=,#nö→🦀\u{2028}\u{7f}\u{feff}";
        let alphabet = Vec::from_iter(alphabet.chars());
        let length = self.below(12);
        let letter = |_| alphabet[self.below(alphabet.len())];
        (0..length).map(letter).collect()
    }
}
