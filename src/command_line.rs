//! The command line of the example.

use std::env::args_os;
use std::net::SocketAddrV6;

use anyhow::{Result, bail};

const HELP: &str = "\
Serves two counters and two gauges to Prometheus, with an update for every second.

Usage: metricmote [ADDRESS]

ADDRESS is PORT, HOST:PORT or [IPv6]:PORT. Port 0 takes a free one.
Without it the server listens on 127.0.0.1:8043.

  -h, --help     print this help
  -V, --version  print the version";

/// What the command line asks for.
pub enum Command {
    /// To listen on this address.
    Serve(String),
    /// To print this, and end.
    Print(&'static str),
}

pub fn parse() -> Result<Command> {
    // `args` would panic on an argument that is not UTF-8.
    let arguments = args_os().map(|argument| argument.to_string_lossy().into_owned());
    let arguments: Vec<String> = arguments.skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Ok(match words[..] {
        // Loopback unless the user says otherwise: a first run is not open to the network.
        [] => Command::Serve("127.0.0.1:8043".to_owned()),
        [port] if is_port(port) => Command::Serve(format!("127.0.0.1:{port}")),
        [address] if is_address(address) => Command::Serve(address.to_owned()),
        ["-h" | "--help"] => Command::Print(HELP),
        ["-V" | "--version"] => Command::Print(concat!("metricmote ", env!("CARGO_PKG_VERSION"))),
        _ => bail!(
            "{:?} is not an ADDRESS: PORT, HOST:PORT or [IPv6]:PORT (see --help)",
            words.join(" ")
        ),
    })
}

fn is_port(word: &str) -> bool {
    // `parse` alone would take +80.
    word.bytes().all(|byte| byte.is_ascii_digit()) && word.parse::<u16>().is_ok()
}

fn is_address(word: &str) -> bool {
    let (host, port) = word.split_once(':').unwrap_or_default();
    // An option that there is not, such as `-x:80`, is no host.
    let is_host = !host.is_empty()
        && !host.starts_with('-')
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_host && is_port(port) || word.parse::<SocketAddrV6>().is_ok()
}
