//! Counters and gauges: handles to one number each, which any thread may change.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only goes up, such as the number of requests served. It starts at 0.
///
/// [`Registry::counter`](crate::Registry::counter) returns it. A clone is another handle to the
/// same number, and can be moved to another thread. Like all numbers in Prometheus it is an `f64`,
/// which can count in steps of 1 up to 2^53.
#[derive(Clone, Debug)]
pub struct Counter(pub(crate) Number);

impl Counter {
    /// Adds 1.
    pub fn inc(&self) {
        self.0.add(1.0);
    }

    /// Adds `amount`, which may be infinite. If the amount comes from elsewhere, check first that
    /// it is not negative, for example by parsing it as an unsigned integer.
    ///
    /// # Panics
    ///
    /// Panics if `amount` is negative or NaN. The counter keeps its value then. If a counter
    /// dropped, Prometheus would assume that the program has restarted, so "Writing client
    /// libraries" demands that it cannot drop.
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
/// [`Registry::gauge`](crate::Registry::gauge) returns it. It can be cloned and shared between
/// threads like a [`Counter`].
#[derive(Clone, Debug)]
pub struct Gauge(pub(crate) Number);

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

/// The value of a series, which the registry shares with the handles. It is stored as the bits of
/// an `f64`, because std has no atomic `f64`.
///
/// The order in which other threads see the changes of two numbers does not matter, so `Relaxed` is
/// enough.
#[derive(Clone, Default)]
pub(crate) struct Number(Arc<AtomicU64>);

impl Number {
    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Adds `amount`, and tries again if another thread has changed the number meanwhile.
    fn add(&self, amount: f64) {
        let sum = |bits| Some((f64::from_bits(bits) + amount).to_bits());
        // It fails only if `sum` returns `None`.
        let _ = self.0.fetch_update(Relaxed, Relaxed, sum);
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
