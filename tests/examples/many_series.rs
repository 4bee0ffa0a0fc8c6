//! Serves so many series: `cargo run --example many_series -- ADDRESS SERIES`. For trying how large
//! answers fare, as `tests/slow_link.sh` does.

use std::env;
use std::io::{Write, stderr};

use anyhow::{Context, Result};
use metricmote::{MetricsServer, Registry};

fn main() -> Result<()> {
    let usage = "usage: many_series ADDRESS SERIES";
    let address = env::args().nth(1).context(usage)?;
    let series: usize = env::args().nth(2).context(usage)?.parse()?;

    let mut registry = Registry::new();
    for number in 0..series {
        let labels = [
            ("method", "get"),
            ("path", &*format!("/api/v1/items/{number:012}")),
        ];
        registry
            .counter("http_requests_total", "Requests served.", &labels)?
            .inc_by(number as f64);
    }
    let mut server = MetricsServer::bind(address)?;
    loop {
        let served = server
            .accept()
            .and_then(|scrape| scrape.answer(&registry.render()));
        if let Err(error) = served {
            let _ = writeln!(stderr(), "{error:#}");
        }
    }
}
