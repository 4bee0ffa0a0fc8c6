//! The least that a metrics endpoint can be. The README says what is wrong with it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:8044")?;
    let mut jobs = 0;
    loop {
        // Wait for a client's request line.
        let (mut stream, _) = listener.accept()?;
        let mut lines = BufReader::new(&stream).lines();
        let request_line = lines.next().unwrap()?;
        println!("{request_line}");

        // Update, and render.
        jobs += 1;
        let worker = "a";
        let metrics = format!(
            "# HELP jobs_total Jobs done.\n\
             # TYPE jobs_total counter\n\
             jobs_total{{worker=\"{worker}\"}} {jobs}\n"
        );

        // Answer, and close.
        write!(stream, "HTTP/1.0 200 OK\r\n\r\n{metrics}")?;
    }
}
