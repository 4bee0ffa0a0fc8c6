//! Counters and gauges: handles to one value each, which any thread may change.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only goes up, such as the number of requests served. It starts at 0.
///
/// [`Registry::counter`](crate::Registry::counter) returns it. A clone is another handle to the
/// same number, and can be moved to another thread. Like all numbers in Prometheus it is an `f64`,
/// which has all whole numbers up to 2^53. Beyond that, adding 1 may change nothing.
#[derive(Clone, Debug)]
pub struct Counter(pub(crate) Value);

impl Counter {
    /// Adds 1.
    pub fn inc(&self) {
        self.0.add(1.0);
    }

    /// Adds `amount`, which may be infinite.
    ///
    /// If the amount comes from outside the program, check that it is not negative. For example,
    /// parse it as an unsigned integer.
    ///
    /// # Panics
    ///
    /// Panics if `amount` is negative or NaN. The counter keeps its value then. If a counter
    /// dropped, Prometheus would assume that the program has restarted, so the guidelines [Writing
    /// client libraries](https://prometheus.io/docs/instrumenting/writing_clientlibs/) forbid it.
    pub fn inc_by(&self, amount: f64) {
        assert!(amount >= 0.0, "a counter cannot be increased by {amount}");
        self.0.add(amount);
    }

    /// Returns the current value.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// A number that goes up and down, such as a temperature. It starts at 0.
///
/// [`Registry::gauge`](crate::Registry::gauge) returns it. It can be cloned and moved to other
/// threads like a [`Counter`].
#[derive(Clone, Debug)]
pub struct Gauge(pub(crate) Value);

impl Gauge {
    /// Sets the value, which may be infinite or NaN.
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

    /// Returns the current value.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// The value of a series, which the registry and the handles share.
///
/// std has atomic integers but no atomic `f64`, so it is stored as the 64 bits of an `f64`. The
/// ordering `Relaxed` is enough, because it does not matter in which order other threads see the
/// changes of two different values.
#[derive(Clone, Default)]
pub(crate) struct Value(Arc<AtomicU64>);

impl Value {
    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Adds `amount`. If another thread changes the value at the same time, `fetch_update` tries
    /// again.
    fn add(&self, amount: f64) {
        let add = |bits| Some((f64::from_bits(bits) + amount).to_bits());
        // It fails only if the closure returns `None`.
        let _ = self.0.fetch_update(Relaxed, Relaxed, add);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
