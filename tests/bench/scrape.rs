//! What a scrape costs. `cargo bench` prints two tables. It judges nothing.

#[path = "../support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use metricmote::{Gauge, MetricsServer, Registry};
use support::{Random, SCRAPE, exchange};

/// Series in families of ten. Half of them are whole numbers, the others fractions.
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
        let gauges = (0..series).map(register).map(Result::unwrap).collect();
        let random = Random(1);
        Self {
            registry,
            gauges,
            random,
        }
    }

    fn change(&mut self) {
        for pair in self.gauges.chunks(2) {
            pair[0].set(self.random.below(1_000_000) as f64);
            pair[1].set((self.random.bits() >> 11) as f64 / (1_u64 << 53) as f64);
        }
    }

    /// Nanoseconds to render a series.
    fn render(&mut self) -> f64 {
        let (mut time, mut count) = (Duration::ZERO, 0);
        while count < 3 || time < Duration::from_millis(20) {
            self.change();
            let start = Instant::now();
            black_box(self.registry.render());
            time += start.elapsed();
            count += self.gauges.len();
        }
        time.as_secs_f64() * 1e9 / count as f64
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The least that a blocking server can do: read once, and write a constant.
fn serve_constant(response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut request = [0; 8192];
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let read = stream.read(&mut request);
            let _ = read.and_then(|_| stream.write_all(&response));
        }
    });
    address
}

fn serve(mut program: Program) -> SocketAddr {
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    thread::spawn(move || {
        loop {
            let scrape = server.accept().unwrap();
            program.change();
            scrape.answer(&program.registry.render()).unwrap();
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

fn main() {
    // All sizes in turn, because a shared machine is slower for a second now and then.
    let mut programs = [4, 1_000, 10_000, 100_000].map(|n| (Program::new(n), vec![]));
    for _ in 0..15 {
        for (program, figures) in &mut programs {
            figures.push(program.render());
        }
    }
    println!("\nNanoseconds to render a series whose value has changed (median of 15 rounds):\n");
    println!("| series | ns |\n| ---: | ---: |");
    for (program, figures) in programs {
        println!("| {} | {:.1} |", program.gauges.len(), median(figures));
    }

    println!("\nScrapes a second over loopback, changes included, beside a server that writes a");
    println!("constant text of the same size (medians of 21 rounds):\n");
    println!("| series | constant | metricmote | ratio |\n| ---: | ---: | ---: | ---: |");
    let mut buffer = vec![0; 1 << 18];
    for series in [4, 10_000] {
        let metricmote = serve(Program::new(series));
        let constant = serve_constant(exchange(metricmote, SCRAPE));
        let mut figures = [const { vec![] }; 3];
        for _ in 0..21 {
            let constant = scrapes_per_second(constant, &mut buffer);
            let metricmote = scrapes_per_second(metricmote, &mut buffer);
            figures[0].push(constant);
            figures[1].push(metricmote);
            figures[2].push(metricmote / constant);
        }
        let [constant, metricmote, ratio] = figures.map(median);
        println!("| {series} | {constant:.0} | {metricmote:.0} | {ratio:.2} |");
    }
}
