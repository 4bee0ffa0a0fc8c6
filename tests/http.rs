//! The server's HTTP, byte by byte.

mod support;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use metricmote::{MetricsServer, Registry};
use support::{Response, SCRAPE, Served, connect, exchange, read_to_end};

const METRICS: &str = "# HELP a A.\n# TYPE a gauge\na 7\n";
const MALFORMED: &str = "Ask in HTTP/1: GET /metrics HTTP/1.1\n";

fn serve() -> Served {
    let mut registry = Registry::new();
    registry.gauge("a", "A.", &[]).unwrap().set(7.0);
    Served::start(move |scrape| scrape.answer(&registry.render()))
}

/// Gives the other side the time to act on what it has been sent.
fn pause() {
    thread::sleep(Duration::from_millis(2));
}

#[test]
fn a_scrape_gets_the_metrics_under_three_headers() {
    assert_eq!(
        String::from_utf8(exchange(serve().address, SCRAPE)).unwrap(),
        "HTTP/1.0 200 OK\r\n\
         Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: 31\r\n\
         Connection: close\r\n\
         \r\n\
         # HELP a A.\n\
         # TYPE a gauge\n\
         a 7\n"
    );
}

/// Requests that are answered or refused as soon as their last byte is there.
#[test]
fn a_get_of_any_path_is_answered_and_everything_else_is_refused() {
    let server = serve();
    let answered: &[&[u8]] = &[
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /a/b?c=%20#d HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nX: \xff\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\nHost: x\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\n",
        b"\r\nGET / HTTP/1.1\r\n\r\n",
        b"\nGET / HTTP/1.1\r\n\r\n",
    ];
    let malformed: &[&[u8]] = &[
        b"QUIT\r\n",
        b"GET\r\n",
        b"GET /metrics\r\n",
        b"GET / \r\n",
        b"GET  HTTP/1.1\r\n",
        b"GET / / HTTP/1.1\r\n",
        b"GET\t/\tHTTP/1.1\r\n",
        b"GET / HTTP/1.\r\n",
        b"GET / HTTP/1.x\r\n",
        b"GET / HTTP/1.2\r\n",
        b"GET / HTTP/1.10\r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET / http/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"G@T / HTTP/1.1\r\n",
        b"\r\n / HTTP/1.1\r\n",
        b"\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\n",
        b"GET /\x7f HTTP/1.1\r\n",
        b"GET /\xff HTTP/1.1\r\n",
        b"GET /\xc3\xb6 HTTP/1.1\r\n",
        b"GET /\r HTTP/1.1\r\n",
        // These cannot begin a request, so there is no line to wait for.
        b" GET /",
        b"\0\0\0\0",
        b"\xff",
        // A TLS handshake, as of a scraper that is configured with `https`.
        b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03",
    ];
    let other_methods: &[&[u8]] = &[
        b"POST / HTTP/1.1\r\n\r\n",
        b"OPTIONS / HTTP/1.0\r\n\r\n",
        b"M-SEARCH * HTTP/1.1\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
        b"GETS / HTTP/1.1\r\n\r\n",
    ];
    for (requests, status, body) in [
        (answered, "200 OK", METRICS),
        (malformed, "400 Bad Request", MALFORMED),
        (
            other_methods,
            "405 Method Not Allowed",
            "Ask with GET or HEAD.\n",
        ),
    ] {
        for request in requests {
            let response = Response::parse(&exchange(server.address, request));
            let shown = request.escape_ascii();
            assert_eq!(response.status, status, "{shown}");
            assert_eq!(response.body, body, "{shown}");
            if status != "200 OK" {
                let content_type = response.header("Content-Type");
                assert_eq!(content_type, Some("text/plain; charset=utf-8"), "{shown}");
                assert_eq!(response.header("Allow"), Some("GET, HEAD"), "{shown}");
            }
        }
    }
}

#[test]
fn an_unfinished_request_gets_408_when_its_time_ends() {
    let unfinished = [
        "G",
        "GET / HTTP/1.0",
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.1\r\nX: y\r\n",
        "\r\n",
    ];
    // Each at a server of its own, with a full budget.
    let clients = unfinished.map(|request| {
        thread::spawn(move || Response::parse(&exchange(serve().address, request.as_bytes())))
    });
    for client in clients {
        let response = client.join().unwrap();
        assert_eq!(response.status, "408 Request Timeout");
        assert_eq!(response.body, "Send it all, to the blank line.\n");
    }
}

/// A browser connects before it has a request, and takes whatever comes for the response to it.
#[test]
fn a_client_that_says_nothing_is_told_nothing() {
    assert_eq!(exchange(serve().address, b""), b"");
}

#[test]
fn a_request_of_more_than_8_kib_gets_414_or_431() {
    let server = serve();
    let with_path = |length| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length));
    let with_header = |length| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(length));
    let room = 8 * 1024 - with_path(0).len();
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100_000));
    for (request, status) in [
        (with_path(room), "200 OK"),
        (with_path(100_000), "414 URI Too Long"),
        (with_header(7_000), "200 OK"),
        (with_header(100_000), "431 Request Header Fields Too Large"),
        (many_headers, "431 Request Header Fields Too Large"),
    ] {
        let response = Response::parse(&exchange(server.address, request.as_bytes()));
        assert_eq!(response.status, status);
    }
}

#[test]
fn a_response_to_head_has_the_same_head_and_no_body() {
    let get = String::from_utf8(exchange(serve().address, b"GET / HTTP/1.1\r\n\r\n")).unwrap();
    let (head_of_get, _) = get.split_at(get.len() - METRICS.len());
    let long = format!("HEAD / HTTP/1.1\r\nX: {}", "a".repeat(10_000));
    for (request, start) in [
        ("HEAD / HTTP/1.1\r\n\r\n", head_of_get),
        ("\r\nHEAD / HTTP/1.1\r\n\r\n", head_of_get),
        ("HEAD / HTTP/2.0\r\n", "HTTP/1.0 400 Bad Request\r\n"),
        ("HEAD / HTTP/1.1\r\n", "HTTP/1.0 408 Request Timeout\r\n"),
        (&long, "HTTP/1.0 431 Request Header Fields Too Large\r\n"),
    ] {
        let response = exchange(serve().address, request.as_bytes());
        let response = String::from_utf8(response).unwrap();
        assert!(response.starts_with(start), "{request:?}: {response:?}");
        assert!(response.ends_with("\r\n\r\n"), "{request:?}: {response:?}");
        assert_eq!(response.matches("\r\n\r\n").count(), 1, "{response:?}");
    }
}

/// The cut may fall anywhere, even inside the blank line.
#[test]
fn a_request_in_two_pieces_is_read_to_its_blank_line() {
    let server = serve();
    let request = b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for cut in 1..request.len() {
        let mut stream = connect(server.address);
        stream.set_nodelay(true).unwrap();
        stream.write_all(&request[..cut]).unwrap();
        pause();
        stream.set_nonblocking(true).unwrap();
        let early = stream.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(early, Err(ErrorKind::WouldBlock), "cut after {cut} bytes");
        stream.set_nonblocking(false).unwrap();
        stream.write_all(&request[cut..]).unwrap();
        let response = Response::parse(&read_to_end(&mut stream));
        assert_eq!(response.body, METRICS, "cut after {cut} bytes");
    }
}

#[test]
fn a_client_that_closes_its_half_ends_its_request() {
    let server = serve();
    for request in [
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.0",
        "GET / HTTP/1.1\r\nHost: x",
    ] {
        let mut stream = connect(server.address);
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let response = Response::parse(&read_to_end(&mut stream));
        assert_eq!(response.body, METRICS, "{request:?}");
    }
}

/// A connection that is closed with bytes unread ends in a reset, for which `exchange` panics.
#[test]
fn ten_requests_in_one_get_one_response_and_a_clean_end() {
    let server = serve();
    // With the last padding, each request has the 8 KiB that the server reads at most.
    for padding in [0, 2_000, 8_169] {
        let request = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(padding));
        let response = exchange(server.address, request.repeat(10).as_bytes());
        assert_eq!(Response::parse(&response).body, METRICS);
    }
}

#[test]
fn a_body_does_not_cost_the_client_its_response() {
    let server = serve();
    let body = vec![b'x'; 10_000_000];
    for (head, status) in [
        (
            "GET / HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n",
            "200 OK",
        ),
        (
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "200 OK",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n",
            "405 Method Not Allowed",
        ),
    ] {
        let mut stream = connect(server.address);
        stream.write_all(head.as_bytes()).unwrap();
        // This would fail if the server had closed the connection.
        stream.write_all(&body).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Response::parse(&read_to_end(&mut stream)).status, status);
    }
}

/// Whether the server still reads. If it has closed the connection, writing to it soon fails.
fn reads_on(stream: &mut TcpStream) -> bool {
    (0..20).all(|_| {
        pause();
        stream.write_all(b"x").is_ok()
    })
}

/// The client learns at once that the response is complete, because the server half-closes the
/// connection. It goes on reading only if there may be something to read.
#[test]
fn after_the_response_the_server_reads_on_only_if_more_may_come() {
    let server = serve();
    for (request, more) in [
        ("POST / HTTP/1.1\r\n\r\n", true),
        ("GET / HTTP/1.1\r\n\r\nx", true),
        ("GET / HTTP/1.1\r\nContent-Length: 20\r\n\r\n", true),
        ("GET / HTTP/1.1\r\ncontent-length:20\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nContent-Length: 20\r\nX: y\r\n\r\n", true),
        ("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", false),
        ("GET / HTTP/1.1\r\ncontent-length:0\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nCONTENT-LENGTH: \t0 \r\n\r\n", false),
        ("GET / HTTP/1.1\r\nX-Content-Length: 5\r\n\r\n", false),
    ] {
        let mut stream = connect(server.address);
        stream.write_all(request.as_bytes()).unwrap();
        Response::parse(&read_to_end(&mut stream));
        assert_eq!(reads_on(&mut stream), more, "{request:?}");
    }
}

/// The program owns the loop, so it can tell each client something else.
#[test]
fn a_program_may_answer_fail_or_drop_each_scrape() {
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    assert_eq!(format!("{server:?}").lines().count(), 1);
    let client = thread::spawn(move || [(); 3].map(|()| exchange(address, SCRAPE)));

    let mut registry = Registry::new();
    let scrape = server.accept().unwrap();
    assert_eq!(scrape.request_line(), "GET /metrics HTTP/1.1");
    registry.gauge("late", "", &[]).unwrap();
    scrape.answer(&registry.render()).unwrap();
    server
        .accept()
        .unwrap()
        .fail("cannot read the sensor")
        .unwrap();
    drop(server.accept().unwrap());

    let [answered, failed, dropped] = client.join().unwrap();
    assert!(Response::parse(&answered).body.contains("\nlate 0\n"));
    let failed = Response::parse(&failed);
    assert_eq!(failed.status, "500 Internal Server Error");
    assert_eq!(
        failed.header("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(failed.body, "cannot read the sensor\n");
    assert_eq!(dropped, b"");
}

#[test]
fn an_error_says_what_is_wrong_with_which_client() {
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    for (request, leaves, error) in [
        (&b""[..], true, "PEER sent no request: it disconnected"),
        (b"", false, "PEER sent no request: timed out"),
        (b"GET /", false, "PEER was refused: 408 Request Timeout"),
        (
            b"nonsense\r\n\r\n",
            true,
            "PEER was refused: 400 Bad Request",
        ),
    ] {
        let mut stream = connect(address);
        let peer = stream.local_addr().unwrap().to_string();
        stream.write_all(request).unwrap();
        let kept = (!leaves).then_some(stream);
        let report = server.accept().map(drop).expect_err("no scrape");
        drop(kept);
        assert_eq!(format!("{report:#}").replace(&peer, "PEER"), error);
    }
    // A response that no socket holds.
    let large = "# padding\n".repeat(2_000_000);
    let mut stream = connect(address);
    stream.write_all(SCRAPE).unwrap();
    let peer = stream.local_addr().unwrap();
    let scrape = server.accept().unwrap();
    drop(stream);
    let report = scrape.answer(&large).unwrap_err().to_string();
    assert_eq!(report, format!("{peer} did not take the response"));
}
