//! The least that a metrics endpoint can be. The README tells what is wrong with it.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

fn main() -> std::io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8044".to_owned());
    // This becomes the value of a label.
    let worker = env::args().nth(2).unwrap_or("a".to_owned());
    let listener = TcpListener::bind(address)?;
    let mut jobs = 0;
    loop {
        // Wait for a client and its request line.
        let (mut stream, _) = listener.accept()?;
        let mut lines = BufReader::new(&stream).lines();
        let request_line = lines.next().unwrap()?;
        println!("{request_line}");

        // Update and render the metrics. (In a format string, `{{` stands for a brace.)
        jobs += 1;
        let header = "# HELP jobs_total Jobs done.\n# TYPE jobs_total counter\n";
        let sample = format!("jobs_total{{worker=\"{worker}\"}} {jobs}\n");

        // Respond. The connection is closed at the end of the loop body.
        write!(stream, "HTTP/1.0 200 OK\r\n\r\n{header}{sample}")?;
    }
}
