//! No client can stop the server: each test is an attack, and honest scrapes through it.
//!
//! `cargo test --test hostile -- --nocapture --test-threads=1` prints what they measure, one attack
//! after another. The worst of them is in `worst_case.rs`, which runs alone.

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use metricmote::Registry;
use support::{
    Metricmote, Response, SCRAPE, Served, connect, exchange, exposition, read_to_end, scrape,
};

/// The `scrape_timeout` of Prometheus, if nobody changes it: one clock for the whole scrape.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// Scrapes through the attack, each as patient as Prometheus is; their bodies.
fn scrape_through(attack: &str, address: SocketAddr, scrapes: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..scrapes {
        let start = Instant::now();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(scrape(address)));
        let body = receiver.recv_timeout(SCRAPE_TIMEOUT);
        bodies.push(body.unwrap_or_else(|error| panic!("{attack}: no scrape: {error}")));
        slowest = slowest.max(start.elapsed());
    }
    println!(
        "{attack}: slowest of {scrapes} scrapes {:.2} s",
        slowest.as_secs_f64()
    );
    bodies
}

/// Clients that all do the same, and do it again as soon as they are dropped.
struct Crowd {
    stop: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<Option<TcpStream>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Returns when all of them have connected, or the kernel's queue is full of them.
    fn gather(address: SocketAddr, size: usize, behave: fn(TcpStream) -> io::Result<()>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let streams: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new((0..size).map(|_| None).collect()));
        let (connected, connections) = mpsc::channel();
        let client = |place: usize| {
            let (stop, streams, connected) =
                (Arc::clone(&stop), Arc::clone(&streams), connected.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let timeout = Duration::from_secs(1);
                    let Ok(stream) = TcpStream::connect_timeout(&address, timeout) else {
                        continue;
                    };
                    streams.lock().unwrap()[place] = stream.try_clone().ok();
                    let _ = connected.send(());
                    let _ = behave(stream);
                }
            })
        };
        let threads = (0..size).map(client).collect();
        for _ in 0..size.min(128) {
            connections.recv().unwrap();
        }
        Self {
            stop,
            streams,
            threads,
        }
    }

    /// Ends the attack: every connection is closed.
    fn disperse(self) {}
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() {
                for stream in self.streams.lock().unwrap().iter().flatten() {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                thread::yield_now();
            }
            thread.join().unwrap();
        }
    }
}

fn say_nothing(mut stream: TcpStream) -> io::Result<()> {
    stream.read(&mut [0]).map(drop)
}

/// Sends the piece again and again, after such a pause, until it is dropped.
fn drip(mut stream: TcpStream, piece: &[u8], pause: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(pause))?;
    loop {
        stream.write_all(piece)?;
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            dropped => return dropped.map(drop),
        }
    }
}

fn hold_up(attack: &str, size: usize, behave: fn(TcpStream) -> io::Result<()>) {
    let server = Metricmote::start();
    let _crowd = Crowd::gather(server.address, size, behave);
    for body in scrape_through(attack, server.address, 3) {
        assert_eq!(exposition::parse(&body).len(), 2);
    }
    #[cfg(target_os = "linux")]
    assert_eq!(server.status("Threads:"), 1);
}

#[test]
fn one_silent_client() {
    hold_up("1 silent client", 1, say_nothing);
}

#[test]
fn twenty_silent_clients() {
    hold_up("20 silent clients", 20, say_nothing);
}

#[test]
fn as_many_silent_clients_as_the_queue_holds() {
    hold_up("128 silent clients", 128, say_nothing);
}

#[test]
fn twenty_clients_that_send_a_byte_a_second() {
    hold_up("20 clients, a byte a second", 20, |stream| {
        drip(stream, b"G", Duration::from_secs(1))
    });
}

#[test]
fn twenty_clients_that_send_a_header_a_second() {
    hold_up("20 clients, a header a second", 20, |mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\n")?;
        drip(stream, b"X: y\r\n", Duration::from_secs(1))
    });
}

/// Never silent for as long as the patience lasts: only the sum of all waiting gives them away.
#[test]
fn twenty_clients_that_send_a_byte_every_few_milliseconds() {
    hold_up("20 clients, a byte every 4 ms", 20, |stream| {
        drip(stream, b"G", Duration::from_millis(4))
    });
}

/// The answer is small and sent at once; it is what they still send that the server waits for.
#[test]
fn as_many_clients_as_the_queue_holds_that_dribble_a_body() {
    hold_up("128 clients that dribble a body", 128, |mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")?;
        loop {
            stream.write_all(b"x")?;
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Clients that are served do not make the server patient with those that are not.
#[test]
fn silent_clients_among_clients_that_ask() {
    let server = Metricmote::start();
    let _asking = Crowd::gather(server.address, 60, |mut stream| {
        stream.write_all(SCRAPE)?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let _silent = Crowd::gather(server.address, 60, say_nothing);
    scrape_through("60 silent among 60 that ask", server.address, 3);
}

/// More clients than the kernel queues. It leaves the rest to knock again after 1, 3 and 7 s, so
/// whether a scraper gets in is a matter of luck meanwhile, and not for the server to decide.
#[test]
fn after_more_silent_clients_than_the_queue_holds_it_serves_on() {
    let server = Metricmote::start();
    Crowd::gather(server.address, 300, say_nothing).disperse();
    scrape_through("after 300 silent clients", server.address, 1);
}

/// More than any socket holds.
fn large_registry(megabytes: usize) -> Registry {
    let mut registry = Registry::new();
    let padding = "x".repeat(8_000);
    for i in 0..megabytes * 125 {
        registry
            .gauge("large", "", &[("i", &i.to_string()), ("padding", &padding)])
            .unwrap();
    }
    registry
}

fn ask_and_read_nothing(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"GET /large HTTP/1.1\r\n\r\n")?;
    // A write fails as soon as the server has given up.
    loop {
        stream.write_all(b"x")?;
        thread::sleep(Duration::from_millis(10));
    }
}

/// Beside them an answer that the kernel takes over at once is always whole.
#[test]
fn clients_that_ask_and_read_nothing() {
    for size in [1, 20, 128] {
        let (sender, reports) = mpsc::channel();
        let server = Served::start_with_large(large_registry(8).render(), move |error| {
            let _ = sender.send(format!("{error:#}"));
        });
        let crowd = Crowd::gather(server.address, size, ask_and_read_nothing);
        let attack = format!("{size} asked for 8 MB and read nothing");
        scrape_through(&attack, server.address, 2);
        let report = reports.recv_timeout(support::GUARD).expect("a report");
        assert!(report.contains("did not take the response"), "{report}");
        crowd.disperse();
    }
}

/// A probe waits no longer than this, as a kubelet's does unless it is told to.
#[test]
fn six_probes_of_a_second_beside_one_silent_client() {
    let server = Metricmote::start();
    let _crowd = Crowd::gather(server.address, 1, say_nothing);
    for _ in 0..6 {
        let mut stream = connect(server.address);
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        stream.write_all(SCRAPE).unwrap();
        let response = Response::parse(&read_to_end(&mut stream));
        assert_eq!(response.status, "HTTP/1.0 200 OK");
        thread::sleep(Duration::from_millis(1500));
    }
}

/// In bytes a second. The kernel takes over some megabytes at once, and then the server must wait.
const SLOW: u32 = 8_000_000;

/// A server of an answer that takes so many milliseconds to read at that rate.
fn serve_for(milliseconds: u32) -> Served {
    const LINE: &str = "# padding\n";
    let length = (SLOW / 1000 * milliseconds) as usize;
    Served::start_with(LINE.repeat(length / LINE.len()), drop)
}

/// Asks, and reads the whole answer at that rate; whether it was whole.
fn scrape_slowly(address: SocketAddr) -> bool {
    let mut stream = connect(address);
    stream.write_all(SCRAPE).unwrap();
    is_whole(&read_at(SLOW, &mut stream))
}

/// Reads to the end, at so many bytes a second.
fn read_at(rate: u32, stream: &mut TcpStream) -> Vec<u8> {
    let mut response = Vec::new();
    let mut chunk = vec![0; 100_000];
    loop {
        let length = stream.read(&mut chunk).unwrap();
        if length == 0 {
            return response;
        }
        response.extend_from_slice(&chunk[..length]);
        thread::sleep(Duration::from_secs(1) * length as u32 / rate);
    }
}

/// Whether the body is as long as the head says.
fn is_whole(response: &[u8]) -> bool {
    assert!(response.starts_with(b"HTTP/1.0 200 OK\r\n"));
    let end = response.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = response.split_at(end.unwrap() + 4);
    let head = std::str::from_utf8(head).unwrap();
    let (_, length) = head.split_once("Content-Length: ").unwrap();
    let (length, _) = length.split_once("\r\n").unwrap();
    body.len() == length.parse::<usize>().unwrap()
}

#[test]
#[cfg_attr(
    windows,
    ignore = "a write there takes everything within its time-out, or fails"
)]
fn slow_readers_alone_and_two_at_once_get_the_whole_answer() {
    assert!(scrape_slowly(serve_for(2500).address));
    let server = serve_for(1300);
    thread::scope(|scope| {
        let scrapers = [(); 2].map(|()| scope.spawn(|| scrape_slowly(server.address)));
        assert_eq!(scrapers.map(|scraper| scraper.join().unwrap()), [true; 2]);
    });
}

/// A client that dribbles a body uses up the purse for reading, and not the one for writing: who is
/// slow to read a large answer behind it gets that whole.
#[test]
#[cfg_attr(
    windows,
    ignore = "a write there takes everything within its time-out, or fails"
)]
fn clients_that_dribble_do_not_cost_another_its_large_answer() {
    let server = serve_for(1700);
    let mut dribbling = connect(server.address);
    dribbling
        .write_all(b"GET / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
        .unwrap();
    read_to_end(&mut dribbling);
    let dribble = thread::spawn(move || {
        while dribbling.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(scrape_slowly(server.address), "cut short");
    dribble.join().unwrap();
}

/// Three clients that read nothing empty the purse, as each may be silent for a third of it. Who is
/// slow then is cut short, until the server has been idle for as long as that one needs.
#[test]
#[cfg_attr(
    windows,
    ignore = "a write there takes everything within its time-out, or fails"
)]
fn the_purse_for_writing_empties_and_is_filled_by_idleness() {
    let server = serve_for(2000);
    let ask = |_| {
        let mut stream = connect(server.address);
        stream.write_all(SCRAPE).unwrap();
        stream
    };
    let silent: Vec<TcpStream> = (0..3).map(ask).collect();
    assert!(!scrape_slowly(server.address), "the purse was not empty");
    drop(silent);
    thread::sleep(Duration::from_millis(2500));
    assert!(scrape_slowly(server.address), "the purse was not filled");
}

/// Silent clients leave no time to be idle, so an answer that must be waited for empties the purse
/// in the end: it is whole until the server has waited for 3 s in all.
#[test]
fn a_large_answer_again_and_again_among_silent_clients() {
    let server = Served::start(large_registry(8), drop);
    let crowd = Crowd::gather(server.address, 20, say_nothing);
    let mut reading = Duration::ZERO;
    let mut answers = 0;
    loop {
        let mut stream = connect(server.address);
        stream.write_all(SCRAPE).unwrap();
        stream.peek(&mut [0]).unwrap();
        let start = Instant::now();
        let whole = is_whole(&read_at(20_000_000, &mut stream));
        reading += start.elapsed();
        if !whole {
            break;
        }
        answers += 1;
        assert!(answers < 100, "never cut");
    }
    println!(
        "8 MB read at 20 MB/s among 20 silent clients: whole {answers} times, {:.1} s",
        reading.as_secs_f64()
    );
    // The server waits for a client only while that one reads.
    assert!(reading > Duration::from_millis(2900), "cut too soon");
    crowd.disperse();
}

/// An attack takes from the purse for reading at most what it holds, and idleness gives it back.
#[test]
fn a_slow_but_honest_client_after_an_attack_is_served() {
    let server = Served::start(large_registry(8), |error| {
        let report = format!("{error:#}");
        assert!(!report.contains("cannot accept"), "{report}");
    });
    for size in [1, 20, 128] {
        let crowd = Crowd::gather(server.address, size, say_nothing);
        // The attack has lasted long enough to use up all patience.
        scrape_through(&format!("{size} silent clients"), server.address, 1);
        crowd.disperse();
        // The queue is empty, and then the server is idle for as long as the attack can have taken.
        scrape(server.address);
        thread::sleep(Duration::from_millis(900));

        let mut stream = connect(server.address);
        thread::sleep(Duration::from_millis(250));
        stream.write_all(SCRAPE).unwrap();
        assert!(is_whole(&read_at(10_000_000, &mut stream)), "after {size}");
    }
}

#[test]
fn clients_that_hang_up_at_every_moment() {
    let mut server = Metricmote::start();
    for i in 0..1_000 {
        let mut stream = connect(server.address);
        match i % 4 {
            // Says nothing.
            0 => {}
            // Has asked, and does not wait.
            1 => stream.write_all(SCRAPE).unwrap(),
            // Leaves half of the response unread, so that its kernel sends a reset.
            2 => {
                stream.write_all(SCRAPE).unwrap();
                stream.read_exact(&mut [0; 20]).unwrap();
            }
            // Hangs up in the middle of its request.
            _ => stream.write_all(&SCRAPE[..50]).unwrap(),
        }
    }
    scrape_through("1,000 clients that hung up", server.address, 1);
    assert!(server.child.try_wait().unwrap().is_none());
}

/// Endless requests: an answer or a close, and never more than 8 KiB of them in memory.
#[test]
#[cfg_attr(windows, ignore = "an emulation is too slow for 100 MiB")]
fn clients_that_send_without_end() {
    for (start, piece, expected) in [
        (&b"GET /"[..], &b"a"[..], "414 URI Too Long"),
        (
            b"GET / HTTP/1.1\r\n",
            b"X: y\r\n",
            "431 Request Header Fields Too Large",
        ),
        (
            b"GET / HTTP/1.1\r\nX: ",
            b"y",
            "431 Request Header Fields Too Large",
        ),
        (b"POST / HTTP/1.1\r\n\r\n", b"\0", "405 Method Not Allowed"),
        (b"", b"\xff", "400 Bad Request"),
        (
            b"GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
            b"x",
            "200 OK",
        ),
    ] {
        // A server of its own, with full purses: 100 MiB are read within their time.
        let server = Metricmote::start();
        let mut stream = connect(server.address);
        let mebibyte = piece.repeat((1 << 20) / piece.len());
        stream.write_all(start).unwrap();
        for _ in 0..100 {
            stream.write_all(&mebibyte).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let status = Response::parse(&read_to_end(&mut stream)).status;
        assert_eq!(status, format!("HTTP/1.0 {expected}"));
        scrape_through("a request of 100 MiB", server.address, 1);
        #[cfg(target_os = "linux")]
        {
            let peak = server.status("VmHWM:");
            println!("peak memory after a request of 100 MiB: {peak} kB");
            assert!(peak < 8_000);
        }
    }
}

#[test]
fn nothing_that_clients_send_reaches_the_terminal_raw() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metricmote"));
    command.arg("0").stderr(Stdio::piped());
    let server = Metricmote::spawn(command);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "\x1b".repeat(100_000));
    for request in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"GET /\x1b]0;title\x07 HTTP/1.1\r\n\r\n",
        b"GET /\x1b[2J HTTP/1.1\r\n\r\n",
        b"GET /\xc2\x9b2J HTTP/1.1\r\n\r\n",
        b"GET /\x7f\x08 HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\x1b[2J\r\n\r\n",
        b"\x1b[2J / HTTP/1.1\r\n\r\n",
        long.as_bytes(),
    ] {
        let response = Response::parse(&exchange(server.address, request));
        assert!(
            response.status.starts_with("HTTP/1.0 4"),
            "{}",
            request.escape_ascii()
        );
        assert_eq!(response.body.lines().count(), 1);
    }
    drop(connect(server.address));
    exchange(server.address, b"GET /last HTTP/1.1\r\n\r\n");
    let printed = server.end();
    assert!(printed.contains("GET /last HTTP/1.1\n"));
    assert_eq!(printed.matches("was refused").count(), 10);
    assert!(
        printed.contains("sent no request: it hung up\n"),
        "{printed}"
    );
    let plain = |c: char| c == '\n' || c == ' ' || c.is_ascii_graphic();
    assert!(printed.chars().all(plain), "{printed:?}");
}
