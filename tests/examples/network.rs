//! An exporter, which has no numbers of its own: it reads those of Linux at each scrape.

use std::fs;
use std::io::{Write, stderr};

use anyhow::{Context, Result};
use metricmote::{MetricsServer, Registry};

fn main() -> Result<()> {
    let mut server = MetricsServer::bind("127.0.0.1:8043")?;
    loop {
        let served = server
            .accept()
            .and_then(|scrape| match received("/proc/net/dev") {
                Ok(registry) => scrape.answer(&registry.render()),
                Err(error) => scrape.fail(&format!("{error:#}")),
            });
        if let Err(error) = served {
            let _ = writeln!(stderr(), "{error:#}");
        }
    }
}

/// Reads from Linux what each network device has received so far.
pub fn received(path: &str) -> Result<Registry> {
    let table = fs::read_to_string(path).context("cannot read the devices")?;
    let mut registry = Registry::new();
    for line in table.lines().skip(2) {
        let (device, numbers) = line.split_once(':').context("a line without a device")?;
        let bytes = numbers.split_whitespace().next().context("no number")?;
        // `inc_by` panics if a number is negative or NaN, which an unsigned integer cannot be.
        let bytes: u64 = bytes.parse().with_context(|| format!("{bytes:?} bytes"))?;
        let (name, help) = ("network_receive_bytes_total", "Bytes received.");
        registry
            .counter(name, help, &[("device", device.trim())])?
            .inc_by(bytes as f64);
    }
    Ok(registry)
}
