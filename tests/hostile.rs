//! No client can stop the server.
//!
//! `cargo test --test hostile -- --nocapture` prints how long a scrape takes during each attack.
//! Attacks with large responses are in `large_responses.rs`, and how simpler servers fare is in
//! `ladder.rs`.

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use support::clients::{Crowd, Hostile, reads_all, scrape_within};
use support::{Metricmote, Response, Served, connect, exchange, read_to_end, scrape};

const BODY: &[u8] = b"GET / HTTP/1.1\r\nContent-Length: 9999\r\n\r\n";
const ASK: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// How many clients do what, and how many seconds a scrape among them may take.
#[rustfmt::skip]
const ATTACKS: [(usize, &str, Hostile, f64); 9] = [
    // The probe of a kubelet waits for one second.
    (1, "say nothing", Hostile::SILENT, 1.0),
    (1, "send half a request", Hostile::dripping(b"GET /", b"", 50), 1.0),
    (20, "say nothing", Hostile::SILENT, 3.0),
    (128, "say nothing", Hostile::SILENT, 5.0),
    // None of these waits is as long as a single wait may be.
    (20, "send a byte every 4 ms", Hostile::dripping(b"GET /", b"x", 4), 3.0),
    // Their response is small and sent at once, but the server reads on.
    (128, "send a body byte by byte", Hostile::dripping(BODY, b"x", 4), 5.0),
    (1, "read nothing of 8 MB", Hostile::READS_NOTHING, 3.5),
    (20, "read nothing of 8 MB", Hostile::READS_NOTHING, 6.0),
    // Clients that are served add their allowances, but no more than that.
    (60, "say nothing, among 60 that ask", Hostile::SILENT, 5.0),
];

#[test]
fn a_scrape_during_an_attack_takes_no_longer_than_its_limit() {
    let attacks = ATTACKS.map(|(size, what, client, limit)| {
        thread::spawn(move || {
            let server = Served::large(8_000_000);
            let asking = if what.contains("among 60") { 60 } else { 0 };
            let _asking = Crowd::gather(server.address, asking, Hostile::dripping(ASK, b"", 1));
            let _crowd = Crowd::gather(server.address, size, client);
            for _ in 0..2 {
                scrape_within(limit, &format!("{size} {what}"), server.address);
            }
        })
    });
    for attack in attacks {
        attack.join().unwrap();
    }
}

/// The kernel leaves those that do not fit into the queue to try again after 1, 3 and 7 s. So whether
/// a scrape gets in meanwhile is a matter of luck, which the server cannot change.
#[test]
fn after_more_silent_clients_than_the_queue_holds_it_serves_on() {
    let server = Served::large(0);
    drop(Crowd::gather(server.address, 300, Hostile::SILENT));
    scrape_within(10.0, "after 300 silent", server.address);
}

#[test]
fn half_a_second_after_an_attack_a_late_and_slow_client_is_served() {
    let server = Served::large(8_000_000);
    let silent = Crowd::gather(server.address, 3, Hostile::SILENT);
    scrape(server.address);
    drop(silent);
    // This one is served after all of them.
    scrape(server.address);
    thread::sleep(Duration::from_millis(500));
    let late = Duration::from_millis(500);
    assert!(reads_all(server.address, late, 10_000_000));
}

/// Whatever does not end is answered, and no more than 8 KiB of it are kept in memory.
#[test]
fn clients_that_send_without_end() {
    let endless: [(&[u8], &[u8], &str); 6] = [
        (b"GET /", b"a", "414 URI Too Long"),
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
    ];
    for (start, piece, status) in endless {
        let server = Metricmote::start();
        let mut stream = connect(server.address);
        stream.write_all(start).unwrap();
        let mebibyte = piece.repeat((1 << 20) / piece.len());
        for _ in 0..30 {
            stream.write_all(&mebibyte).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Response::parse(&read_to_end(&mut stream)).status, status);
        scrape(server.address);
        #[cfg(target_os = "linux")]
        assert!(server.status("VmHWM:") < 8_000, "peak memory in kB");
    }
}

#[test]
fn nothing_that_clients_send_reaches_the_terminal_raw() {
    let server = Metricmote::spawn(&["0"], Stdio::piped());
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "\x1b".repeat(100_000));
    let requests: [&[u8]; 8] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"GET /\x1b]0;title\x07 HTTP/1.1\r\n\r\n",
        b"GET /\xc2\x9b2J HTTP/1.1\r\n\r\n",
        b"GET /\x7f\x08\xff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\x1b[2J\r\n\r\n",
        b"G\x1b[2J / HTTP/1.1\r\n\r\n",
        long.as_bytes(),
    ];
    for request in requests {
        let response = Response::parse(&exchange(server.address, request));
        assert!(
            response.status.starts_with('4'),
            "{}",
            request.escape_ascii()
        );
    }
    drop(connect(server.address));
    exchange(server.address, b"GET /last HTTP/1.1\r\n\r\n");
    thread::sleep(Duration::from_millis(10));
    let printed = server.end();
    assert!(printed.contains("GET /last HTTP/1.1\n"));
    assert_eq!(printed.matches(" was refused: 4").count(), requests.len());
    assert!(
        printed.contains(" sent no request: it disconnected\n"),
        "{printed}"
    );
    let is_plain = |c: char| c == '\n' || c == ' ' || c.is_ascii_graphic();
    assert!(printed.chars().all(is_plain), "{printed:?}");
}
