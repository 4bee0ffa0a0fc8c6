//! A scrape allocates a little for the request and nothing for the series. The only test of its
//! program, so that no other allocates meanwhile.

#[path = "support/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use counting::allocations;
use metricmote::{MetricsServer, Registry};

const SCRAPES: usize = 200;

#[test]
fn a_scrape_allocates_nothing_for_the_series() {
    let few = allocations_of_a_scrape(1);
    assert_eq!(allocations_of_a_scrape(500), few);
    // A buffer to read into, four lines (one of them as text), its words, and the head.
    assert!(few <= 10, "{few} allocations");
}

/// The most that one of many scrapes of changing values allocates, with so many counters and gauges.
fn allocations_of_a_scrape(series: usize) -> usize {
    let mut registry = Registry::new();
    let mut handles = Vec::new();
    for i in 0..series {
        let i = i.to_string();
        let counter = registry.counter("requests_total", "R.", &[("path", &i)]);
        let gauge = registry.gauge("depth_meters", "D.", &[("place", &i)]);
        handles.push((counter.unwrap(), gauge.unwrap()));
    }
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    // Its own memory it takes before the count begins.
    let client = thread::spawn(move || {
        let mut response = vec![0; 1 << 20];
        for _ in 0..SCRAPES {
            let mut stream = TcpStream::connect(address).unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            while stream.read(&mut response).unwrap() > 0 {}
        }
    });
    let mut most = 0;
    for number in 0..SCRAPES {
        let before = allocations();
        let scrape = server.accept().unwrap();
        // Each scrape has the longest value in another line, and short ones in the rest.
        for (i, (counter, gauge)) in handles.iter().enumerate() {
            counter.inc();
            gauge.set(if i == number % series {
                -f64::MIN_POSITIVE
            } else {
                number as f64
            });
        }
        scrape.answer(registry.render()).unwrap();
        // In the first few the memory of the exposition grows.
        if number >= 10 {
            most = most.max(allocations() - before);
        }
    }
    client.join().unwrap();
    most
}
