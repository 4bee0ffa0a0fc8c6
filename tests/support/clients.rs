//! Clients that are slow, late or hostile.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{connect, scrape};

pub const LARGE: &[u8] = b"GET /large HTTP/1.1\r\n\r\n";

/// What a hostile client does: it connects, sends the opening, and then the piece again and again,
/// until it is dropped. It reads nothing.
#[derive(Clone, Copy)]
pub struct Hostile {
    pub opening: &'static [u8],
    pub piece: &'static [u8],
    pub pause: Duration,
}

impl Hostile {
    pub const SILENT: Self = Self::dripping(b"", b"", 50);
    pub const READS_NOTHING: Self = Self::dripping(LARGE, b"x", 10);

    pub const fn dripping(opening: &'static [u8], piece: &'static [u8], milliseconds: u64) -> Self {
        let pause = Duration::from_millis(milliseconds);
        Self {
            opening,
            piece,
            pause,
        }
    }

    fn attack(self, mut stream: TcpStream, stop: &AtomicBool) -> std::io::Result<()> {
        stream.set_read_timeout(Some(self.pause))?;
        stream.write_all(self.opening)?;
        while !stop.load(Ordering::Relaxed) {
            stream.write_all(self.piece)?;
            match stream.peek(&mut [0]) {
                Ok(0) => break,
                Ok(_) => thread::sleep(self.pause),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Clients that all do the same, and connect again as soon as they are dropped. The attack ends when
/// the crowd is dropped.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Returns when all of them have connected, or the kernel's queue is full of them.
    pub fn gather(address: SocketAddr, size: usize, client: Hostile) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (connected, connections) = mpsc::channel();
        let start = |_| {
            let (stop, connected) = (Arc::clone(&stop), connected.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let timeout = Duration::from_secs(1);
                    if let Ok(stream) = TcpStream::connect_timeout(&address, timeout) {
                        let _ = connected.send(());
                        let _ = client.attack(stream, &stop);
                    }
                }
            })
        };
        let threads = (0..size).map(start).collect();
        connections.iter().take(size.min(128)).for_each(drop);
        Self { stop, threads }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Scrapes, and checks that it does not take longer than the limit, in seconds.
pub fn scrape_within(limit: f64, attack: &str, address: SocketAddr) {
    let start = Instant::now();
    scrape(address);
    let seconds = start.elapsed().as_secs_f64();
    println!("{attack}: a scrape took {seconds:.2} s");
    assert!(seconds < limit, "{attack}: {seconds} s");
}

/// Asks for the large response after such a delay, reads it at so many bytes a second, and returns
/// whether it was whole.
pub fn reads_all(address: SocketAddr, delay: Duration, rate: u32) -> bool {
    let mut stream = connect(address);
    thread::sleep(delay);
    stream.write_all(LARGE).unwrap();
    let mut response = Vec::new();
    let mut chunk = vec![0; 100_000];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return super::Response::try_parse(&response).is_some(),
            Ok(length) => {
                response.extend_from_slice(&chunk[..length]);
                thread::sleep(Duration::from_secs(1) * length as u32 / rate);
            }
            Err(_) => return false,
        }
    }
}
