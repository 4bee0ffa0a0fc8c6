//! Serves a large exposition: `cargo run --example many_series ADDRESS SERIES [METHOD]`. The tests use
//! it to see how large responses and odd labels fare.

use std::env;
use std::io::{Write, stderr};

use anyhow::{Context, Result};
use metricmote::{MetricsServer, Registry};

fn main() -> Result<()> {
    let usage = "usage: many_series ADDRESS SERIES [METHOD]";
    let address = env::args().nth(1).context(usage)?;
    let series: usize = env::args().nth(2).context(usage)?.parse()?;
    let method = env::args().nth(3).unwrap_or("get".to_owned());

    let mut registry = Registry::new();
    for number in 0..series {
        let path = format!("/api/v1/items/{number:012}");
        let labels = [("method", method.as_str()), ("path", path.as_str())];
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
