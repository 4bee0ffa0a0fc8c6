//! The worst that a queue full of clients can do. A test program of its own, so that nothing else
//! takes its time.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use support::{Response, SCRAPE, Served, connect};

const LARGE: &[u8] = b"GET /large HTTP/1.1\r\n\r\n";

/// As many clients as the kernel queues ask as late as they can, each once the one before it has been
/// given up, and then read nothing of 8 MB: both purses are used to the end.
#[test]
fn clients_that_ask_late_and_then_read_nothing() {
    let server = Served::start_with_large(&"# padding\n".repeat(800_000), drop);
    let (all, last_byte) = LARGE.split_at(LARGE.len() - 1);
    let ask_but_for_the_end = |_| {
        let mut stream = connect(server.address);
        stream.write_all(all).unwrap();
        stream
    };
    let mut crowd: Vec<TcpStream> = (0..128).map(ask_but_for_the_end).collect();
    let start = Instant::now();
    let mut scraper = connect(server.address);
    scraper.write_all(SCRAPE).unwrap();

    let attack = thread::spawn(move || {
        for late in [280; 3].into_iter().chain([5; 125]) {
            let mut stream = crowd.remove(0);
            thread::sleep(Duration::from_millis(late));
            let _ = stream.write_all(last_byte);
            // Writing fails as soon as the server has given up.
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let mut response = Vec::new();
    let read = scraper.read_to_end(&mut response);
    let took = start.elapsed();
    attack.join().unwrap();
    read.expect("a clean end");
    assert_eq!(Response::parse(&response).status, "HTTP/1.0 200 OK");
    println!(
        "128 asked late and then read nothing of 8 MB: a scrape took {:.1} s",
        took.as_secs_f64()
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
}
