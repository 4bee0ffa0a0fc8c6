//! No client can stop the server: each test is an attack with honest scrapes meanwhile.
//!
//! `cargo test --test hostile -- --nocapture --test-threads=1` prints what they measure. The worst that
//! a full queue can do with large responses is in `worst_case.rs`, and how simpler servers fare is in
//! `ladder.rs`.

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use support::clients::{Crowd, Hostile, scrape_within};
use support::{Metricmote, Response, Served, connect, exchange, read_to_end, scrape};

/// Scrapes while so many clients attack.
fn attack(size: usize, what: &str, client: Hostile, limit: f64) {
    let server = Served::large(8_000_000);
    let _crowd = Crowd::gather(server.address, size, client);
    scrape_within(limit, &format!("{size} {what}"), server.address);
}

/// The probe of a kubelet waits for one second.
#[test]
fn three_probes_beside_one_silent_client() {
    let server = Served::large(0);
    let _silent = Crowd::gather(server.address, 1, Hostile::SILENT);
    for _ in 0..3 {
        scrape_within(1.0, "1 silent", server.address);
    }
}

#[test]
fn twenty_silent_clients() {
    attack(20, "silent", Hostile::SILENT, 3.0);
}

#[test]
fn as_many_silent_clients_as_the_queue_holds() {
    attack(128, "silent", Hostile::SILENT, 5.0);
}

/// They are never silent for as long as a single wait may last.
#[test]
fn twenty_clients_that_send_a_byte_every_few_milliseconds() {
    let client = Hostile::dripping(b"GET /", b"x", 4);
    attack(20, "that send a byte every 4 ms", client, 3.0);
}

/// Their response is small and sent at once, but the server waits for the rest of their request.
#[test]
fn as_many_clients_as_the_queue_holds_that_dribble_a_body() {
    let client = Hostile::dripping(b"GET / HTTP/1.1\r\nContent-Length: 9999\r\n\r\n", b"x", 1);
    attack(128, "that dribble a body", client, 5.0);
}

#[test]
fn one_client_that_asks_for_8_mb_and_reads_nothing() {
    attack(1, "that reads nothing of 8 MB", Hostile::READS_NOTHING, 4.0);
}

#[test]
fn twenty_clients_that_ask_for_8_mb_and_read_nothing() {
    attack(20, "that read nothing of 8 MB", Hostile::READS_NOTHING, 7.0);
}

/// Clients that are served bring allowances, but no more than that.
#[test]
fn sixty_silent_clients_among_sixty_that_ask() {
    let server = Served::large(0);
    let ask = Hostile::dripping(b"GET / HTTP/1.1\r\n\r\n", b"", 1);
    let _asking = Crowd::gather(server.address, 60, ask);
    let _silent = Crowd::gather(server.address, 60, Hostile::SILENT);
    scrape_within(5.0, "60 silent among 60 that ask", server.address);
}

/// The kernel leaves those that do not fit into the queue to try again after 1, 3 and 7 s. So whether
/// a scrape gets in meanwhile is a matter of luck, which the server cannot change.
#[test]
fn after_more_silent_clients_than_the_queue_holds_it_serves_on() {
    let server = Served::large(0);
    drop(Crowd::gather(server.address, 300, Hostile::SILENT));
    scrape_within(10.0, "after 300 silent", server.address);
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
