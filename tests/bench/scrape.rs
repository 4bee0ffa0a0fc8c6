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
}

impl Program {
    fn new(series: usize) -> Self {
        let mut program = Self {
            registry: Registry::new(),
            counters: vec![],
            gauges: vec![],
            random: Random(1),
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
        program.change(100);
        program
    }

    /// Gives so many in a hundred series another value: one half of them whole numbers.
    fn change(&mut self, percent: usize) {
        if percent == 0 {
            return;
        }
        let every = 100 / percent;
        let offset = self.random.below(every);
        for counter in self.counters.iter().skip(offset).step_by(every) {
            counter.inc_by(self.random.below(1000) as f64 + 1.0);
        }
        for gauge in self.gauges.iter().skip(offset).step_by(every) {
            gauge.set((self.random.bits() >> 11) as f64 / (1_u64 << 53) as f64);
        }
    }

    /// Nanoseconds a series, and allocations a rendering.
    fn render(&mut self, percent: usize) -> (f64, f64) {
        let (mut time, mut made, mut count) = (Duration::ZERO, 0, 0);
        while count < 5 || time < Duration::from_millis(200) {
            self.change(percent);
            let (before, start) = (allocations(), Instant::now());
            black_box(self.registry.render());
            time += start.elapsed();
            made += allocations() - before;
            count += 1;
        }
        let series = self.counters.len() + self.gauges.len();
        (
            nanoseconds(time, count * series),
            made as f64 / count as f64,
        )
    }

    /// Nanoseconds a series to copy the finished text: no rendering could be cheaper.
    fn copy(&mut self) -> f64 {
        let text = self.registry.render().to_owned();
        let (mut copy, mut count) = (String::with_capacity(text.len()), 0);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200) {
            copy.clear();
            copy.push_str(black_box(&text));
            black_box(&copy);
            count += 1;
        }
        nanoseconds(
            start.elapsed(),
            count * (self.counters.len() + self.gauges.len()),
        )
    }
}

fn nanoseconds(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
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
            scrape.answer(&mut program.registry).unwrap();
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
    eprintln!("rendering");
    println!("Nanoseconds a series to render; allocations a scrape:\n");
    println!(
        "| series | copy of the text | none changed | 10 % changed | all changed | allocations |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    for series in [4, 100, 1_000, 10_000, 100_000] {
        eprintln!("  {series} series");
        let mut program = Program::new(series);
        let copy = program.copy();
        // Both buffers exist from the second change on.
        program.render(100);
        let (all, _) = program.render(100);
        let (tenth, _) = program.render(10);
        let (none, _) = program.render(0);
        let (_, made) = program.render(100);
        println!("| {series} | {copy:.1} | {none:.1} | {tenth:.1} | {all:.1} | {made} |");
    }

    eprintln!("handles");
    println!("\nNanoseconds to change a value:\n");
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
    const TIMES: usize = 5_000_000;
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
        let (one, same, neighbours) = (run(&[0]), run(&[0, 0]), run(&[0, 1]));
        println!("| {name} | {one:.1} | {same:.1} | {neighbours:.1} |");
    }

    eprintln!("scrapes");
    println!(
        "\nScrapes a second over loopback, one after another; ratio to a server that writes a"
    );
    println!("constant of the same size, measured in turn, as median (least to greatest):\n");
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
