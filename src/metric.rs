//! Counters and gauges: handles to one number each.

use std::fmt;
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
#[derive(Clone)]
pub(crate) struct Value {
    block: Arc<Block>,
    slot: u8,
}

/// As many numbers as a `u8` tells apart, so that every slot has one.
///
/// Numbers that lie side by side are read faster than those that have an `Arc` each: 100,000 changed
/// series are rendered in two thirds of the time.
type Block = [AtomicU64; 256];

impl Value {
    /// The number beside this one, or the first of a new block. In a new block all are 0.
    pub(crate) fn next(&self) -> Self {
        match self.slot.checked_add(1) {
            Some(slot) => Self {
                block: Arc::clone(&self.block),
                slot,
            },
            None => Self::default(),
        }
    }

    fn bits(&self) -> &AtomicU64 {
        // Eight numbers share a cache line. Rotated, each slot is in another line than the next, so
        // that threads that change neighbouring series do not take the line from each other.
        &self.block[usize::from(self.slot.rotate_left(3))]
    }

    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.bits().load(Relaxed))
    }

    fn set(&self, value: f64) {
        self.bits().store(value.to_bits(), Relaxed);
    }

    /// Adds, and tries again when another thread has changed the number meanwhile.
    fn add(&self, amount: f64) {
        let mut seen = self.bits().load(Relaxed);
        while let Err(now) = self.bits().compare_exchange_weak(
            seen,
            (f64::from_bits(seen) + amount).to_bits(),
            Relaxed,
            Relaxed,
        ) {
            seen = now;
        }
    }
}

impl Default for Value {
    fn default() -> Self {
        Self {
            block: Arc::new([const { AtomicU64::new(0) }; 256]),
            slot: 0,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
