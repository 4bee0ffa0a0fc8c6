//! What a scrape costs. `cargo bench` prints two tables, and judges nothing.

#[path = "../support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use metricmote::{Gauge, Registry};
use support::{Random, SCRAPE, Served, exchange};

/// Series in families of ten. Half of the values are whole numbers, the others are fractions.
struct Program {
    registry: Registry,
    gauges: Vec<Gauge>,
    random: Random,
}

impl Program {
    fn new(series: usize) -> Self {
        let mut registry = Registry::new();
        let register = |i| {
            let path = format!("/api/v1/item/{i}");
            let labels = [("method", "get"), ("path", path.as_str())];
            let name = format!("level_{}", i / 10);
            registry.gauge(&name, "Level of these items.", &labels)
        };
        Self {
            gauges: (0..series).map(register).map(Result::unwrap).collect(),
            registry,
            random: Random(1),
        }
    }

    /// Changes all values.
    fn change(&mut self) {
        for pair in self.gauges.chunks(2) {
            pair[0].set(self.random.below(1_000_000) as f64);
            pair[1].set((self.random.bits() >> 11) as f64 / (1_u64 << 53) as f64);
        }
    }

    /// Returns how many nanoseconds it takes to render a series.
    fn render(&mut self) -> f64 {
        let (mut time, mut count) = (Duration::ZERO, 0);
        while time < Duration::from_millis(20) {
            self.change();
            let start = Instant::now();
            black_box(self.registry.render());
            time += start.elapsed();
            count += self.gauges.len();
        }
        time.as_secs_f64() * 1e9 / count as f64
    }
}

/// Does the least that a blocking server can do: it reads once, and writes a constant.
fn serve_constant(response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let read = stream.read(&mut [0; 8192]);
            let _ = read.and_then(|_| stream.write_all(&response));
        }
    });
    address
}

fn scrapes_per_second(address: SocketAddr, buffer: &mut [u8]) -> f64 {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(100) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(SCRAPE).unwrap();
        while stream.read(buffer).unwrap() > 0 {}
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

fn median<const N: usize>(mut figures: [f64; N]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[N / 2]
}

fn main() {
    println!("\nNanoseconds to render a series whose value has changed, median of 15:\n");
    println!("| series | ns |\n| ---: | ---: |");
    for series in [4, 1_000, 10_000, 100_000] {
        let mut program = Program::new(series);
        let figures = [(); 15].map(|()| program.render());
        println!("| {series} | {:.1} |", median(figures));
    }

    println!("\nScrapes a second, one after another, and their ratio to those of a server that");
    println!("writes a constant of the same size, median of 21:\n");
    println!("| series | scrapes | ratio |\n| ---: | ---: | ---: |");
    let mut buffer = vec![0; 1 << 18];
    for series in [4, 10_000] {
        let mut program = Program::new(series);
        let metricmote = Served::start(move |scrape| {
            program.change();
            scrape.answer(&program.registry.render())
        });
        let constant = serve_constant(exchange(metricmote.address, SCRAPE));
        let rounds = [(); 21].map(|()| {
            let constant = scrapes_per_second(constant, &mut buffer);
            (
                scrapes_per_second(metricmote.address, &mut buffer),
                constant,
            )
        });
        let scrapes = median(rounds.map(|(scrapes, _)| scrapes));
        let ratio = median(rounds.map(|(scrapes, constant)| scrapes / constant));
        println!("| {series} | {scrapes:.0} | {ratio:.2} |");
    }
}
