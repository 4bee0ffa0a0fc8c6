//! A mote-sized Prometheus metrics server: std, one thread, blocking calls, made to be read.
//!
//! A program keeps its numbers in a [`Registry`]. Every few seconds Prometheus connects and asks
//! for all of them over HTTP, which is called a *scrape*. The response is a text, the *exposition*:
//!
//! ```
//! use metricmote::Registry;
//!
//! fn main() -> anyhow::Result<()> {
//!     let mut registry = Registry::new();
//!     let done_by_a = registry.counter("jobs_total", "Jobs done.", &[("worker", "a")])?;
//!     let done_by_b = registry.counter("jobs_total", "Jobs done.", &[("worker", "b")])?;
//!     let running = registry.gauge("jobs_running", "Jobs being worked on.", &[])?;
//!
//!     done_by_a.inc_by(3.0);
//!     done_by_b.inc();
//!     running.set(2.0);
//!
//!     let exposition = [
//!         "# HELP jobs_running Jobs being worked on.",
//!         "# TYPE jobs_running gauge",
//!         "jobs_running 2",
//!         "# HELP jobs_total Jobs done.",
//!         "# TYPE jobs_total counter",
//!         "jobs_total{worker=\"a\"} 3",
//!         "jobs_total{worker=\"b\"} 1",
//!         "",
//!     ];
//!     assert_eq!(registry.render(), exposition.join("\n"));
//!     Ok(())
//! }
//! ```
//!
//! A [`MetricsServer`] serves that text over HTTP. Errors are meant to be printed, with `{:#}` to
//! include their causes, so most are [`anyhow::Error`]s.
//!
//! # Reading the source
//!
//! The program owns the loop. For each scrape it takes four steps, and neither the server nor the
//! registry knows of the other:
//!
//! ```text
//! 1. accept   the server waits for a client and reads its request
//! 2. update   the program changes its counters and gauges
//! 3. render   the registry writes all series as text
//! 4. answer   the server sends the text and closes the connection
//! ```
//!
//! The files are best read in the order in which a scrape reaches them:
//!
//! 1. `main.rs`: an example program with the loop above;
//! 2. `server.rs`: how one thread speaks HTTP with one client at a time;
//! 3. `budget.rs`: how long it waits for them, and why no client can stop it;
//! 4. `registry.rs`: which series may be registered, and how they are rendered;
//! 5. `exposition.rs`: how names, labels and values are written;
//! 6. `metric.rs`: the numbers, which any thread may change.

mod budget;
mod exposition;
mod metric;
mod registry;
mod server;

pub use metric::{Counter, Gauge};
pub use registry::Registry;
pub use server::{MetricsServer, Scrape};

/// Compiles the programs in the README as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
