//! The ladder: the same attacks on three programs, which are `tests/examples/naive.rs`,
//! `tests/examples/sturdy.rs` and metricmote itself. `cargo test ladder -- --nocapture` prints the
//! table that the README shows.

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::iter::zip;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Response, SCRAPE};

/// A program that does not answer an honest scrape within this time hangs. What metricmote needs at
/// most is measured in `hostile.rs`.
const HANGS_AFTER: Duration = Duration::from_secs(4);

/// What becomes of the program: `Err` has a word for the README's table.
type Outcome = Result<(), &'static str>;

/// In the order of the README's table. `sturdy.rs` refers to them by their numbers.
#[rustfmt::skip]
const FAULTS: [(&str, fn(&mut Program) -> Outcome); 10] = [
    ("One client is silent", one_silent_client),
    ("Clients hang up at any moment", hang_ups),
    ("A request has 20 kB of headers or a body", long_requests),
    ("Prometheus 3 requires a `Content-Type`", content_type),
    ("A request line does not end", endless_line),
    ("A request has control characters", control_characters),
    ("Nobody reads the output", unread_output),
    ("A label value contains a quote", quote_in_a_label),
    ("A hundred clients are silent", a_hundred_silent_clients),
    ("One client drips its request", dripping_client),
];

/// Returns addresses that are free now. On Linux no other test uses this host, so that nothing else
/// takes the ports before the programs do.
fn free_addresses() -> [[SocketAddr; 3]; FAULTS.len()] {
    let host = if cfg!(target_os = "linux") {
        "127.0.43.3:0"
    } else {
        "127.0.0.1:0"
    };
    let listeners = [(); FAULTS.len()].map(|()| [(); 3].map(|()| TcpListener::bind(host).unwrap()));
    listeners.map(|three| three.map(|listener| listener.local_addr().unwrap()))
}

#[test]
fn ladder() {
    let addresses = free_addresses();
    // All attacks at once, because most of them only wait.
    let outcomes = thread::scope(|scope| {
        let attacks = zip(FAULTS, addresses).map(|((fault, attack), addresses)| {
            zip(["naive", "sturdy", "metricmote"], addresses).map(move |(name, address)| {
                let mut program = Program::start(name, address, fault);
                scope.spawn(move || attack(&mut program).err().unwrap_or("survives"))
            })
        });
        let attacks: Vec<_> = attacks.flatten().collect();
        attacks
            .into_iter()
            .map(|attack| attack.join().unwrap())
            .collect::<Vec<_>>()
    });
    let mut table = Vec::new();
    for (i, outcomes) in outcomes.chunks(3).enumerate() {
        let fault = FAULTS[i].0;
        assert_ne!(outcomes[0], "survives", "naive: {fault}");
        assert_eq!(outcomes[2], "survives", "metricmote: {fault}");
        table.push(format!("| {}. {fault} | {} |", i + 1, outcomes.join(" | ")));
    }
    println!("\n{}", table.join("\n"));
    let readme = include_str!("../README.md");
    let shown = readme.lines().skip_while(|line| !line.starts_with("| 1. "));
    // The README's last column says what fixes the fault.
    let shown: Vec<&str> = shown
        .zip(&table)
        .map(|(line, row)| &line[..row.len()])
        .collect();
    assert_eq!(shown, table);
}

/// One of the three as a child process. It ends with the attack.
struct Program {
    child: Child,
    address: SocketAddr,
    has_served: bool,
}

impl Program {
    fn start(name: &str, address: SocketAddr, fault: &str) -> Self {
        let labelled = fault.contains("label");
        let mut command = match name {
            "metricmote" if labelled => example("many_series"),
            "metricmote" => Command::new(env!("CARGO_BIN_EXE_metricmote")),
            _ => example(name),
        };
        command.arg(address.to_string());
        if labelled {
            command
                .args((name == "metricmote").then_some("1"))
                .arg("a\"b");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self {
            child: command.spawn().unwrap(),
            address,
            has_served: false,
        }
    }

    /// Connects, and the first time waits until the program listens.
    fn connect(&mut self) -> io::Result<TcpStream> {
        let start = Instant::now();
        loop {
            match TcpStream::connect(self.address) {
                Err(_) if !self.has_served && start.elapsed() < support::GUARD => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error),
                Ok(stream) => {
                    self.has_served = true;
                    stream.set_read_timeout(Some(HANGS_AFTER))?;
                    stream.set_write_timeout(Some(HANGS_AFTER))?;
                    return Ok(stream);
                }
            }
        }
    }

    /// Sends these bytes and keeps the connection open.
    fn send(&mut self, bytes: &[u8]) -> io::Result<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        Ok(stream)
    }

    /// Sends a request, and returns the response if it ends in a clean close.
    fn exchange(&mut self, request: &[u8]) -> Result<String, &'static str> {
        let mut response = String::new();
        let stream = self.send(request);
        match stream.and_then(|mut stream| stream.read_to_string(&mut response)) {
            Ok(_) => Ok(response),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err("hangs"),
            Err(_) if self.exits() => Err("exits"),
            Err(_) => Err("resets"),
        }
    }

    fn serves_on(&mut self) -> Outcome {
        let response = self.exchange(SCRAPE)?;
        let is_scrape = response.starts_with("HTTP/1.0 200 OK") && response.contains("# TYPE");
        is_scrape.then_some(()).ok_or("fails")
    }

    /// Whether the program has ended, or is about to.
    fn exits(&mut self) -> bool {
        (0..20).any(|_| {
            thread::sleep(Duration::from_millis(10));
            self.child.try_wait().unwrap().is_some()
        })
    }

    /// Ends the program, and returns what it has printed.
    fn end(&mut self) -> String {
        let mut printed = String::new();
        self.child.kill().unwrap();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut printed).unwrap();
        printed
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn example(name: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_metricmote"));
    let program = program.with_file_name("examples").join(name);
    assert!(
        program.exists(),
        "no {program:?}: run `cargo build --examples` first"
    );
    Command::new(program)
}

fn one_silent_client(program: &mut Program) -> Outcome {
    let _silent = program.connect();
    program.serves_on()?;
    let _half = program.send(b"GET /metr");
    program.serves_on()
}

fn hang_ups(program: &mut Program) -> Outcome {
    for length in [0, 10, 50, SCRAPE.len()] {
        drop(program.send(&SCRAPE[..length]));
    }
    // The response is there and is not read, so the kernel sends a reset.
    if let Ok(stream) = program.send(SCRAPE) {
        let _ = stream.peek(&mut [0]);
    }
    program.serves_on()
}

fn long_requests(program: &mut Program) -> Outcome {
    let header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let length = "Content-Length: 1000000";
    let body = format!(
        "GET / HTTP/1.1\r\n{length}\r\n\r\n{}",
        "x".repeat(1_000_000)
    );
    for request in [header, body] {
        let response = program.exchange(request.as_bytes())?;
        Response::try_parse(response.as_bytes()).ok_or("fails")?;
    }
    Ok(())
}

fn content_type(program: &mut Program) -> Outcome {
    let response = program.exchange(SCRAPE)?;
    let header = "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
    response.contains(header).then_some(()).ok_or("fails")
}

/// A program that answers or closes the connection within 32 MiB does not keep reading.
fn endless_line(program: &mut Program) -> Outcome {
    let mut stream = program.send(b"GET /").expect("it listens");
    let mebibyte = vec![b'a'; 1 << 20];
    let sent_all = (0..32).all(|_| stream.write_all(&mebibyte).is_ok());
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    match stream.read(&mut [0]) {
        Err(error) if sent_all && error.kind() == ErrorKind::WouldBlock => Err("hangs"),
        _ => {
            drop(stream);
            program.serves_on()
        }
    }
}

fn control_characters(program: &mut Program) -> Outcome {
    let _ = program.exchange(b"GET /\x1b[2J HTTP/1.0\r\n\r\n");
    program.serves_on()?;
    let is_plain = !program.end().contains('\x1b');
    is_plain.then_some(()).ok_or("fails")
}

fn unread_output(program: &mut Program) -> Outcome {
    program.child.stdout.take();
    program.child.stderr.take();
    let _ = program.exchange(b"nonsense\r\n\r\n");
    program.serves_on()
}

fn quote_in_a_label(program: &mut Program) -> Outcome {
    let response = program.exchange(SCRAPE)?;
    let is_escaped = response.contains(r#"="a\"b""#);
    is_escaped.then_some(()).ok_or("fails")
}

fn a_hundred_silent_clients(program: &mut Program) -> Outcome {
    let _silent: Vec<_> = (0..100).map(|_| program.connect()).collect();
    program.serves_on()
}

fn dripping_client(program: &mut Program) -> Outcome {
    let mut stream = program.send(b"GET /").expect("it listens");
    let drip = thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < HANGS_AFTER + Duration::from_secs(1) {
            if stream.write_all(b"x").is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    let outcome = program.serves_on();
    drip.join().unwrap();
    outcome
}
