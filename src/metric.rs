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

/// Where a handle finds its number: in a block, which the registry shares.
#[derive(Clone)]
pub(crate) struct Value {
    block: Arc<Block>,
    /// Its index among all values of the registry.
    pub(crate) index: usize,
}

impl Value {
    fn get(&self) -> f64 {
        f64::from_bits(number(&self.block, self.index).load(Relaxed))
    }

    fn set(&self, value: f64) {
        number(&self.block, self.index).store(value.to_bits(), Relaxed);
    }

    /// Adds, and tries again when another thread has changed the number meanwhile.
    fn add(&self, amount: f64) {
        let number = number(&self.block, self.index);
        let mut seen = number.load(Relaxed);
        while let Err(now) = number.compare_exchange_weak(
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

/// All values of a registry, in blocks.
///
/// A scrape reads them faster than from an `Arc` each: 100,000 series, a tenth of them changed, are
/// rendered in two thirds of the time.
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
        f64::from_bits(number(&self.blocks[index / 256], index).load(Relaxed))
    }
}

/// 256 numbers. Which of them is a value's the last byte of its index tells.
///
/// std has no atomic `f64`, so the atomics hold the bits. `Relaxed` is enough: a sample is one
/// number, and nothing else is read on the strength of it.
type Block = [AtomicU64; 256];

fn number(block: &Block, index: usize) -> &AtomicU64 {
    // A cache line, mostly of 64 bytes, holds eight numbers. The rotation puts neighbours into
    // different lines, so that threads that change them do not slow each other down.
    &block[usize::from((index as u8).rotate_left(3))]
}
