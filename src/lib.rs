//! A mote-sized Prometheus metrics server: std, one thread, blocking, made to be read.
//!
//! A program keeps its numbers in a [`Registry`]. Now and then Prometheus connects and asks for all
//! of them over HTTP, which is a *scrape*. The answer is text, the *exposition*:
//!
//! ```
//! let mut registry = metricmote::Registry::new();
//! let done_by_a = registry.counter("jobs_total", "Jobs done.", &[("worker", "a")])?;
//! let done_by_b = registry.counter("jobs_total", "Jobs done.", &[("worker", "b")])?;
//! let running = registry.gauge("jobs_running", "Jobs in hand.", &[])?;
//!
//! done_by_a.inc_by(3.0);
//! done_by_b.inc();
//! running.set(2.0);
//!
//! let exposition = [
//!     "# HELP jobs_total Jobs done.",
//!     "# TYPE jobs_total counter",
//!     "jobs_total{worker=\"a\"} 3",
//!     "jobs_total{worker=\"b\"} 1",
//!     "# HELP jobs_running Jobs in hand.",
//!     "# TYPE jobs_running gauge",
//!     "jobs_running 2",
//!     "",
//! ];
//! assert_eq!(registry.render(), exposition.join("\n"));
//! # anyhow::Ok(())
//! ```
//!
//! [`MetricsServer`] puts that on the network. Errors are sentences to print, with `{:#}` for
//! their causes too, and not cases to match: [`anyhow::Error`]s, but for those of `bind` and `local_addr`.
//!
//! # Reading the source
//!
//! This is a scrape. The program owns the loop; the server and the registry do not know each other:
//!
//! ```text
//! Prometheus       main.rs        server.rs     registry.rs     metric.rs
//!     |               |---accept----->|              |              |
//!     |----------GET /metrics-------->|              |              |
//!     |               |<--Scrape------|              |              |
//!     |               |------------------inc, set------------------>|
//!     |               |-----------render------------>|-----get----->|
//!     |               |<-----------text--------------|<----f64------|
//!     |               |-answer(text)->|              |              |
//!     |<---200, headers, text---------|              |              |
//! ```
//!
//! The files are best read in the order in which it meets them:
//!
//! 1. `main.rs`, an example program: what it measures, and the loop that serves it;
//! 2. `server.rs`: how one thread answers HTTP, one client at a time;
//! 3. `patience.rs`: how long it waits for each, and why no client can stop it;
//! 4. `registry.rs`: what may be registered, and the list that a scrape walks;
//! 5. `exposition.rs`: how names, labels and values are written;
//! 6. `metric.rs`: the numbers, which any thread may change meanwhile.

#![forbid(unsafe_code)]

#[cfg(not(target_has_atomic = "64"))]
compile_error!("metricmote needs 64-bit atomics, and this target has none");

mod exposition;
mod metric;
mod patience;
mod registry;
mod server;

pub use metric::{Counter, Gauge};
pub use registry::Registry;
pub use server::{MetricsServer, Scrape};

/// The programs in the README are tested like those in the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
