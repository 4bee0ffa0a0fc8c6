//! A program whose threads do jobs, and that serves how many they have done.

use std::io::{Write, stderr};
use std::thread;
use std::time::Duration;

use metricmote::{MetricsServer, Registry};

fn main() -> anyhow::Result<()> {
    let mut registry = Registry::new();
    let running = registry.gauge("jobs_running", "Jobs being worked on.", &[])?;
    for worker in ["a", "b"] {
        let done = registry.counter("jobs_total", "Jobs done.", &[("worker", worker)])?;
        let running = running.clone();
        thread::spawn(move || {
            loop {
                running.inc();
                thread::sleep(Duration::from_millis(100));
                running.dec();
                done.inc();
            }
        });
    }

    let mut server = MetricsServer::bind("127.0.0.1:8043")?;
    loop {
        let served = server
            .accept()
            .and_then(|scrape| scrape.answer(&registry.render()));
        if let Err(error) = served {
            // Unlike eprintln!, this does not panic if nobody reads the output.
            let _ = writeln!(stderr(), "{error:#}");
        }
    }
}
