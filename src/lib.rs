//! A mote-sized Prometheus metrics server: std, one thread, blocking, made to be read.
//!
//! A program keeps its numbers in a [`Registry`]. Prometheus connects now and then and asks for
//! them over HTTP: that is a *scrape*. The answer, all *series* of all *families* with their
//! values at that moment, is the *exposition*:
//!
//! ```
//! let mut registry = metricmote::Registry::new();
//! let help = "Requests served.";
//! let gets = registry.counter("http_requests_total", help, &[("method", "GET")])?;
//! let posts = registry.counter("http_requests_total", help, &[("method", "POST")])?;
//! let room = registry.gauge("room_temperature_celsius", "Temperature of the room.", &[])?;
//!
//! gets.inc_by(3.0);
//! posts.inc();
//! room.set(20.5);
//!
//! let exposition = [
//!     "# HELP http_requests_total Requests served.",
//!     "# TYPE http_requests_total counter",
//!     "http_requests_total{method=\"GET\"} 3",
//!     "http_requests_total{method=\"POST\"} 1",
//!     "# HELP room_temperature_celsius Temperature of the room.",
//!     "# TYPE room_temperature_celsius gauge",
//!     "room_temperature_celsius 20.5",
//!     "",
//! ];
//! assert_eq!(registry.render(), exposition.join("\n"));
//! # anyhow::Ok(())
//! ```
//!
//! [`MetricsServer`] puts that on the network.
//!
//! # Reading the source
//!
//! A scrape goes one way through the files, and they are best read in that order:
//!
//! 1. `main.rs`, an example program: what it measures, and the loop that serves it;
//! 2. `server.rs`: how one thread answers HTTP, one client at a time, and is held up by none;
//! 3. `registry.rs`: what may be registered, and how it becomes text;
//! 4. `metric.rs`: the numbers, which any thread may change meanwhile.

#![forbid(unsafe_code)]

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
