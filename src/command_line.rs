//! The command line of the example.

use std::env::args_os;
use std::ffi::OsString;
use std::io::{stderr, stdout};
use std::process::ExitCode;

use crate::say;

const HELP: &str = "\
Serves two counters and two gauges to Prometheus, with an update for every second.

Usage: metricmote [ADDRESS]

ADDRESS is PORT, HOST:PORT or [IPv6]:PORT. Port 0 takes a free one.
Without it the server listens on 127.0.0.1:8043.

  -h, --help     print this help
  -V, --version  print the version";

/// The address to listen on, or the exit code where there is nothing to serve.
pub fn address() -> Result<String, ExitCode> {
    // Not `args`, which panics on an argument that is not UTF-8.
    let arguments: Vec<OsString> = args_os().skip(1).collect();
    let words: Option<Vec<&str>> = arguments.iter().map(|argument| argument.to_str()).collect();
    let address = match words.as_deref() {
        Some([]) => parse_address("8043"),
        Some(["-h" | "--help"]) => {
            say(stdout(), HELP);
            return Err(ExitCode::SUCCESS);
        }
        Some(["-V" | "--version"]) => {
            say(stdout(), concat!("metricmote ", env!("CARGO_PKG_VERSION")));
            return Err(ExitCode::SUCCESS);
        }
        Some([argument]) => parse_address(argument),
        _ => None,
    };
    address.ok_or_else(|| {
        say(
            stderr(),
            format_args!("error: {arguments:?} is not an ADDRESS, see --help"),
        );
        ExitCode::from(2)
    })
}

fn parse_address(argument: &str) -> Option<String> {
    // Loopback unless the user says otherwise: a first run is not open to the network.
    let (host, port) = argument.rsplit_once(':').unwrap_or(("127.0.0.1", argument));
    let port: u16 = port.parse().ok()?;
    let plain = !host.is_empty() && !host.starts_with('-') && !host.contains(':');
    let bracketed = host.starts_with('[') && host.ends_with(']');
    (plain || bracketed).then(|| format!("{host}:{port}"))
}
