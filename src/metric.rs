//! Counters and gauges: handles to one number each, which any thread may change.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only goes up, such as requests served. It starts at 0.
///
/// Made by [`Registry::counter`](crate::Registry::counter). A clone is another handle to the same
/// number, and every thread of a program may hold one. Like all numbers of Prometheus it is an
/// `f64`, which counts by ones exactly up to 2^53.
#[derive(Clone, Debug)]
pub struct Counter(pub(crate) Number);

impl Counter {
    /// Adds 1.
    pub fn inc(&self) {
        self.0.add(1.0);
    }

    /// Adds `amount`. Infinity is allowed, and final.
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

/// A number that goes up and down, such as a temperature. It starts at 0.
///
/// Made by [`Registry::gauge`](crate::Registry::gauge), and shared and cloned like a [`Counter`].
#[derive(Clone, Debug)]
pub struct Gauge(pub(crate) Number);

impl Gauge {
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

/// What a registry and its handles share: the bits of an `f64`, as std has no atomic `f64`.
///
/// `Relaxed`: another thread may see the changes of two numbers in either order, which does no harm.
#[derive(Clone, Default)]
pub(crate) struct Number(Arc<AtomicU64>);

impl Number {
    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Adds, and does it again where another thread has changed the number meanwhile. It cannot fail, as
    /// there is always a sum.
    fn add(&self, amount: f64) {
        let sum = |bits| Some((f64::from_bits(bits) + amount).to_bits());
        let _ = self.0.fetch_update(Relaxed, Relaxed, sum);
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
