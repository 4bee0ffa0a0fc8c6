//! The example: two counters and two gauges, which take a random step every second.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::env::args_os;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Error, Result, anyhow};
use metricmote::{Counter, Gauge, MetricsServer, Registry, Scrape};

/// Serves the example. Returns only if it cannot start.
fn serve(address: &str) -> Result<Infallible> {
    let mut example = Example::new()?;
    let mut server =
        MetricsServer::bind(address).with_context(|| format!("cannot listen on {address:?}"))?;
    let address = server.local_addr()?;
    say(stdout(), format_args!("Serving http://{address}/metrics"));
    loop {
        if let Err(error) = server.accept().and_then(|scrape| example.answer(scrape)) {
            // The error concerns one client only, so go on with the next.
            say(stderr(), format_args!("error: {error:#}"));
        }
    }
}

struct Example {
    registry: Registry,
    counters: [Counter; 2],
    gauges: [Gauge; 2],
    start: Instant,
    /// How many updates have been made.
    updates: u64,
}

impl Example {
    fn new() -> Result<Self> {
        let mut registry = Registry::new();
        Ok(Self {
            counters: [
                registry.counter("counter1", "Help for c1", &[("a", "1"), ("b", "1")])?,
                registry.counter("counter1", "Help for c1", &[("a", "1"), ("b", "2")])?,
            ],
            gauges: [
                registry.gauge("gauge1", "Help for g1", &[("a", "2"), ("b", "1")])?,
                registry.gauge("gauge1", "Help for g1", &[("a", "2"), ("b", "2")])?,
            ],
            registry,
            start: Instant::now(),
            updates: 0,
        })
    }

    fn answer(&mut self, scrape: Scrape) -> Result<()> {
        say(stdout(), scrape.request_line());
        self.catch_up(self.start.elapsed().as_secs());
        scrape.answer(&self.registry.render())
    }

    /// Makes the updates that are due after so many seconds: one at the start, and one each second.
    ///
    /// Nobody sees the values between two scrapes, so no second thread has to update them in time.
    fn catch_up(&mut self, seconds: u64) {
        let due = seconds + 1;
        if self.updates < due {
            say(stdout(), "Update metrics");
        }
        // After a long time without a scrape, an hour of updates is enough.
        for _ in 0..(due - self.updates).min(60 * 60) {
            self.update_metrics();
        }
        self.updates = due;
    }

    fn update_metrics(&self) {
        for counter in &self.counters {
            counter.inc_by(random());
        }
        for gauge in &self.gauges {
            if random() >= 0.5 {
                gauge.inc_by(random());
            } else {
                gauge.dec_by(random());
            }
        }
    }
}

/// Returns a random number that is at least 0 and less than 1.
///
/// std has no random numbers, but every new `RandomState` hashes with random keys. An `f64` has room
/// for 53 bits of such a hash.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Prints a line. Unlike `println!`, it does not panic if nobody reads the output.
fn say(mut stream: impl Write, line: impl Display) {
    let _ = writeln!(stream, "{line}");
}

const HELP: &str = "\
Serves two counters and two gauges to Prometheus, which take a random step every second.

Usage: metricmote [ADDRESS]

ADDRESS is PORT, HOST:PORT or [IPv6]:PORT. With port 0 the system chooses a free port.
Without ADDRESS the server listens on 127.0.0.1:8043.

  -h, --help     print this help
  -V, --version  print the version";

fn main() -> ExitCode {
    // `args` would panic on an argument that is not UTF-8.
    let arguments = args_os().map(|argument| argument.to_string_lossy().into_owned());
    let arguments: Vec<String> = arguments.skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let address = match words[..] {
        // Loopback, so that a first run is not open to the network.
        [] => "127.0.0.1:8043".to_owned(),
        ["-h" | "--help"] => return print(HELP),
        ["-V" | "--version"] => return print(concat!("metricmote ", env!("CARGO_PKG_VERSION"))),
        [port] if port.parse::<u16>().is_ok() => format!("127.0.0.1:{port}"),
        [address] if !address.starts_with('-') => address.to_owned(),
        _ => {
            let words = words.join(" ");
            return fail(2, anyhow!("{words:?} is not an ADDRESS (see --help)"));
        }
    };
    let Err(error) = serve(&address);
    fail(1, error)
}

fn print(text: &str) -> ExitCode {
    say(stdout(), text);
    ExitCode::SUCCESS
}

fn fail(exit_code: u8, error: Error) -> ExitCode {
    say(stderr(), format_args!("error: {error:#}"));
    ExitCode::from(exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_long_time_without_a_scrape_an_hour_of_updates_is_made() {
        let mut example = Example::new().unwrap();
        let mut growth = |seconds| {
            let before = example.counters[0].get();
            example.catch_up(seconds);
            example.counters[0].get() - before
        };
        assert!(growth(0) < 1.0);
        // 3,600 random steps add up to 1,800, give or take a hundred.
        let an_hour = 1_500.0..2_100.0;
        assert!(an_hour.contains(&growth(60 * 60)));
        assert!(an_hour.contains(&growth(100 * 24 * 60 * 60)));
        assert_eq!(growth(100 * 24 * 60 * 60), 0.0);
    }
}
