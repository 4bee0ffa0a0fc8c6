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
    /// Its place among all values of the registry.
    pub(crate) index: usize,
}

impl Value {
    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(bits(&self.block, self.index).load(Relaxed))
    }

    fn set(&self, value: f64) {
        bits(&self.block, self.index).store(value.to_bits(), Relaxed);
    }

    /// Adds, and tries again when another thread has changed the number meanwhile.
    fn add(&self, amount: f64) {
        let bits = bits(&self.block, self.index);
        let mut seen = bits.load(Relaxed);
        while let Err(now) = bits.compare_exchange_weak(
            seen,
            (f64::from_bits(seen) + amount).to_bits(),
            Relaxed,
            Relaxed,
        ) {
            seen = now;
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// All values of a registry.
///
/// They lie side by side in blocks, where a scrape finds them faster than in an `Arc` each: it
/// renders 100,000 changed series in two thirds of the time.
#[derive(Debug, Default)]
pub(crate) struct Values {
    blocks: Vec<Arc<Block>>,
    count: usize,
}

impl Values {
    /// Adds a value, which is 0.
    pub(crate) fn add(&mut self) -> Value {
        let index = self.count;
        if index % 256 == 0 {
            self.blocks
                .push(Arc::new([const { AtomicU64::new(0) }; 256]));
        }
        self.count += 1;
        Value {
            block: Arc::clone(&self.blocks[index / 256]),
            index,
        }
    }

    pub(crate) fn get(&self, index: usize) -> f64 {
        f64::from_bits(bits(&self.blocks[index / 256], index).load(Relaxed))
    }
}

/// As many as a `u8` tells apart, so that the last byte of an index always finds its value.
type Block = [AtomicU64; 256];

fn bits(block: &Block, index: usize) -> &AtomicU64 {
    // Eight numbers share a cache line. The rotation puts each value into another line than the
    // next, so that threads that change neighbouring series do not take the line from each other.
    &block[usize::from((index as u8).rotate_left(3))]
}
