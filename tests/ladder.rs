//! The ladder: the same attacks on three programs, which are `tests/examples/naive.rs`,
//! `tests/examples/sturdy.rs` and metricmote itself. `cargo test ladder -- --nocapture` prints the
//! table that the README shows.

mod support;

use std::io::{self, Read, Write};
use std::iter::zip;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use support::{GUARD, Response, SCRAPE, timed_out};

/// A program that does not answer a scrape within this time hangs. What metricmote needs at most is
/// measured in `hostile.rs`.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// What becomes of the program, if it does not survive.
type Outcome = Result<(), &'static str>;
type Attack = fn(&mut Program) -> Outcome;

/// In the order of the README's table. `sturdy.rs` refers to them by their numbers.
#[rustfmt::skip]
const FAULTS: [(&str, Attack); 10] = [
    ("One client is silent", one_silent_client),
    ("Clients hang up at any moment", hang_ups),
    ("A request has 20 kB of headers or a body", long_requests),
    ("Prometheus 3 requires a `Content-Type`", content_type),
    ("A request line does not end", endless_line),
    ("Control characters are printed", control_characters),
    ("Its stdout is closed", unread_output),
    ("A label value contains a quote", quote_in_a_label),
    ("A hundred clients are silent", a_hundred_silent_clients),
    ("One client sends a byte every half second", one_byte_every_half_second),
];

#[test]
fn ladder() {
    // All at once, because most attacks only wait.
    let outcomes: Vec<&str> = thread::scope(|scope| {
        let attacks = zip(FAULTS, free_addresses()).map(|((fault, attack), addresses)| {
            zip(["naive", "sturdy", "metricmote"], addresses)
                .map(move |(name, address)| (attack, Program::start(name, address, fault)))
        });
        // A program that starts during an attack would share the pipes of the others for a moment.
        let attacks: Vec<(Attack, Program)> = attacks.flatten().collect();
        let attack = |(attack, mut program): (Attack, Program)| {
            scope.spawn(move || attack(&mut program).err().unwrap_or("survives"))
        };
        let attacks: Vec<_> = attacks.into_iter().map(attack).collect();
        let outcomes = attacks.into_iter().map(|attack| attack.join().unwrap());
        outcomes.collect()
    });
    let mut table = Vec::new();
    for (i, outcomes) in outcomes.chunks(3).enumerate() {
        let fault = FAULTS[i].0;
        assert_ne!(outcomes[0], "survives", "naive: {fault}");
        assert_eq!(outcomes[2], "survives", "metricmote: {fault}");
        let outcomes = outcomes.join(" | ");
        table.push(format!("| {}. {fault} | {outcomes} |", i + 1));
    }
    println!("\n{}", table.join("\n"));
    let readme = include_str!("../README.md").lines();
    let shown = readme.skip_while(|line| !line.starts_with("| 1. "));
    // The README's last column says what fixes the fault.
    let shown = zip(shown, &table).map(|(line, row)| &line[..row.len()]);
    assert_eq!(shown.collect::<Vec<_>>(), table);
}

/// Returns addresses that are free now. On Linux no other test uses this host, so that nothing else
/// takes the ports before the programs do.
fn free_addresses() -> [[SocketAddr; 3]; FAULTS.len()] {
    let host = if cfg!(target_os = "linux") {
        "127.0.43.3"
    } else {
        "127.0.0.1"
    };
    let listen = || TcpListener::bind((host, 0)).unwrap();
    let listeners = [(); FAULTS.len()].map(|()| [listen(), listen(), listen()]);
    listeners.map(|three| three.map(|listener| listener.local_addr().unwrap()))
}

/// One of the three as a child process. It ends with the attack.
struct Program {
    child: Child,
    address: SocketAddr,
    has_served: bool,
}

impl Program {
    fn start(name: &str, address: SocketAddr, fault: &str) -> Self {
        let address_of = address.to_string();
        let (program, arguments) = match (name, fault.contains("label")) {
            ("metricmote", true) => (example("many_series"), vec![&*address_of, "1", "a\"b"]),
            ("metricmote", false) => (env!("CARGO_BIN_EXE_metricmote").into(), vec![&*address_of]),
            _ => (example(name), vec![&*address_of, "a\"b"]),
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        Self {
            child,
            address,
            has_served: false,
        }
    }

    /// Connects, and the first time waits until the program listens.
    fn connect(&mut self) -> io::Result<TcpStream> {
        let start = Instant::now();
        let mut stream = TcpStream::connect(self.address);
        while stream.is_err() && !self.has_served && start.elapsed() < GUARD {
            thread::sleep(Duration::from_millis(5));
            stream = TcpStream::connect(self.address);
        }
        self.has_served = true;
        let stream = stream?;
        stream.set_read_timeout(Some(HANGS_AFTER))?;
        stream.set_write_timeout(Some(HANGS_AFTER))?;
        Ok(stream)
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
            Err(error) if timed_out(&error) => Err("hangs"),
            Err(_) if self.exits() => Err("exits"),
            Err(_) => Err("fails"),
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
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn example(name: &str) -> std::path::PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_metricmote"));
    let name = format!("examples/{name}{}", std::env::consts::EXE_SUFFIX);
    let program = program.with_file_name(name);
    assert!(
        program.exists(),
        "no {program:?}: run `cargo build --examples` first"
    );
    program
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
    // The kernel sends a reset, because the response is there and is not read.
    if let Ok(stream) = program.send(SCRAPE) {
        let _ = stream.peek(&mut [0]);
    }
    program.serves_on()
}

fn long_requests(program: &mut Program) -> Outcome {
    for header in [
        format!("X: {}", "x".repeat(20_000)),
        "Content-Length: 1000000".to_owned(),
    ] {
        let mut request = format!("GET / HTTP/1.1\r\n{header}\r\n\r\n");
        if header.starts_with("Content-Length") {
            request += &"x".repeat(1_000_000);
        }
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

/// A program that answers or closes the connection within 32 MiB does not read without end.
fn endless_line(program: &mut Program) -> Outcome {
    let mut stream = program.send(b"GET /").expect("it listens");
    let mebibyte = vec![b'a'; 1 << 20];
    let sent_all = (0..32).all(|_| stream.write_all(&mebibyte).is_ok());
    let hangs = stream.read(&mut [0]).is_err_and(|error| timed_out(&error));
    if sent_all && hangs {
        return Err("hangs");
    }
    drop(stream);
    program.serves_on()
}

fn control_characters(program: &mut Program) -> Outcome {
    let _ = program.exchange(b"GET /\x1b[2J HTTP/1.0\r\n\r\n");
    program.serves_on()?;
    program.child.kill().unwrap();
    let mut printed = String::new();
    let mut stdout = program.child.stdout.take().unwrap();
    stdout.read_to_string(&mut printed).unwrap();
    let is_plain = printed.contains("GET /metrics") && !printed.contains('\x1b');
    is_plain.then_some(()).ok_or("fails")
}

fn unread_output(program: &mut Program) -> Outcome {
    drop((program.child.stdout.take(), program.child.stderr.take()));
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

fn one_byte_every_half_second(program: &mut Program) -> Outcome {
    let mut stream = program.send(b"GET /").expect("it listens");
    let (stop, stopped) = mpsc::channel::<()>();
    let drip = thread::spawn(move || {
        let pause = Duration::from_millis(500);
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let _ = stream.write_all(b"x");
        }
    });
    let outcome = program.serves_on();
    drop(stop);
    drip.join().unwrap();
    outcome
}
