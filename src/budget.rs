//! How long the server waits for its clients.
//!
//! There is only one thread, so while the server waits for one client, all others wait as well. A
//! time-out for each client is not enough: if a hundred clients connect and send nothing, a
//! time-out of one second stops the server for a hundred seconds.
//!
//! That is why all clients share one *budget* of time:
//!
//! 1. Waiting until a client sends or receives something takes time out of the budget. If none is
//!    left, the client is dropped.
//! 2. Each client that connects adds a small allowance. So even if others have emptied the budget,
//!    the server can wait for this client for a moment.
//! 3. While no client is connected, the server is idle. Idle time is added ten times over, so that
//!    there is enough for many honest clients that are slow. (Attackers do not gain from that,
//!    because the server is not idle while they keep it waiting.)
//! 4. The budget never holds more than its full amount. And a single wait takes at most half of
//!    that, so that one client that sends nothing cannot use up everything.
//!
//! (In other fields this is called a token bucket.)
//!
//! In fact there are two budgets, one for reading requests and one for writing responses.
//! Otherwise, clients that send nothing would use up the time that a large response needs.
//!
//! |         | full budget | longest wait | allowance |
//! | ------- | ----------- | ------------ | --------- |
//! | reading | 1.2 s       | 0.6 s        | 14 ms     |
//! | writing | 3 s         | 1.5 s        | 22 ms     |
//!
//! # How long a scrape may take
//!
//! While one client is served, the kernel keeps the next ones in a queue, which has 129 places.
//! (std asks for 128, and Linux adds one.) If a scrape gets the last place, 129 others are served
//! before it: 128 from the queue, and the one that is being served already. If all of them
//! misbehave, they can spend both full budgets and the allowances of 129 clients, but nothing else,
//! because the server is never idle meanwhile:
//!
//! ```text
//! reading  1.2 s + 129 × 14 ms = 3.0 s
//! writing  3.0 s + 129 × 22 ms = 5.8 s
//! in all                         8.8 s
//! ```
//!
//! That is less than the 10 s for which Prometheus waits by default. (The time that the program
//! itself needs to update and render its metrics comes on top, once for each client.) It does not
//! help an attacker to send or read a byte now and then, because many short waits cost as much as a
//! long one.

use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The most bytes that a single write hands to the kernel.
///
/// The budget is charged after each write, so a write must not last long. Its time-out does not
/// ensure that, because Linux does not count the time for which it is busy with a large write, but
/// only the time for which it waits.
const LONGEST_WRITE: usize = 64 * 1024;

/// How late a short wait may end, which is three ticks of a kernel whose clock ticks every 4 ms.
const LATENESS: Duration = Duration::from_millis(12);

/// The time that the server may spend waiting for all its clients.
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
    pub const FOR_READING: Self = Self::in_milliseconds(1200, 14);
    pub const FOR_WRITING: Self = Self::in_milliseconds(3000, 22);

    const fn in_milliseconds(full: u64, allowance: u64) -> Self {
        Self {
            full: Duration::from_millis(full),
            allowance: Duration::from_millis(allowance),
            left: Duration::from_millis(full),
        }
    }

    /// Adds the allowance of a new client, and ten times the time that the server was idle before.
    pub fn admit(&mut self, idle: Duration) {
        self.left = (self.left + self.allowance + 10 * idle).min(self.full);
    }

    /// Makes a read or a write, and subtracts its duration from the budget. The closure gets the
    /// time-out to set.
    fn charge(&mut self, mut call: impl FnMut(Duration) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            // The wait may last `LATENESS` longer than its time-out, so keep that in reserve.
            let timeout = self.left.min(self.full / 2).saturating_sub(LATENESS);
            // std rejects a time-out of zero.
            if timeout.is_zero() {
                return Err(TimedOut.into());
            }
            let start = Instant::now();
            let result = call(timeout);
            self.left = self.left.saturating_sub(start.elapsed());
            match result.as_ref().err().map(io::Error::kind) {
                // The process has received a signal. That is not the client's fault, so try again.
                Some(Interrupted) => {}
                // Unix reports a time-out as `WouldBlock`, and Windows as `TimedOut`.
                Some(WouldBlock | TimedOut) => return Err(TimedOut.into()),
                _ => return result,
            }
        }
    }
}

/// A connection whose reads and writes are charged to the budgets of the server.
///
/// A read or a write that must wait for too long fails with [`TimedOut`].
#[derive(Debug)]
pub struct Connection<'a> {
    pub stream: TcpStream,
    pub reading: &'a mut Budget,
    pub writing: &'a mut Budget,
}

impl Read for Connection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reading.charge(|timeout| {
            self.stream.set_read_timeout(Some(timeout))?;
            self.stream.read(buffer)
        })
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(LONGEST_WRITE)];
        self.writing.charge(|timeout| {
            self.stream.set_write_timeout(Some(timeout))?;
            self.stream.write(bytes)
        })
    }

    /// Does nothing, because a socket has no buffer to flush.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_single_write_is_short_so_that_it_is_charged_soon() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reading, mut writing) = (Budget::FOR_READING, Budget::FOR_WRITING);
        let mut connection = Connection {
            stream: listener.accept().unwrap().0,
            reading: &mut reading,
            writing: &mut writing,
        };
        let written = connection.write(&[0; 1_000_000]).unwrap();
        assert_eq!(written, 64 * 1024);
    }
}
