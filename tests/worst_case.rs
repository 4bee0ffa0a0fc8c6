//! The worst that a queue full of clients can do. This test program is separate from `hostile.rs`, so
//! that no other attack takes part of its time.
//!
//! `cargo test --test worst_case -- --nocapture` prints how long a scrape takes.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use support::clients::{Crowd, Hostile, LARGE, scrape_within};
use support::{Response, SCRAPE, Served, connect};

/// As many clients as the kernel queues send the end of their request as late as they can, one after
/// another, and then receive 8 MB in the given way. Behind them in the queue is a scrape.
fn scrape_behind_late_clients(receive: fn(TcpStream)) {
    let server = Served::large(8_000_000);
    let (all, last_byte) = LARGE.split_at(LARGE.len() - 1);
    let crowd = [(); 128].map(|()| {
        let mut stream = connect(server.address);
        stream.write_all(all).unwrap();
        stream
    });
    let start = Instant::now();
    let mut scraper = connect(server.address);
    scraper.write_all(SCRAPE).unwrap();
    let attack = thread::spawn(move || {
        let latest = [580, 580].into_iter().chain([5; 126]);
        for (mut stream, late) in crowd.into_iter().zip(latest) {
            thread::sleep(Duration::from_millis(late));
            if stream.write_all(last_byte).is_ok() {
                receive(stream);
            }
        }
    });
    let mut response = Vec::new();
    scraper.read_to_end(&mut response).expect("a clean end");
    let seconds = start.elapsed().as_secs_f64();
    attack.join().unwrap();
    assert_eq!(Response::parse(&response).status, "200 OK");
    println!("behind 128 late clients a scrape took {seconds:.1} s");
    assert!(seconds < 9.9, "{seconds}");
}

#[test]
fn clients_that_ask_at_once_and_read_nothing_of_8_mb() {
    let server = Served::large(8_000_000);
    let _crowd = Crowd::gather(server.address, 128, Hostile::READS_NOTHING);
    scrape_within(9.9, "128 that read nothing", server.address);
}

#[test]
fn late_clients_that_read_nothing_of_8_mb() {
    scrape_behind_late_clients(|mut stream| {
        // Writing fails as soon as the server has given up.
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Many small reads wake up a write so often that its time-out does not end it. Only std is used here,
/// so the system must be told to make the receive buffers small: see `.ci/run`.
#[test]
#[ignore = "needs small receive buffers (net.ipv4.tcp_rmem) in a network namespace"]
fn late_clients_with_tiny_receive_buffers_that_read_all_of_8_mb() {
    let buffers = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").unwrap();
    let largest = buffers.split_whitespace().last().unwrap();
    assert!(
        largest.parse::<u32>().unwrap() <= 4096,
        "tcp_rmem is {buffers}"
    );
    scrape_behind_late_clients(|mut stream| {
        let mut buffer = [0; 1 << 16];
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    });
}
