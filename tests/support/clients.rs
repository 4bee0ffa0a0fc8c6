//! Clients that are slow, late or hostile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::{Response, connect, scrape, timed_out};

pub const LARGE: &[u8] = b"GET /large HTTP/1.1\r\n\r\n";

/// A client that reads nothing. It sends an opening and then the same piece again and again, with a
/// pause before each repetition, until the server closes the connection.
pub struct Hostile(&'static [u8], &'static [u8], Duration);

impl Hostile {
    pub const SILENT: Self = Self::dripping(b"", b"", 50);
    pub const READS_NOTHING: Self = Self::dripping(LARGE, b"x", 10);

    pub const fn dripping(opening: &'static [u8], piece: &'static [u8], milliseconds: u64) -> Self {
        Self(opening, piece, Duration::from_millis(milliseconds))
    }
}

/// Clients that all behave alike, and connect again as soon as the server has closed the
/// connection. The attack ends when the crowd is dropped.
pub struct Crowd {
    stop: &'static AtomicBool,
    connections: Receiver<()>,
}

impl Crowd {
    /// Returns when all clients have connected, or as many as the kernel queues.
    pub fn gather(address: SocketAddr, size: usize, client: Hostile) -> Self {
        let Hostile(opening, piece, pause) = client;
        let stop: &AtomicBool = Box::leak(Box::default());
        let (connected, connections) = mpsc::channel();
        let attack = move || {
            while !stop.load(Ordering::Relaxed) {
                let connection = TcpStream::connect_timeout(&address, Duration::from_secs(1));
                let Ok(mut stream) = connection else { continue };
                let _ = connected.send(());
                let _ = stream.set_read_timeout(Some(pause));
                let mut next = opening;
                while !stop.load(Ordering::Relaxed) && stream.write_all(next).is_ok() {
                    match stream.peek(&mut [0]) {
                        Ok(1..) => thread::sleep(pause),
                        Err(error) if timed_out(&error) => {}
                        _ => break,
                    }
                    next = piece;
                }
            }
        };
        for _ in 0..size {
            thread::spawn(attack.clone());
        }
        connections.iter().take(size.min(128)).for_each(drop);
        Self { stop, connections }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The channel is closed when the last thread has ended.
        self.connections.iter().for_each(drop);
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

/// Waits for so long before it asks for the large response, reads so many bytes a second, and
/// returns whether the response is whole.
pub fn reads_all(address: SocketAddr, delay: Duration, rate: u32) -> bool {
    let mut stream = connect(address);
    thread::sleep(delay);
    stream.write_all(LARGE).unwrap();
    let mut response = Vec::new();
    while let Ok(length) = (&stream).take(100_000).read_to_end(&mut response) {
        if length == 0 {
            return Response::try_parse(&response).is_some();
        }
        thread::sleep(Duration::from_secs(1) * length as u32 / rate);
    }
    false
}
