//! The example: two counters, two gauges, one server, an update for every second.

#![forbid(unsafe_code)]

mod command_line;

use std::convert::Infallible;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use command_line::Command;
use metricmote::{Counter, Gauge, MetricsServer, Registry};

fn main() -> ExitCode {
    match command_line::parse() {
        Command::Serve(address) => {
            let Err(error) = serve(&address);
            say(stderr(), format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
        Command::Print(text) => {
            say(stdout(), text);
            ExitCode::SUCCESS
        }
        Command::Refuse(error) => {
            say(stderr(), format_args!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Returns only if it cannot start.
fn serve(address: &str) -> Result<Infallible> {
    let mut registry = Registry::new();
    let counters = [
        registry.counter("counter1", "Help for c1", &[("a", "1"), ("b", "1")])?,
        registry.counter("counter1", "Help for c1", &[("a", "1"), ("b", "2")])?,
    ];
    let gauges = [
        registry.gauge("gauge1", "Help for g1", &[("a", "2"), ("b", "1")])?,
        registry.gauge("gauge1", "Help for g1", &[("a", "2"), ("b", "2")])?,
    ];
    let mut server =
        MetricsServer::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let address = server.local_addr()?;
    say(stdout(), format_args!("Serving http://{address}/metrics"));

    let mut next_update = Instant::now();
    loop {
        let served = server.accept().and_then(|scrape| {
            say(stdout(), scrape.request_line());
            let now = Instant::now();
            if next_update <= now {
                say(stdout(), "Update metrics");
            }
            while next_update <= now {
                update_metrics(&counters, &gauges);
                next_update += Duration::from_secs(1);
            }
            scrape.answer(&mut registry)
        });
        if let Err(error) = served {
            say(stderr(), format_args!("error: {error:#}"));
        }
    }
}

fn update_metrics(counters: &[Counter], gauges: &[Gauge]) {
    for counter in counters {
        counter.inc_by(random());
    }
    for gauge in gauges {
        if random() >= 0.5 {
            gauge.inc_by(random());
        } else {
            gauge.dec_by(random());
        }
    }
}

/// At least 0 and less than 1. std has no random numbers, but every new `RandomState` has keys of
/// its own, and a hash of nothing depends on them alone.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Prints a line. `println!` would panic as soon as nobody reads what it prints.
fn say(mut stream: impl Write, line: impl Display) {
    let _ = writeln!(stream, "{line}");
}
