//! An exporter: it has no numbers of its own, and reads those of Linux at every scrape.

use std::fs;
use std::io::{Write, stderr};

use anyhow::{Context, Result};
use metricmote::{MetricsServer, Registry};

fn main() -> Result<()> {
    let mut server = MetricsServer::bind("127.0.0.1:8043")?;
    loop {
        let served = server.accept().and_then(|scrape| match received() {
            Ok(registry) => scrape.answer(&registry.render()),
            Err(error) => scrape.fail(&format!("{error:#}")),
        });
        if let Err(error) = served {
            let _ = writeln!(stderr(), "{error:#}");
        }
    }
}

/// What each network device of a Linux system has received until now.
fn received() -> Result<Registry> {
    let table = fs::read_to_string("/proc/net/dev").context("cannot read the devices")?;
    let mut registry = Registry::new();
    for line in table.lines().skip(2) {
        let (device, numbers) = line.split_once(':').context("no device in a line")?;
        let bytes = numbers.split_whitespace().next().context("no number")?;
        let (name, help) = ("network_receive_bytes_total", "Bytes received.");
        registry
            .counter(name, help, &[("device", device.trim())])?
            .inc_by(bytes.parse()?);
    }
    Ok(registry)
}
