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
        // Both buffers exist after two renderings of changed values.
        for _ in 0..2 {
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

    /// Nanoseconds a series to copy the finished text.
    fn copy(&mut self) -> f64 {
        let text = self.registry.render().to_owned();
        let (mut copy, mut count) = (text.clone(), 0);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            copy.clear();
            copy.push_str(black_box(&text));
            black_box(&copy);
            count += 1;
        }
        nanoseconds(start.elapsed(), count * self.series())
    }
}

fn nanoseconds(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Nanoseconds to read the clock.
fn clock() -> f64 {
    const TIMES: usize = 1_000_000;
    let start = Instant::now();
    for _ in 0..TIMES {
        black_box(Instant::now());
    }
    nanoseconds(start.elapsed(), TIMES)
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
        .map(|series| (Program::new(series), [const { vec![] }; 5]));
    // All sizes in turn: on a shared machine that is slower for a while, all of them are.
    for round in 1..=15 {
        eprintln!("rendering, round {round} of 15");
        for (program, [copy, none, hundredth, tenth, all]) in &mut programs {
            copy.push(program.copy());
            none.push(program.render(0));
            hundredth.push(program.render(1));
            tenth.push(program.render(10));
            all.push(program.render(100));
        }
    }
    println!(
        "Nanoseconds a series to render, medians; allocations a scrape. Reading the clock, which"
    );
    println!("each rendering includes, took {:.0} ns:\n", clock());
    println!(
        "| series | copy of the text | none changed | 1 % | 10 % | all changed | allocations |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for (program, cells) in programs {
        let [copy, none, hundredth, tenth, all] = cells.map(median);
        let made = program.allocations as f64 / program.renderings as f64;
        println!(
            "| {} | {copy:.1} | {none:.1} | {hundredth:.1} | {tenth:.1} | {all:.1} | {made} |",
            program.series()
        );
    }

    eprintln!("handles");
    println!("\nNanoseconds to change a value, medians:\n");
    println!("| | one thread | two threads, same series | two threads, neighbouring series |");
    println!("|---|---:|---:|---:|");
    let mut registry = Registry::new();
    let counters = ["0", "1"].map(|i| registry.counter("c_total", "", &[("i", i)]).unwrap());
    let gauges = ["0", "1"].map(|i| registry.gauge("g", "", &[("i", i)]).unwrap());
    let operations: [(&str, &(dyn Fn(usize) + Sync)); 3] = [
        ("`Counter::inc`", &|i| counters[i].inc()),
        ("`Gauge::dec_by`", &|i| gauges[i].dec_by(black_box(0.5))),
        ("`Gauge::set`", &|i| gauges[i].set(black_box(0.5))),
    ];
    const TIMES: usize = 2_000_000;
    for (name, operation) in operations {
        let run = |series: &[usize]| {
            let start = Instant::now();
            thread::scope(|scope| {
                for &i in series {
                    scope.spawn(move || (0..TIMES).for_each(|_| operation(i)));
                }
            });
            nanoseconds(start.elapsed(), TIMES)
        };
        let mut cells = [const { vec![] }; 3];
        for _ in 0..15 {
            for (cell, series) in cells.iter_mut().zip([&[0][..], &[0, 0], &[0, 1]]) {
                cell.push(run(series));
            }
        }
        let [one, same, neighbours] = cells.map(median);
        println!("| {name} | {one:.1} | {same:.1} | {neighbours:.1} |");
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
