//! The command line of the example.

use std::env::args_os;
use std::ffi::{OsStr, OsString};

const VERSION: &str = concat!("metricmote ", env!("CARGO_PKG_VERSION"));

const HELP: &str = "\
Serves two counters and two gauges to Prometheus, with an update for every second.

Usage: metricmote [ADDRESS]

ADDRESS is PORT, HOST:PORT or [IPv6]:PORT. Port 0 takes a free one.
Without it the server listens on 127.0.0.1:8043.

  -h, --help     print this help
  -V, --version  print the version";

/// What the command line asks for.
pub enum Command {
    Serve(String),
    Print(&'static str),
    /// Why nothing can be done.
    Refuse(String),
}

pub fn parse() -> Command {
    // Not `args`, which panics on an argument that is not UTF-8.
    let arguments: Vec<OsString> = args_os().skip(1).collect();
    let words: Option<Vec<&str>> = arguments.iter().map(|argument| argument.to_str()).collect();
    let address = match words.as_deref() {
        Some([]) => parse_address("8043"),
        Some(["-h" | "--help"]) => return Command::Print(HELP),
        Some(["-V" | "--version"]) => return Command::Print(VERSION),
        Some([argument]) => parse_address(argument),
        _ => None,
    };
    address.map_or_else(
        || {
            let given = arguments.join(OsStr::new(" "));
            Command::Refuse(format!(
                "{given:?} is not an ADDRESS: PORT, HOST:PORT or [IPv6]:PORT"
            ))
        },
        Command::Serve,
    )
}

fn parse_address(argument: &str) -> Option<String> {
    // Loopback unless the user says otherwise: a first run is not open to the network.
    let (host, port) = argument.rsplit_once(':').unwrap_or(("127.0.0.1", argument));
    let port: u16 = port.parse().ok()?;
    // `-x:80` is an option that there is not, and `::1:80` could mean two things.
    let plain = !host.is_empty() && !host.starts_with('-') && !host.contains(':');
    let bracketed = host.starts_with('[') && host.ends_with(']');
    (plain || bracketed).then(|| format!("{host}:{port}"))
}
