//! The naive endpoint, grown up. Each fix has the number of its fault in the README's table.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8044".to_owned());
    // This becomes the value of a label.
    let worker = env::args().nth(2).unwrap_or("a".to_owned());
    let listener = TcpListener::bind(address)?;
    let mut jobs = 0;
    loop {
        let accepted = listener.accept();
        // (2) An error concerns one client only, so it does not end the program.
        if let Err(error) = accepted.and_then(|(stream, _)| serve(stream, &worker, &mut jobs)) {
            let _ = writeln!(io::stderr(), "{error}");
        }
    }
}

fn serve(mut stream: TcpStream, worker: &str, jobs: &mut u64) -> io::Result<()> {
    // (1) Neither a read nor a write waits for longer than a second.
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;

    // (5) Read at most 8 KiB of the request. After that, `lines` ends as if nothing had followed.
    let mut lines = BufReader::new((&stream).take(8 * 1024)).lines();
    // Wait for the request line. (2) If the client hangs up instead, there is nothing to do.
    let Some(request_line) = lines.next() else {
        return Ok(());
    };
    // (6) Print control characters as escapes. (7) Unlike println!, writeln! does not panic.
    let _ = writeln!(io::stdout(), "{}", request_line?.escape_default());
    // (3) Read the headers as well, up to the blank line.
    for header in lines {
        if header?.is_empty() {
            break;
        }
    }

    // Update and render the metrics. (8) Escape backslashes, quotes and line feeds.
    *jobs += 1;
    let worker = worker.replace('\\', r"\\").replace('"', r#"\""#);
    let worker = worker.replace('\n', r"\n");
    let header = "# HELP jobs_total Jobs done.\n# TYPE jobs_total counter\n";
    let sample = format!("jobs_total{{worker=\"{worker}\"}} {jobs}\n");

    // Respond, (4) with the headers that Prometheus 3 wants.
    write!(
        stream,
        "HTTP/1.0 200 OK\r\n\
         Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Connection: close\r\n\r\n{header}{sample}",
        header.len() + sample.len()
    )?;
    // (3) Close the writing half. Then read and discard what the client still sends, up to 16 MiB.
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream.take(16 * 1024 * 1024), &mut io::sink())?;
    Ok(())
}
