//! Large responses: what slow readers can do to others, and others to slow readers.
//!
//! `cargo test --test large_responses -- --nocapture` prints how long a scrape takes at worst.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use support::clients::{Crowd, Hostile, LARGE, reads_all};
use support::{Response, SCRAPE, Served, connect, scrape};

const MEGABYTE: usize = 1_000_000;

/// As many clients as the kernel queues send the end of their request as late as they can, one after
/// another, and then receive 8 MB in the given way. Behind them in the queue is a scrape.
fn scrape_behind_late_clients(receive: fn(TcpStream)) {
    let server = Served::large(8 * MEGABYTE);
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
fn a_queue_of_late_clients_that_read_nothing_leaves_a_scrape_its_ten_seconds() {
    scrape_behind_late_clients(|mut stream| {
        // Writing fails as soon as the server has given up.
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Such clients keep the kernel busy with each write, which its time-out does not count. Only std is used here,
/// so the system must be told to make the receive buffers small: see `.ci/run`.
#[test]
#[ignore = "needs small receive buffers (net.ipv4.tcp_rmem) in a network namespace"]
fn a_queue_of_late_clients_with_tiny_receive_buffers_leaves_a_scrape_its_ten_seconds() {
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

/// The silent clients leave no idle time, but their allowances for writing are there for the reader.
#[test]
#[cfg_attr(windows, ignore = "a write there is all or nothing")]
fn a_large_response_among_silent_clients_is_whole() {
    let server = Served::large(8 * MEGABYTE);
    let silent = Crowd::gather(server.address, 20, Hostile::SILENT);
    // One that reads nothing uses up the budget for writing, and the scrape waits behind it.
    let reads_nothing = Crowd::gather(server.address, 1, Hostile::READS_NOTHING);
    scrape(server.address);
    drop(reads_nothing);
    assert!(reads_all(server.address, Duration::ZERO, 20_000_000));

    // This reader is slower, so it depends on the idle time after the attack.
    drop(silent);
    scrape(server.address);
    thread::sleep(Duration::from_millis(300));
    assert!(reads_all(server.address, Duration::ZERO, 3_000_000));
}
