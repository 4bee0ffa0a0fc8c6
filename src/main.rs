//! The example: two counters, two gauges, one server, an update for every second.

#![forbid(unsafe_code)]

mod command_line;

use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use command_line::Command;
use metricmote::{Counter, Gauge, MetricsServer, Registry};

fn main() -> ExitCode {
    let (outcome, code) = match command_line::parse() {
        // `serve` returns only if it cannot start.
        Ok(Command::Serve(address)) => (serve(&address), 1),
        Ok(Command::Print(text)) => {
            say(stdout(), text);
            (Ok(()), 0)
        }
        Err(error) => (Err(error), 2),
    };
    if let Err(error) = outcome {
        // `:#` adds the causes.
        say(stderr(), format_args!("error: {error:#}"));
    }
    ExitCode::from(code)
}

fn serve(address: &str) -> Result<()> {
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

    let start = Instant::now();
    let mut made = 0;
    loop {
        let served = server.accept().and_then(|scrape| {
            say(stdout(), scrape.request_line());
            let due = start.elapsed().as_secs() + 1;
            if made < due {
                say(stdout(), "Update metrics");
            }
            for _ in 0..missed_updates(made, due) {
                update_metrics(&counters, &gauges);
            }
            made = due;
            scrape.answer(registry.render())
        });
        // A client that hung up is no reason to stop.
        if let Err(error) = served {
            say(stderr(), format_args!("error: {error:#}"));
        }
    }
}

/// How many updates to catch up with: one is due at the start, and one for each second since. Nobody
/// sees a value between two scrapes, so one thread is enough. After a long time without a scrape
/// an hour's updates will do.
fn missed_updates(made: u64, due: u64) -> u64 {
    (due - made).min(60 * 60)
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

/// At least 0 and less than 1, from 53 bits. std has no random numbers, but every new `RandomState`
/// has keys of its own, and a hash of nothing depends on them alone.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Prints a line. `println!` would panic as soon as nobody reads what it prints.
fn say(mut stream: impl Write, line: impl Display) {
    let _ = writeln!(stream, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_due_for_every_second_but_for_an_hour_at_most() {
        assert_eq!(missed_updates(0, 1), 1);
        assert_eq!(missed_updates(5, 5), 0);
        assert_eq!(missed_updates(1, 3601), 3600);
        assert_eq!(missed_updates(1, 100 * 24 * 3600), 3600);
    }
}
