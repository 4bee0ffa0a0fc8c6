//! How long the server waits for its clients.
//!
//! One thread that waits for a client keeps everybody else waiting. Without a limit, the first client
//! that connects and says nothing stops the server. With a limit of a second for each, a hundred such
//! clients stop it for a hundred seconds. So all clients share a *purse* of time:
//!
//! 1. Waiting for a client takes from the purse.
//! 2. Time that the server is idle, because nobody connects, goes into the purse until it is full.
//! 3. A new client always finds a little in it.
//! 4. One wait may last a third of a full purse, so that one silent client does not empty it.
//!
//! There are two purses, so that clients who ask nothing do not cost another its large answer: one for
//! reading requests, of 0.9 s and with at least 8 ms for each client, and one for writing answers, of 3 s
//! and 16 ms. A lone client on a slow link may use up a full purse. A crowd that says nothing soon finds
//! very little. Below, 129 clients come at once, as many as may wait to be accepted: std asks the kernel
//! for a queue of 128, and Linux adds one.
//!
//! ```text
//! silent client     1    2    3    4    5  ...  129
//! dropped after   300  300  300    8    8  ...    8  ms
//! ```
//!
//! Whatever they do instead of being silent, they get one full purse and 8 ms each in all: only
//! idleness puts more into the purse, and with clients in the queue `accept` returns at once.
//!
//! Added up for 129 clients who use both purses to the end:
//!
//! ```text
//! reading  0.9 s + 129 ×  8 ms  =  1.9 s
//! writing  3.0 s + 129 × 16 ms  =  5.1 s
//! late         2 × 129 ×  8 ms  =  2.1 s
//!                                 9.1 s, and Prometheus waits 10 s
//! ```
//!
//! Late: where a kernel's clock ticks every 4 ms, a wait may end two ticks late. The purse pays for that
//! too, but an empty one cannot, after a client's last wait. Copying large answers comes on top.

use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::io::{self, Result};
use std::time::{Duration, Instant};

/// The time that clients have to keep the server waiting, all together.
#[derive(Debug)]
pub struct Purse {
    /// What it holds at the most.
    full: Duration,
    /// What a new client finds in it at the least.
    least: Duration,
    /// What the client in hand finds in it.
    left: Duration,
}

impl Purse {
    /// A client that has been queuing has usually sent its request by now, so the least is little.
    pub const FOR_READING: Self = Self::new(900, 8);

    /// A slow link needs seconds; on a fast one some megabytes get through with the least.
    ///
    /// A write that runs out of time succeeds if it has sent anything at all. So a client that reads
    /// nothing costs two or three waits: the first ones fill the kernel's buffers.
    pub const FOR_WRITING: Self = Self::new(3000, 16);

    /// A full one. Both are in milliseconds.
    const fn new(full: u64, least: u64) -> Self {
        Self {
            full: Duration::from_millis(full),
            least: Duration::from_millis(least),
            left: Duration::from_millis(full),
        }
    }

    /// Puts in the time that the server was idle before a new client came.
    pub fn fill(&mut self, idle: Duration) {
        self.left = (self.left + idle).clamp(self.least, self.full);
    }

    /// Reads from the client or writes to it, once. `call` is given the time-out to set.
    pub fn wait(&mut self, mut call: impl FnMut(Duration) -> Result<usize>) -> Result<usize> {
        let mut limit = self.left.min(self.full / 3);
        loop {
            // std rejects a time-out of zero.
            if limit.is_zero() {
                return Err(TimedOut.into());
            }
            let start = Instant::now();
            let result = call(limit);
            let waited = start.elapsed();
            self.left = self.left.saturating_sub(waited);
            limit = limit.saturating_sub(waited);
            match result.as_ref().map_err(io::Error::kind) {
                // A signal to the process: the same silence goes on.
                Err(Interrupted) => {}
                // What Unix says of a time-out, and what Windows says.
                Err(WouldBlock | TimedOut) => return Err(TimedOut.into()),
                _ => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The milliseconds after which so many clients are dropped that say nothing.
    fn silences(purse: &mut Purse, clients: usize) -> Vec<u128> {
        let silence = |_| {
            purse.fill(Duration::ZERO);
            let (found, mut limit) = (purse.left, Duration::ZERO);
            let waited = purse.wait(|left| {
                limit = left;
                Err(TimedOut.into())
            });
            assert!(waited.is_err());
            // As if all that time had passed.
            purse.left = found - limit;
            limit.as_millis()
        };
        (0..clients).map(silence).collect()
    }

    #[test]
    fn silent_clients_are_dropped_as_the_documentation_says() {
        let mut purse = Purse::FOR_READING;
        assert_eq!(silences(&mut purse, 4), [300, 300, 300, 8]);
        assert_eq!(silences(&mut purse, 125), [8; 125]);
    }

    #[test]
    fn idleness_fills_the_purse_and_no_more_than_that() {
        let mut purse = Purse::FOR_WRITING;
        purse.fill(Duration::from_secs(60));
        assert_eq!(silences(&mut purse, 5), [1000, 1000, 1000, 16, 16]);
        purse.fill(Duration::from_millis(700));
        assert_eq!(silences(&mut purse, 2), [700, 16]);
        purse.fill(Duration::from_secs(60));
        assert_eq!(silences(&mut purse, 4), [1000, 1000, 1000, 16]);
    }

    /// As added up above; but three silent clients empty a purse, so only 126 find the least.
    #[test]
    fn a_queue_full_of_clients_leaves_a_scrape_its_ten_seconds() {
        let longest = [Purse::FOR_READING, Purse::FOR_WRITING]
            .map(|mut purse| silences(&mut purse, 129).iter().sum::<u128>() + 129 * 8);
        assert!(longest.iter().sum::<u128>() < 9_000, "{longest:?}");
    }

    #[test]
    fn a_time_out_is_told_in_one_way_and_a_signal_is_none() {
        let mut purse = Purse::FOR_READING;
        for kind in [WouldBlock, TimedOut] {
            let result = purse.wait(|_| Err(io::Error::new(kind, "as a system says it")));
            let error = result.unwrap_err();
            assert_eq!(error.to_string(), "timed out");
        }
        let mut results = [Err(Interrupted.into()), Ok(1)].into_iter();
        assert_eq!(purse.wait(|_| results.next().unwrap()).unwrap(), 1);
    }

    #[test]
    fn a_signal_does_not_begin_a_silence_anew() {
        let (mut purse, mut limits) = (Purse::FOR_READING, Vec::new());
        let _ = purse.wait(|limit| {
            limits.push(limit);
            std::thread::sleep(Duration::from_millis(1));
            Err(if limits.len() < 3 {
                Interrupted
            } else {
                TimedOut
            }
            .into())
        });
        let step = Duration::from_millis(1);
        assert!(
            limits[1] + step <= limits[0] && limits[2] + step <= limits[1],
            "{limits:?}"
        );
    }

    #[test]
    fn an_empty_purse_waits_for_nobody() {
        let mut purse = Purse::FOR_READING;
        purse.left = Duration::ZERO;
        let error = purse.wait(|_| panic!("called")).unwrap_err();
        assert_eq!(error.kind(), TimedOut);
    }
}
