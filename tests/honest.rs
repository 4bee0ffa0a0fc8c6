//! Honest clients get their response although they are slow, late or many.
//!
//! Each of these clients is really slow: it sleeps where a network, a tunnel or a busy machine would
//! make it wait. Clients that only are many are too fast to find the limits.

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use metricmote::MetricsServer;
use support::clients::reads_all;
use support::{Metricmote, Response, SCRAPE, Served, connect, read_to_end, scrape};

/// Scrapes, but sleeps after the first `sent` bytes of the request.
fn scrape_late(address: std::net::SocketAddr, sent: usize, delay: Duration) {
    let mut stream = connect(address);
    stream.write_all(&SCRAPE[..sent]).unwrap();
    thread::sleep(delay);
    stream.write_all(&SCRAPE[sent..]).unwrap();
    let response = Response::parse(&read_to_end(&mut stream));
    assert_eq!(response.status, "200 OK");
}

/// Because the server is never idle here, only the clients' allowances keep the budget full.
#[test]
fn fifty_scrapers_in_a_closed_loop_lose_nothing_although_ten_are_late() {
    let server = Metricmote::start();
    let scrapes = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..50 {
            let (address, scrapes) = (server.address, &scrapes);
            scope.spawn(move || {
                while scrapes.fetch_add(1, Ordering::Relaxed) < 5_000 {
                    if number % 5 == 0 {
                        scrape_late(address, 0, Duration::from_millis(20));
                    } else {
                        scrape(address);
                    }
                }
            });
        }
    });
}

/// A tunnel connects before it has a request, and a lost packet is sent again after some 0.45 s.
#[test]
fn a_lone_client_that_is_late_by_half_a_second_is_served() {
    let half_a_second = Duration::from_millis(500);
    let (connects, sends_half) = (Served::large(0), Served::large(0));
    thread::scope(|scope| {
        scope.spawn(|| scrape_late(connects.address, 0, half_a_second));
        scope.spawn(|| scrape_late(sends_half.address, 20, half_a_second));
    });
}

/// The server waits for such clients for four fifths of the time, and is idle for one fifth.
#[test]
fn clients_that_are_late_again_and_again_are_served() {
    let server = Served::large(0);
    // Two silent clients have used up the budget.
    let silent = [(); 2].map(|()| connect(server.address));
    for mut client in silent {
        read_to_end(&mut client);
    }
    for _ in 0..6 {
        thread::sleep(Duration::from_millis(20));
        scrape_late(server.address, 0, Duration::from_millis(80));
    }
}

/// On a network this is slow as well; see `network.sh`.
#[test]
#[cfg_attr(windows, ignore = "a write there is all or nothing")]
fn slow_readers_get_the_whole_response_alone_or_two_at_once() {
    let alone = thread::spawn(|| {
        let server = Served::large(20 * 1_000_000);
        reads_all(server.address, Duration::ZERO, 8_000_000)
    });
    let server = Served::large(10 * 1_000_000);
    let two = [(); 2].map(|()| {
        let address = server.address;
        thread::spawn(move || reads_all(address, Duration::ZERO, 8_000_000))
    });
    assert!(alone.join().unwrap());
    assert_eq!(two.map(|reader| reader.join().unwrap()), [true; 2]);
}

/// The limits that the documentation states, measured on a server that accepts when the test says so.
#[test]
fn the_server_waits_as_long_as_the_documentation_says() {
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let mut wait = |idle: Duration| {
        let client = thread::spawn(move || {
            thread::sleep(idle);
            (connect(address), Instant::now())
        });
        if idle.is_zero() {
            while !client.is_finished() {
                thread::yield_now();
            }
        }
        let silent = server.accept().map(drop).expect_err("no request");
        assert!(silent.to_string().contains("sent no request"), "{silent}");
        let (_stream, connected) = client.join().unwrap();
        connected.elapsed().as_secs_f64()
    };
    // The full budget is 1.2 s, to which idle time adds nothing. A single wait takes half of it.
    for idle in [150, 0] {
        let waited = wait(Duration::from_millis(idle));
        assert!((0.58..0.7).contains(&waited), "{waited}");
    }
    // Then each client has its allowance of 14 ms, which includes the kernel's lateness.
    let waits = [(); 20].map(|()| wait(Duration::ZERO));
    let shortest = waits.into_iter().fold(f64::MAX, f64::min);
    assert!((0.002..0.0145).contains(&shortest), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait < 0.1), "{waits:?}");
    // Idle time counts tenfold.
    let waited = wait(Duration::from_millis(20));
    assert!((0.2..0.35).contains(&waited), "{waited}");
}
