//! What a scrape costs. Run by `cargo bench`; it prints tables, and never fails on a figure.

#[path = "../support/counting.rs"]
mod counting;
#[path = "../support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use counting::allocations;
use metricmote::{Counter, Gauge, MetricsServer, Registry};
use support::{Random, SCRAPE, exchange};

/// As many counters as gauges, in families of ten.
struct Program {
    registry: Registry,
    counters: Vec<Counter>,
    gauges: Vec<Gauge>,
    random: Random,
    renderings: usize,
    allocations: usize,
}

impl Program {
    fn new(series: usize) -> Self {
        let mut program = Self {
            registry: Registry::new(),
            counters: vec![],
            gauges: vec![],
            random: Random(1),
            renderings: 0,
            allocations: 0,
        };
        for i in 0..series / 2 {
            let path = format!("/api/v1/item/{i}");
            let labels = [("method", "get"), ("path", path.as_str())];
            let name = format!("requests_{}_total", i / 10);
            let help = "Requests for these items.";
            program
                .counters
                .push(program.registry.counter(&name, help, &labels).unwrap());
        }
        for i in 0..series / 2 {
            let path = format!("/api/v1/item/{i}");
            let labels = [("method", "get"), ("path", path.as_str())];
            let name = format!("level_{}", i / 10);
            program.gauges.push(
                program
                    .registry
                    .gauge(&name, "Level of these items.", &labels)
                    .unwrap(),
            );
        }
        // The memory of the exposition is there after a few renderings.
        for _ in 0..5 {
            program.change(100);
            program.registry.render();
        }
        program
    }

    fn series(&self) -> usize {
        self.counters.len() + self.gauges.len()
    }

    /// Gives so many in a hundred series, here and there, another value: one half of them whole
    /// numbers.
    fn change(&mut self, percent: usize) {
        for counter in &self.counters {
            if self.random.below(100) < percent {
                counter.inc_by(self.random.below(1000) as f64 + 1.0);
            }
        }
        for gauge in &self.gauges {
            if self.random.below(100) < percent {
                gauge.set((self.random.bits() >> 11) as f64 / (1_u64 << 53) as f64);
            }
        }
    }

    /// Nanoseconds a series to render.
    fn render(&mut self, percent: usize) -> f64 {
        let (mut time, mut count) = (Duration::ZERO, 0);
        while count < 3 || time < Duration::from_millis(20) {
            self.change(percent);
            let (before, start) = (allocations(), Instant::now());
            black_box(self.registry.render());
            time += start.elapsed();
            self.allocations += allocations() - before;
            count += 1;
        }
        self.renderings += count;
        nanoseconds(time, count * self.series())
    }
}

fn nanoseconds(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The least that a blocking server can do: read once, write a constant.
fn serve_constant(response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut request = [0; 8192];
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream
                .read(&mut request)
                .and_then(|_| stream.write_all(&response));
        }
    });
    address
}

fn serve(mut program: Program, percent: usize) -> SocketAddr {
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    thread::spawn(move || {
        loop {
            let scrape = server.accept().unwrap();
            program.change(percent);
            scrape.answer(program.registry.render()).unwrap();
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
    let mut programs = [4, 100, 1_000, 10_000, 100_000]
        .map(|series| (Program::new(series), [const { vec![] }; 3]));
    // All sizes in turn: on a shared machine that is slower for a while, all of them are.
    for round in 1..=15 {
        eprintln!("rendering, round {round} of 15");
        for (program, [none, tenth, all]) in &mut programs {
            none.push(program.render(0));
            tenth.push(program.render(10));
            all.push(program.render(100));
        }
    }
    println!("Nanoseconds a series to render, medians; allocations a rendering:\n");
    println!("| series | none changed | a tenth | all | allocations |");
    println!("|---:|---:|---:|---:|---:|");
    for (program, cells) in programs {
        let [none, tenth, all] = cells.map(median);
        let made = program.allocations as f64 / program.renderings as f64;
        println!(
            "| {} | {none:.1} | {tenth:.1} | {all:.1} | {made} |",
            program.series()
        );
    }

    eprintln!("handles");
    println!("\nNanoseconds to change a value, medians:\n");
    println!("| | one thread | two threads at once |");
    println!("|---|---:|---:|");
    let mut registry = Registry::new();
    let counter = registry.counter("c_total", "", &[]).unwrap();
    let gauge = registry.gauge("g", "", &[]).unwrap();
    let operations: [(&str, &(dyn Fn() + Sync)); 3] = [
        ("`Counter::inc`", &|| counter.inc()),
        ("`Gauge::dec_by`", &|| gauge.dec_by(black_box(0.5))),
        ("`Gauge::set`", &|| gauge.set(black_box(0.5))),
    ];
    const TIMES: usize = 2_000_000;
    for (name, operation) in operations {
        let run = |threads: usize| {
            let start = Instant::now();
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..TIMES).for_each(|_| operation()));
                }
            });
            nanoseconds(start.elapsed(), TIMES)
        };
        let mut cells = [const { vec![] }; 2];
        for _ in 0..15 {
            cells[0].push(run(1));
            cells[1].push(run(2));
        }
        let [one, two] = cells.map(median);
        println!("| {name} | {one:.1} | {two:.1} |");
    }

    eprintln!("scrapes");
    println!(
        "\nScrapes a second over loopback, one after another; ratio to a server that writes a"
    );
    println!(
        "constant of the same size, measured in turn, as median (least to greatest). Changing"
    );
    println!("the values is part of the scrape:\n");
    println!("| series | changed | constant | metricmote | ratio |");
    println!("|---:|---:|---:|---:|---:|");
    let mut buffer = vec![0; 1 << 18];
    for (series, percent) in [(4, 0), (4, 100), (10_000, 0), (10_000, 10), (10_000, 100)] {
        eprintln!("  {series} series, {percent} % changed");
        let ours = serve(Program::new(series), percent);
        let constant = serve_constant(exchange(ours, SCRAPE));
        let mut rounds: Vec<(f64, f64, f64)> = (0..21)
            .map(|_| {
                let constant = scrapes_per_second(constant, &mut buffer);
                let ours = scrapes_per_second(ours, &mut buffer);
                (ours / constant, constant, ours)
            })
            .collect();
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, constant, ours) = rounds[rounds.len() / 2];
        let (least, greatest) = (rounds[0].0, rounds[rounds.len() - 1].0);
        println!(
            "| {series} | {percent} % | {constant:.0} | {ours:.0} | {ratio:.2} ({least:.2} to {greatest:.2}) |"
        );
    }
}
