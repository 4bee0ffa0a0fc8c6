//! Counters and gauges: handles to one number each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A value that only goes up, such as requests served; it starts at 0.
///
/// Like every value it is an `f64`, which counts by ones exactly up to 2^53.
///
/// Made by [`Registry::counter`](crate::Registry::counter). A clone is another handle to the same
/// number, and every thread of a program may hold one.
#[derive(Clone, Debug)]
pub struct Counter(Value);

impl Counter {
    pub(crate) fn new(value: Value) -> Self {
        Self(value)
    }

    /// Adds 1.
    pub fn inc(&self) {
        self.0.add(1.0);
    }

    /// Adds `amount`.
    ///
    /// # Panics
    ///
    /// If `amount` is negative or NaN; the counter keeps its value. Prometheus takes a fall for a
    /// restart of the program and computes every rate from that, so "Writing client libraries"
    /// wants a counter that cannot fall.
    pub fn inc_by(&self, amount: f64) {
        assert!(amount >= 0.0, "a counter cannot be increased by {amount}");
        self.0.add(amount);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// A value that goes up and down, such as a temperature; it starts at 0.
///
/// Made by [`Registry::gauge`](crate::Registry::gauge). A clone is another handle to the same
/// number, and every thread of a program may hold one.
#[derive(Clone, Debug)]
pub struct Gauge(Value);

impl Gauge {
    pub(crate) fn new(value: Value) -> Self {
        Self(value)
    }

    /// Sets the value; NaN and the infinities are values like any other.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Adds 1.
    pub fn inc(&self) {
        self.0.add(1.0);
    }

    /// Adds `amount`.
    pub fn inc_by(&self, amount: f64) {
        self.0.add(amount);
    }

    /// Subtracts 1.
    pub fn dec(&self) {
        self.0.add(-1.0);
    }

    /// Subtracts `amount`.
    pub fn dec_by(&self, amount: f64) {
        self.0.add(-amount);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// The number itself, shared by the handles of the program and the registry that renders it.
///
/// std has no atomic `f64`, so the atomic holds its bits. `Relaxed` is enough: a sample is one
/// number, and nothing else is read on the strength of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value(Arc<AtomicU64>);

impl Value {
    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Adds, and tries again when another thread has changed the number meanwhile.
    fn add(&self, amount: f64) {
        let mut seen = self.0.load(Relaxed);
        while let Err(now) = self.0.compare_exchange_weak(
            seen,
            (f64::from_bits(seen) + amount).to_bits(),
            Relaxed,
            Relaxed,
        ) {
            seen = now;
        }
    }
}
