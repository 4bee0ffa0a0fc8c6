//! The example: two counters and two gauges, which take a random step every second.

use std::env::args_os;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use metricmote::{Counter, Gauge, MetricsServer, Registry};

/// Serves the example. Returns only if it cannot start.
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
        MetricsServer::bind(address).with_context(|| format!("cannot listen on {address:?}"))?;
    let url = format!("http://{}/metrics", server.local_addr()?);
    say(stdout(), format!("Serving {url}"));

    let start = Instant::now();
    let mut updates = 0;
    loop {
        let served = server.accept().and_then(|scrape| {
            say(stdout(), scrape.request_line());
            // One update is due at the start, and then one each second. Nobody sees the values
            // between two scrapes, so the updates can wait until the next scrape.
            let due = start.elapsed().as_secs() + 1;
            if updates < due {
                say(stdout(), "Update metrics");
            }
            for _ in 0..missed_updates(updates, due) {
                update_metrics(&counters, &gauges);
            }
            updates = due;
            scrape.answer(&registry.render())
        });
        if let Err(error) = served {
            // The error concerns one client only, so go on with the next.
            say(stderr(), format!("error: {error:#}"));
        }
    }
}

/// Returns how many updates to make, but no more than those of one hour. Otherwise the first scrape
/// after months would have to wait for millions of updates.
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

/// Returns a random number that is at least 0 and less than 1.
///
/// std has no random numbers. But each new `RandomState` hashes with a random key, so even the hash
/// of no data is random. An `f64` has a precision of 53 bits, so take 53 of the 64 bits of the
/// hash, and divide them by 2^53.
fn random() -> f64 {
    let hash = RandomState::new().build_hasher().finish();
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// Prints a line. Unlike `println!`, it does not panic if nobody reads the output.
fn say(mut stream: impl Write, line: impl Display) {
    let _ = writeln!(stream, "{line}");
}

const HELP: &str = "\
Serves two counters and two gauges to Prometheus, which take a random step every second.

Usage: metricmote [ADDRESS | -h | --help | -V | --version]

ADDRESS is PORT, HOST:PORT or [IPv6]:PORT. With port 0 the system chooses a free port.
Without ADDRESS the server listens on 127.0.0.1:8043.";

fn main() -> ExitCode {
    // `args` would panic on an argument that is not UTF-8.
    let arguments = args_os().map(|argument| argument.to_string_lossy().into_owned());
    let arguments: Vec<String> = arguments.skip(1).collect();
    // A pattern can match a `&str`, but not a `String`.
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        // The loopback address, so that a first run is not open to the network.
        [] => serve("127.0.0.1:8043"),
        [port] if port.parse::<u16>().is_ok() => serve(&format!("127.0.0.1:{port}")),
        [address] if !address.starts_with('-') => serve(address),
        ["-h" | "--help"] => return print(HELP),
        ["-V" | "--version"] => return print(concat!("metricmote ", env!("CARGO_PKG_VERSION"))),
        _ => {
            let error = format!("error: unexpected {words:?} (see --help)");
            say(stderr(), error);
            return ExitCode::from(2);
        }
    };
    // `serve` returns only with an error.
    if let Err(error) = result {
        say(stderr(), format!("error: {error:#}"));
    }
    ExitCode::FAILURE
}

fn print(text: &str) -> ExitCode {
    say(stdout(), text);
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_due_every_second_but_those_of_an_hour_are_enough() {
        assert_eq!(missed_updates(0, 1), 1);
        assert_eq!(missed_updates(5, 5), 0);
        assert_eq!(missed_updates(1, 3601), 3600);
        assert_eq!(missed_updates(1, 100 * 24 * 3600), 3600);
    }
}
