//! The HTTP of the server, byte by byte.

mod support;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use metricmote::{MetricsServer, Registry};
use support::{
    Response, SCRAPE, Served, connect, exchange, exchange_and_half_close, exposition, read_to_end,
    scrape,
};

const METRICS: &str = "# HELP a A.\n# TYPE a gauge\na 7\n";

fn serve() -> Served {
    let mut registry = Registry::new();
    registry.gauge("a", "A.", &[]).unwrap().set(7.0);
    Served::start(registry, drop)
}

#[test]
fn a_scrape_gets_the_metrics_under_three_headers() {
    let server = serve();
    assert_eq!(
        String::from_utf8(exchange(server.address, SCRAPE)).unwrap(),
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

#[test]
fn any_path_and_either_line_end_will_do() {
    let server = serve();
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET /a/b?c=%20#d HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET * HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\nHost: x\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\n",
    ] {
        let response = Response::parse(&exchange(server.address, request.as_bytes()));
        assert_eq!(response.status, "HTTP/1.0 200 OK", "{request:?}");
        assert_eq!(response.body, METRICS, "{request:?}");
    }
}

#[test]
fn head_gets_the_same_head_and_no_body() {
    let server = serve();
    let get = exchange(server.address, b"GET / HTTP/1.1\r\n\r\n");
    for request in ["HEAD / HTTP/1.1\r\n\r\n", "\r\nHEAD / HTTP/1.1\r\n\r\n"] {
        let head = exchange(server.address, request.as_bytes());
        assert_eq!(head, get[..get.len() - METRICS.len()], "{request:?}");
    }
}

#[test]
fn a_refusal_of_a_head_request_has_no_body() {
    let long = format!("HEAD / HTTP/1.1\r\nX: {}", "a".repeat(10_000));
    let long_line = format!("HEAD /{}", "a".repeat(10_000));
    for (request, status) in [
        ("HEAD / HTTP/2.0\r\n", "HTTP/1.0 400 Bad Request"),
        ("HEAD / HTTP/1.1\r\n", "HTTP/1.0 408 Request Timeout"),
        ("HEAD / HT", "HTTP/1.0 408 Request Timeout"),
        (&long_line, "HTTP/1.0 414 URI Too Long"),
        (&long, "HTTP/1.0 431 Request Header Fields Too Large"),
    ] {
        let response = exchange(serve().address, request.as_bytes());
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("{status}\r\n")), "{head:?}");
        assert_eq!(body, "", "{request:?}");
    }
}

#[test]
fn another_method_gets_405_and_is_told_which_are_allowed() {
    let server = serve();
    for method in ["POST", "PUT", "OPTIONS", "M-SEARCH", "get", "GETS"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let response = Response::parse(&exchange(server.address, request.as_bytes()));
        assert_eq!(
            response.status, "HTTP/1.0 405 Method Not Allowed",
            "{method}"
        );
        assert_eq!(response.header("Allow"), Some("GET, HEAD"));
        assert_eq!(
            response.header("Content-Type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(response.body, "Ask with GET or HEAD.\n");
    }
}

/// At the end of the line, whatever may follow.
#[test]
fn a_malformed_request_line_gets_400() {
    let server = serve();
    for request in [
        &b"QUIT\r\n"[..],
        b"GET /metrics\r\n",
        b"GET / HTTP/1.garbage\r\n",
        b"GET / HTTP/1.x\r\n",
        b"GET / HTTP/1.\r\n",
        b"GET / HTTP/1.2\r\n",
        b"GET / HTTP/1.9\r\n",
        b"G@T / HTTP/1.1\r\n",
        b" / HTTP/1.1\r\n",
        b"\r\n / HTTP/1.1\r\n",
        b"\r\n\r\n",
        b"\rGET / HTTP/1.1\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / \r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET / / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / http/1.1\r\n\r\n",
        b"GET\t/\tHTTP/1.1\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        "GET /ö HTTP/1.1\r\n\r\n".as_bytes(),
        b"GET /\r HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0",
    ] {
        let response = Response::parse(&exchange(server.address, request));
        assert_eq!(
            response.status,
            "HTTP/1.0 400 Bad Request",
            "{}",
            request.escape_ascii()
        );
        assert_eq!(response.body, "Ask in HTTP/1: GET /metrics HTTP/1.1\n");
    }
}

/// Without a blank line to wait for, and without 0x0A, which a hello may or may not contain.
#[test]
fn a_tls_hello_gets_400_at_once() {
    let server = serve();
    let mut hello = vec![
        0x16, 0x03, 0x01, 0x00, 0xf8, 0x01, 0x00, 0x00, 0xf4, 0x03, 0x03,
    ];
    hello.resize(253, 0xa7);
    let response = Response::parse(&exchange(server.address, &hello));
    assert_eq!(response.status, "HTTP/1.0 400 Bad Request");
}

#[test]
fn an_unfinished_request_gets_408_when_its_time_ends() {
    for request in [
        "G",
        "GET / HTTP/1.0",
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "\r\n",
    ] {
        // Each with a full purse of time.
        let response = Response::parse(&exchange(serve().address, request.as_bytes()));
        assert_eq!(
            response.status, "HTTP/1.0 408 Request Timeout",
            "{request:?}"
        );
        assert_eq!(response.body, "Send it all, to the blank line.\n");
    }
}

/// A browser connects before it has anything to ask, and takes an answer for one to its question.
#[test]
fn a_client_that_says_nothing_is_told_nothing() {
    assert_eq!(exchange(serve().address, b""), b"");
}

#[test]
fn an_empty_line_before_the_request_is_skipped() {
    let server = serve();
    for empty in ["\r\n", "\n"] {
        let mut stream = connect(server.address);
        stream.write_all(empty.as_bytes()).unwrap();
        // Long enough for it to arrive alone, as a rule.
        thread::sleep(Duration::from_millis(2));
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(Response::parse(&read_to_end(&mut stream)).body, METRICS);

        let together = format!("{empty}GET / HTTP/1.1\r\n\r\n");
        let response = exchange(server.address, together.as_bytes());
        assert_eq!(Response::parse(&response).body, METRICS);
    }
}

#[test]
fn a_request_of_more_than_8_kib_gets_414_or_431() {
    let server = serve();
    let with_path = |length| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length));
    let with_header = |length| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(length));
    let room = 8 * 1024 - with_path(0).len();
    let status =
        |request: String| Response::parse(&exchange(server.address, request.as_bytes())).status;
    assert_eq!(status(with_path(room)), "HTTP/1.0 200 OK");
    assert_eq!(status(with_path(100_000)), "HTTP/1.0 414 URI Too Long");
    assert_eq!(status(with_header(7_000)), "HTTP/1.0 200 OK");
    assert_eq!(
        status(with_header(100_000)),
        "HTTP/1.0 431 Request Header Fields Too Large"
    );
    let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100_000));
    assert_eq!(
        status(headers),
        "HTTP/1.0 431 Request Header Fields Too Large"
    );
}

/// However it is cut, and the cut may fall inside the blank line.
#[test]
fn a_request_in_two_pieces_is_read_to_its_blank_line() {
    let server = serve();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for cut in 1..request.len() {
        let mut stream = connect(server.address);
        stream.set_nodelay(true).unwrap();
        stream.write_all(&request[..cut]).unwrap();
        // Long enough for the server to read the first piece alone, as a rule.
        thread::sleep(Duration::from_millis(2));
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
fn a_request_that_ends_with_its_line_is_answered() {
    let server = serve();
    for request in [
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.0",
        "GET / HTTP/1.1\r\nHost: x",
    ] {
        let response = exchange_and_half_close(server.address, request.as_bytes());
        assert_eq!(Response::parse(&response).body, METRICS, "{request:?}");
    }
}

/// `exchange` fails where the end is a reset.
#[test]
fn ten_requests_in_one_get_one_answer_and_a_clean_end() {
    let server = serve();
    // The last makes each as long as the server reads at most: 8 KiB.
    for padding in [0, 2_000, 8_169] {
        let request = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(padding));
        let response = exchange(server.address, request.repeat(10).as_bytes());
        assert_eq!(Response::parse(&response).body, METRICS);
    }
}

#[test]
fn a_body_that_nobody_asked_for_does_not_cost_the_client_its_answer() {
    let server = serve();
    let body = vec![b'x'; 10_000_000];
    for (method, header, status) in [
        ("GET", "Content-Length: 10000000", "HTTP/1.0 200 OK"),
        ("GET", "transfer-encoding: chunked", "HTTP/1.0 200 OK"),
        (
            "POST",
            "Content-Length: 10000000",
            "HTTP/1.0 405 Method Not Allowed",
        ),
    ] {
        let mut stream = connect(server.address);
        let head = format!("{method} / HTTP/1.1\r\n{header}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // Into a connection that the server has closed this would fail.
        stream.write_all(&body).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Response::parse(&read_to_end(&mut stream)).status, status);
    }
}

/// Whether the server still reads. Where it has closed, its kernel soon answers with a reset.
fn reads_on(stream: &mut TcpStream) -> bool {
    (0..20).all(|_| {
        thread::sleep(Duration::from_millis(2));
        stream.write_all(b"x").is_ok()
    })
}

/// It says at once that it has said everything, and reads on: whoever reads to the end first, and
/// whoever sends to the end first, gets there.
#[test]
fn after_a_refusal_or_before_a_body_the_server_half_closes_and_reads_on() {
    let server = serve();
    for request in [
        "POST / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 20\r\n\r\n",
        "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        // Unannounced, but it has begun.
        "GET / HTTP/1.1\r\n\r\nx",
    ] {
        let mut stream = connect(server.address);
        stream.write_all(request.as_bytes()).unwrap();
        Response::parse(&read_to_end(&mut stream));
        assert!(reads_on(&mut stream), "{request:?}");
    }
}

/// There is nothing to wait for, and the next client need not wait.
#[test]
fn after_a_request_without_a_body_the_server_closes() {
    let server = serve();
    for header in [
        "Host: x",
        "Content-Length: 0",
        "content-length:0",
        "CONTENT-LENGTH: \t0 ",
        "X-Content-Length: 5",
    ] {
        let mut stream = connect(server.address);
        let request = format!("GET / HTTP/1.1\r\n{header}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(Response::parse(&read_to_end(&mut stream)).body, METRICS);
        assert!(!reads_on(&mut stream), "{header:?}");
    }
}

#[test]
fn the_program_owns_the_loop_and_may_add_a_series_between_two_scrapes() {
    let mut registry = Registry::new();
    let seen = registry.counter("scrapes_total", "", &[]).unwrap();
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel();
    let client = thread::spawn(move || {
        for _ in 0..3 {
            sender.send(scrape(address)).unwrap();
        }
    });
    for disk in ["a", "b", "c"] {
        let answering = server.accept().unwrap();
        assert_eq!(answering.request_line(), "GET /metrics HTTP/1.1");
        seen.inc();
        registry
            .gauge("disk_free_bytes", "", &[("disk", disk)])
            .unwrap();
        answering.answer(registry.render()).unwrap();
    }
    client.join().unwrap();
    for (i, body) in receiver.iter().enumerate() {
        let families = exposition::parse(&body);
        assert_eq!(families[0].samples[0].value, i as f64 + 1.0);
        assert_eq!(families[1].samples.len(), i + 1);
    }
}

/// Prometheus tells that from a network that failed: it shows the status.
#[test]
fn a_collection_that_failed_gets_500_and_the_reason() {
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let client = thread::spawn(move || exchange(address, SCRAPE));
    server
        .accept()
        .unwrap()
        .fail("cannot read the sensor")
        .unwrap();
    let response = Response::parse(&client.join().unwrap());
    assert_eq!(response.status, "HTTP/1.0 500 Internal Server Error");
    assert_eq!(
        response.header("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(response.body, "cannot read the sensor\n");
}

/// What a slow client is sent is text, and no longer the registry's.
#[test]
fn a_slow_client_does_not_keep_other_threads_from_the_registry() {
    let registry = Arc::new(Mutex::new(Registry::new()));
    let long = "x".repeat(20_000_000);
    registry
        .lock()
        .unwrap()
        .gauge("a", "", &[("long", &long)])
        .unwrap();
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let mut client = connect(server.local_addr().unwrap());
    client.write_all(SCRAPE).unwrap();
    let shared = Arc::clone(&registry);
    let serving = thread::spawn(move || {
        let scrape = server.accept().unwrap();
        let text = shared.lock().unwrap().render().to_owned();
        scrape.answer(&text)
    });
    // The answer has begun, and can go no further.
    client.peek(&mut [0]).unwrap();
    let added = registry.lock().unwrap().gauge("b", "", &[]);
    assert!(added.is_ok() && !serving.is_finished());
    drop(client);
    let error = serving.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("did not take the response"));
}

#[test]
fn the_server_describes_itself_in_a_line() {
    let server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let description = format!("{server:?}");
    assert!(description.len() < 300, "{description}");
    assert_eq!(description.lines().count(), 1);
}

#[test]
fn a_scrape_that_is_dropped_hangs_up() {
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let client = thread::spawn(move || exchange(address, SCRAPE));
    drop(server.accept().unwrap());
    assert_eq!(client.join().unwrap(), b"");
}

/// One sentence for each that was not served, with its address.
#[test]
fn what_is_wrong_with_a_client_is_reported() {
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let mut report = |request: &[u8], leave: bool| {
        let mut stream = connect(address);
        let peer = stream.local_addr().unwrap();
        stream.write_all(request).unwrap();
        let kept = (!leave).then_some(stream);
        let error = server.accept().map(drop).expect_err("no scrape");
        drop(kept);
        format!("{error:#}").replace(&peer.to_string(), "PEER")
    };
    assert_eq!(report(b"", true), "PEER sent no request: it hung up");
    assert_eq!(report(b"", false), "PEER sent no request: timed out");
    assert_eq!(
        report(b"GET /", false),
        "PEER was refused: 408 Request Timeout"
    );
    assert_eq!(
        report(b"nonsense\r\n\r\n", true),
        "PEER was refused: 400 Bad Request"
    );
}
