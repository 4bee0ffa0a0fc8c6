//! How long the server waits for its clients.
//!
//! There is only one thread, so while the server waits for one client, all others wait as well. A
//! time-out for each client is not enough: if a hundred clients connect and say nothing, a time-out
//! of one second still stops the server for a hundred seconds.
//!
//! That is why all clients together spend one *budget* of time, a token bucket:
//!
//! 1. Waiting for a client takes time out of the budget. If nothing is left, the client is dropped.
//! 2. Each client that connects adds a small allowance. So even if others have emptied the budget,
//!    the server can wait for this client for a moment.
//! 3. While no client is connected, the server is idle, and each idle second adds ten seconds. So
//!    honest clients may be slow: even if the server waits for them for nine tenths of the time,
//!    the budget does not run dry.
//! 4. The budget never holds more than its full amount, and a single wait takes at most half of
//!    that, so that one silent client cannot use up everything.
//!
//! There are two such budgets, one for reading requests and one for writing responses, so that
//! clients which send nothing do not use up the time that a large response needs:
//!
//! |         | full budget | longest wait | allowance |
//! | ------- | ----------- | ------------ | --------- |
//! | reading | 1.2 s       | 0.6 s        | 8 ms      |
//! | writing | 3 s         | 1.5 s        | 16 ms     |
//!
//! # How long a scrape may take
//!
//! While one client is served, the kernel queues up to 129 others. (std asks for a queue of 128,
//! and Linux adds one.) Suppose that a scrape comes last in this queue, and that everyone before it
//! misbehaves. The server is not idle until it has served them all, so they can spend the two full
//! budgets and their allowances, but no more. In this sum each allowance is 8 ms longer, because
//! the kernel may end a wait that much too late:
//!
//! ```text
//! reading  1.2 s + 129 × 16 ms = 3.3 s
//! writing  3.0 s + 129 × 24 ms = 6.1 s
//!                                9.4 s
//! ```
//!
//! Prometheus waits for 10 s unless it is configured otherwise. Sending or reading a byte now and
//! then does not help an attacker, because many short waits cost as much as a long one.

use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::io::{Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The most bytes that one call of [`Connection::write`] hands to the kernel.
///
/// A time-out does not limit how long a write takes: Linux counts it down only while the write
/// sleeps, so a client that keeps reading a few bytes can make a single write of some megabytes
/// last for many seconds. The budget is charged after each write, so writes must be short.
const LONGEST_WRITE: usize = 64 * 1024;

/// The time that the server may spend waiting for its clients, all together.
#[derive(Debug)]
pub struct Budget {
    /// The most that it ever holds.
    full: Duration,
    /// What each client adds when it connects.
    allowance: Duration,
    /// What it holds now.
    left: Duration,
}

impl Budget {
    pub const FOR_READING: Self = Self::in_milliseconds(1200, 8);
    pub const FOR_WRITING: Self = Self::in_milliseconds(3000, 16);

    const fn in_milliseconds(full: u64, allowance: u64) -> Self {
        Self {
            full: Duration::from_millis(full),
            allowance: Duration::from_millis(allowance),
            left: Duration::from_millis(full),
        }
    }

    /// Adds what a new client brings: its allowance, and ten times the time that the server was
    /// idle before it connected.
    pub fn admit(&mut self, idle: Duration) {
        self.left = (self.left + 10 * idle + self.allowance).min(self.full);
    }

    /// Makes a read or a write, given the time-out to set, and takes the time that it took out of
    /// the budget.
    fn charge(&mut self, mut call: impl FnMut(Duration) -> Result<usize>) -> Result<usize> {
        loop {
            let timeout = self.left.min(self.full / 2);
            // A time-out of zero would mean "wait for ever", so std rejects it.
            if timeout.is_zero() {
                return Err(TimedOut.into());
            }
            let start = Instant::now();
            let result = call(timeout);
            self.left = self.left.saturating_sub(start.elapsed());
            match result.as_ref().map_err(|error| error.kind()) {
                // The process received a signal, which is not the client's fault.
                Err(Interrupted) => {}
                // Unix reports a time-out as `WouldBlock`, Windows as `TimedOut`.
                Err(WouldBlock | TimedOut) => return Err(TimedOut.into()),
                _ => return result,
            }
        }
    }
}

/// A connection whose reads and writes are paid for by a server's budgets.
///
/// If a read or a write must wait for too long, it fails with [`TimedOut`].
#[derive(Debug)]
pub struct Connection<'a> {
    pub stream: TcpStream,
    pub reading: &'a mut Budget,
    pub writing: &'a mut Budget,
}

impl Read for Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.reading.charge(|timeout| {
            self.stream.set_read_timeout(Some(timeout))?;
            self.stream.read(buffer)
        })
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let bytes = &bytes[..bytes.len().min(LONGEST_WRITE)];
        self.writing.charge(|timeout| {
            self.stream.set_write_timeout(Some(timeout))?;
            self.stream.write(bytes)
        })
    }

    /// Does nothing, since a socket has no buffer to flush.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
