//! In the steady state a scrape allocates nothing. The only test of its program, so that no other
//! allocates meanwhile.

#[path = "support/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use counting::allocations;
use metricmote::{MetricsServer, Registry};

const SCRAPES: usize = 200;

#[test]
fn a_scrape_allocates_nothing() {
    let mut registry = Registry::new();
    let mut counters = Vec::new();
    let mut gauges = Vec::new();
    for i in 0..500 {
        let i = i.to_string();
        counters.push(
            registry
                .counter("requests_total", "R.", &[("path", &i)])
                .unwrap(),
        );
        gauges.push(
            registry
                .gauge("depth_meters", "D.", &[("place", &i)])
                .unwrap(),
        );
    }
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    // Its own memory it takes before the count begins.
    let client = thread::spawn(move || {
        let mut response = vec![0; 1 << 20];
        for _ in 0..SCRAPES {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            while stream.read(&mut response).unwrap() > 0 {}
        }
    });
    for scrapes in 0..SCRAPES {
        let before = allocations();
        let scrape = server.accept().unwrap();
        for (i, (counter, gauge)) in counters.iter().zip(&gauges).enumerate() {
            counter.inc_by(0.1 + i as f64);
            // Long values and short ones in turn.
            gauge.set(if scrapes % 3 == 0 {
                -f64::MIN_POSITIVE / 3.0
            } else {
                scrapes as f64
            });
        }
        scrape.answer(&mut registry).unwrap();
        let made = allocations() - before;
        // The first two make the two buffers between which the exposition goes to and fro.
        assert!(scrapes < 2 || made == 0, "{made} in scrape {scrapes}");
    }
    client.join().unwrap();
}
