//! The server's HTTP, byte by byte.

mod support;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use metricmote::{MetricsServer, Registry};
use support::{Response, SCRAPE, Served, connect, exchange, read_to_end};

/// Precedes the metrics in a response to GET, and is all of a response to HEAD.
const METRICS_HEAD: &str = "HTTP/1.0 200 OK\r\n\
    Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
    Content-Length: 31\r\n\
    Connection: close\r\n\
    \r\n";
const METRICS: &str = "# HELP a A.\n# TYPE a gauge\na 7\n";

fn serve() -> Served {
    let mut registry = Registry::new();
    registry.gauge("a", "A.", &[]).unwrap().set(7.0);
    Served::start(move |scrape| scrape.answer(&registry.render()))
}

/// Sends a request to a new server, which has its full budget.
fn response_to(request: impl AsRef<[u8]>) -> String {
    String::from_utf8(exchange(serve().address, request.as_ref())).unwrap()
}

/// Checks a response that says in plain text why the metrics are not sent.
fn check_refusal(response: &[u8], status: &str, reason: &str) {
    let response = Response::parse(response);
    let content_type = response.header("Content-Type");
    assert_eq!((&*response.status, &*response.body), (status, reason));
    assert_eq!(content_type, Some("text/plain; charset=utf-8"));
    assert_eq!(response.header("Allow"), Some("GET, HEAD"));
}

/// Gives the other side the time to act on what it has been sent.
fn pause() {
    thread::sleep(Duration::from_millis(2));
}

#[test]
fn a_scrape_gets_the_metrics_under_three_headers() {
    assert_eq!(response_to(SCRAPE), [METRICS_HEAD, METRICS].concat());
}

#[rustfmt::skip]
const ANSWERED: [&[u8]; 9] = [
    b"GET / HTTP/1.0\r\n\r\n", b"GET * HTTP/1.1\r\nX: \xff\r\n\r\n",
    b"GET /a/b?c=%20#d HTTP/1.1\r\nHost: x\r\n\r\n", b"GET http://x/ HTTP/1.1\r\n\r\n",
    // A line may end in a line feed alone, and one empty line may precede the request.
    b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.1\nHost: x\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\n",
    b"\r\nGET / HTTP/1.1\r\n\r\n", b"\nGET / HTTP/1.1\r\n\r\n",
];

/// The requests that are refused with a status and a reason. If a request could still become valid,
/// it is refused when its time ends, and otherwise at once.
#[rustfmt::skip]
const REFUSED: [(&str, &str, &[&[u8]]); 3] = [
    ("400 Bad Request", "Ask in HTTP/1: GET /metrics HTTP/1.1\n", &[
        b"GET\r\n", b"GET /metrics\r\n", b"GET / \r\n", b"GET  HTTP/1.1\r\n",
        b"GET / / HTTP/1.1\r\n", b"GET / HTTP/1.1 \r\n", b"GET\t/\tHTTP/1.1\r\n",
        b"G@T / HTTP/1.1\r\n", b"\r\n / HTTP/1.1\r\n", b"\r\n\r\n", b"GET / http/1.1\r\n",
        b"GET / HTTP/1.x\r\n", b"GET / HTTP/1.2\r\n", b"GET / HTTP/1.10\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\0 HTTP/1.1\r\n", b"GET /\x7f HTTP/1.1\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\n", b"GET /\r HTTP/1.1\r\n", b"GET /\xc3\xb6 HTTP/1.1\r\n",
        // No request begins like this, so there is no line to wait for. The last is a TLS
        // handshake, as a scraper sends it if it is configured with `https`.
        b" GET /", b"\0\0\0\0", b"\xff", b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03",
    ]),
    ("405 Method Not Allowed", "Ask with GET or HEAD.\n", &[
        b"POST / HTTP/1.1\r\n\r\n", b"OPTIONS / HTTP/1.0\r\n\r\n", b"get / HTTP/1.1\r\n\r\n",
        b"M-SEARCH * HTTP/1.1\r\n\r\n", b"GETS / HTTP/1.1\r\n\r\n", b"HEADS / HTTP/1.1\r\n\r\n",
    ]),
    ("408 Request Timeout", "Send it all, to the blank line.\n", &[
        b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nX: y\r\n", b"\r\n",
    ]),
];

#[test]
fn a_get_of_any_path_is_answered_and_everything_else_is_refused() {
    for request in ANSWERED {
        let (response, shown) = (response_to(request), request.escape_ascii());
        assert_eq!(response, [METRICS_HEAD, METRICS].concat(), "{shown}");
    }
    thread::scope(|scope| {
        for (status, reason, requests) in REFUSED {
            for request in requests {
                scope.spawn(move || check_refusal(response_to(request).as_bytes(), status, reason));
            }
        }
    });
}

/// A browser connects before it has a request, and takes whatever comes for the response to it.
#[test]
fn a_client_that_says_nothing_is_told_nothing() {
    assert_eq!(response_to(""), "");
}

#[test]
fn a_request_of_more_than_8_kib_gets_414_or_431() {
    for (path, headers, status) in [
        // With this path and no header, the request has exactly 8 KiB.
        (8_174, 0, "200 OK"),
        (10_000, 0, "414 URI Too Long"),
        // The 8 KiB end just before the blank line.
        (0, 1_022, "431 Request Header Fields Too Large"),
        (0, 10_000, "431 Request Header Fields Too Large"),
    ] {
        let (path, headers) = ("a".repeat(path), "X: yyy\r\n".repeat(headers));
        let response = response_to(format!("GET /{path} HTTP/1.1\r\n{headers}\r\n"));
        assert_eq!(Response::parse(response.as_bytes()).status, status);
    }
}

#[test]
fn a_response_to_head_has_the_same_head_and_no_body() {
    let long = format!("HEAD / HTTP/1.1\r\nX: {}", "a".repeat(10_000));
    for (request, start) in [
        ("HEAD / HTTP/1.1\r\n\r\n", METRICS_HEAD),
        ("\r\nHEAD / HTTP/1.1\r\n\r\n", METRICS_HEAD),
        ("HEAD / HTTP/2.0\r\n", "HTTP/1.0 400 Bad Request\r\n"),
        ("HEAD / HTTP/1.1\r\n", "HTTP/1.0 408 Request Timeout\r\n"),
        (&long, "HTTP/1.0 431 Request Header Fields Too Large\r\n"),
    ] {
        let response = response_to(request);
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(response.starts_with(start), "{request:?}: {response:?}");
        assert_eq!(body, "", "{request:?}");
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
    for request in ["GET / HTTP/1.0", "GET / HTTP/1.1\r\nHost: x"] {
        let mut stream = connect(server.address);
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let response = Response::parse(&read_to_end(&mut stream));
        assert_eq!(response.body, METRICS, "{request:?}");
    }
}

/// Whether the server reads 10 MB more. If it has closed the connection, writing soon fails.
fn reads_on(stream: &mut TcpStream) -> bool {
    (0..20).all(|_| {
        pause();
        stream.write_all(&[b'x'; 500_000]).is_ok()
    })
}

/// The server half-closes the connection, so that the client learns at once that the response is
/// complete. If the server then closed it with bytes unread, the client could lose the response, so
/// it reads on. But it does not wait for bytes that cannot come.
#[test]
fn after_the_response_the_server_reads_on_only_if_more_may_come() {
    let server = serve();
    let eight_kib = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(8_169));
    for (request, more) in [
        ("POST / HTTP/1.1\r\n\r\n", true),
        ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", true),
        (&eight_kib, true),
        ("GET / HTTP/1.1\r\ncontent-length:20\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nContent-Length: 20\r\nX: y\r\n\r\n", true),
        ("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nX-Content-Length: 5\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nTE: transfer-encoding:\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nCONTENT-LENGTH: \t0 \r\n\r\n", false),
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
    let scrape = server.accept().unwrap();
    scrape.fail("cannot read the sensor").unwrap();
    drop(server.accept().unwrap());

    let [answered, failed, dropped] = client.join().unwrap();
    let (status, reason) = ("500 Internal Server Error", "cannot read the sensor\n");
    assert!(Response::parse(&answered).body.contains("\nlate 0\n"));
    check_refusal(&failed, status, reason);
    assert_eq!(dropped, b"");
}

#[test]
fn an_error_says_what_is_wrong_with_which_client() {
    // What the client sends, whether it then leaves, and the error.
    #[rustfmt::skip]
    const CLIENTS: [(&str, bool, &str); 4] = [
        ("", true, "PEER sent no request: it disconnected"),
        ("", false, "PEER sent no request: timed out"),
        ("nonsense\r\n", true, "PEER was refused: 400 Bad Request"),
        // The buffers of the sockets have no room for this response.
        ("GET / HTTP/1.1\r\n\r\n", true, "PEER did not take the response"),
    ];
    let large = "# padding\n".repeat(2_000_000);
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    for (request, leaves, error) in CLIENTS {
        let mut stream = connect(address);
        let peer = stream.local_addr().unwrap().to_string();
        stream.write_all(request.as_bytes()).unwrap();
        let kept = (!leaves).then_some(stream);
        let served = server.accept().and_then(|scrape| scrape.answer(&large));
        let report = served.unwrap_err();
        drop(kept);
        // Of the last error, the cause differs between systems.
        let reports = [format!("{report:#}"), format!("{report}")];
        let reports = reports.map(|report| report.replace(&peer, "PEER"));
        assert!(reports.contains(&error.to_owned()), "{reports:?}");
    }
}

/// Such a client is never silent for long, so what ends its time is the budget.
#[test]
fn a_client_that_sends_byte_by_byte_gets_408_as_well() {
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let mut stream = connect(server.local_addr().unwrap());
    let client = thread::spawn(move || {
        while stream.write_all(b"x").is_ok() {
            pause();
        }
    });
    let report = server.accept().map(drop).unwrap_err().to_string();
    assert!(
        report.ends_with("was refused: 408 Request Timeout"),
        "{report}"
    );
    client.join().unwrap();
}
