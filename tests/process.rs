//! The program as a process: its command line, its output, and how it holds out.

mod support;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Metricmote, Response, exchange, exposition, scrape};

/// Runs the program until it ends or says that it serves. Returns its exit code, stdout and stderr.
fn run(arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metricmote"));
    // With this, an anyhow error that is printed for debugging has a backtrace.
    command.env("RUST_BACKTRACE", "1").args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().unwrap();
    let mut stdout = BufReader::new(program.stdout.take().unwrap());
    if stdout.fill_buf().unwrap().starts_with(b"Serving") {
        program.kill().unwrap();
    }
    let mut printed = String::new();
    stdout.read_to_string(&mut printed).unwrap();
    let output = program.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), printed, errors)
}

/// The arguments, the exit code, how stdout begins, and what stderr is.
#[rustfmt::skip]
const COMMAND_LINES: [(&str, i32, &str, &str); 10] = [
    ("-h", 0, "Serves two counters", ""), ("--help", 0, "Serves two counters", ""),
    ("-V", 0, concat!("metricmote ", env!("CARGO_PKG_VERSION"), "\n"), ""),
    ("--version", 0, concat!("metricmote ", env!("CARGO_PKG_VERSION"), "\n"), ""),
    ("-x", 2, "", "error: unexpected [\"-x\"] (see --help)\n"),
    ("-1", 2, "", "error: unexpected [\"-1\"] (see --help)\n"),
    ("--help 0", 2, "", "error: unexpected [\"--help\", \"0\"] (see --help)\n"),
    ("0 0", 2, "", "error: unexpected [\"0\", \"0\"] (see --help)\n"),
    ("65536", 1, "", "error: cannot listen on \"65536\": invalid socket address\n"),
    ("a\nb:\x1b", 1, "", "error: cannot listen on \"a\\nb:\\u{1b}\": invalid port value\n"),
];

#[test]
fn help_and_version_are_printed_and_what_is_wrong_is_said_in_one_line() {
    for (arguments, exit_code, start, error) in COMMAND_LINES {
        let (code, printed, errors) = run(arguments.split(' '));
        assert_eq!((code, errors.as_str()), (Some(exit_code), error));
        assert!(printed.starts_with(start), "{arguments}: {printed}");
    }
}

#[test]
fn it_listens_where_it_is_told_to_and_otherwise_on_loopback() {
    let ipv6 = TcpListener::bind("[::1]:0").is_ok().then_some("[::1]:0");
    for argument in ["0", "127.0.0.1:0", "localhost:0"].into_iter().chain(ipv6) {
        let server = Metricmote::spawn(&[argument], Stdio::null());
        assert!(server.address.ip().is_loopback());
        scrape(server.address);
    }
    // Now the default port is taken, if not by this test then by another program.
    let _taken = TcpListener::bind("127.0.0.1:8043");
    let (code, _, error) = run([""; 0]);
    let start = "error: cannot listen on \"127.0.0.1:8043\": ";
    assert!(code == Some(1) && error.starts_with(start), "{error}");
}

/// Returns the values of the example's four series.
fn values(server: &Metricmote) -> Vec<f64> {
    let families = exposition::parse(&scrape(server.address));
    let samples = families.iter().flat_map(|family| &family.samples);
    samples.map(|sample| sample.value).collect()
}

/// One step is due at the start and one each second, although nothing happens between two scrapes.
#[test]
fn the_example_takes_a_step_for_each_second_however_often_it_is_scraped() {
    let (start, server) = (Instant::now(), Metricmote::spawn(&["0"], Stdio::null()));
    let (mut last, mut updates, mut printed) = (vec![0.0; 4], 0, String::new());
    for pause in [100; 8].into_iter().chain([2_000; 8]) {
        thread::sleep(Duration::from_millis(pause));
        let now = values(&server);
        printed += "GET /metrics HTTP/1.1\n";
        if updates == 0 || pause > 1_000 || now != last {
            assert!(now[0] > last[0] && now[1] > last[1], "{last:?} {now:?}");
            assert!(now[2] != last[2] && now[3] != last[3], "{last:?} {now:?}");
            printed += "Update metrics\n";
            updates += 1;
        }
        let due = start.elapsed().as_secs() + 1;
        assert!(updates <= due, "{updates} updates in {due} s");
        assert!(now.iter().all(|value| value.abs() < due as f64), "{now:?}");
        // A step is less than 1. By chance two together are as well, but not eight times.
        if now[0] > last[0] + 1.0 || now[1] > last[1] + 1.0 {
            assert_eq!(server.end(), printed);
            return;
        }
        last = now;
    }
    panic!("one step at a time");
}

#[test]
fn the_gauges_of_the_example_go_up_and_down() {
    let starts: Vec<f64> = (0..20).map(|_| values(&Metricmote::start())[2]).collect();
    let ups = starts.iter().filter(|value| **value > 0.0).count();
    assert!((1..20).contains(&ups), "{starts:?}");
}

/// As under `metricmote | head -1`.
#[test]
fn it_serves_on_when_nobody_reads_what_it_prints() {
    let mut server = Metricmote::spawn(&["0"], Stdio::piped());
    drop((server.child.stdout.take(), server.child.stderr.take()));
    for _ in 0..100 {
        Response::parse(&exchange(server.address, b"nonsense\r\n\r\n"));
        scrape(server.address);
    }
    assert!(server.child.try_wait().unwrap().is_none());
}

/// These tests look into `/proc`, or need an address, a limit or a signal of Linux.
#[cfg(target_os = "linux")]
mod on_linux {
    use std::fs;
    use std::io::Write;
    use std::net::TcpStream;
    use std::os::unix::ffi::OsStrExt;

    use super::support::{GUARD, SCRAPE, connect, read_to_end};
    use super::*;

    fn wait_until(condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < GUARD, "it never came to that");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn shell(command: &str) {
        let status = Command::new("sh").args(["-c", command]).status();
        assert!(status.unwrap().success(), "{command}");
    }

    #[test]
    fn an_argument_that_is_not_utf_8_is_a_wrong_address() {
        assert_eq!(run([OsStr::from_bytes(b"\xff")]).0, Some(1));
    }

    #[test]
    fn it_serves_without_stdout_and_stderr() {
        let free = TcpListener::bind("127.0.43.4:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "exec \"$0\" \"$1\" >&- 2>&-",
            env!("CARGO_BIN_EXE_metricmote"),
        ]);
        let mut program = command.arg(address.to_string()).spawn().unwrap();
        wait_until(|| TcpStream::connect(address).is_ok());
        scrape(address);
        program.kill().and_then(|()| program.wait()).unwrap();
    }

    #[test]
    fn it_starts_again_on_the_same_port_at_once() {
        // No other test uses this address, so nothing else takes the port meanwhile.
        let mut address = "127.0.43.1:0".to_owned();
        for _ in 0..20 {
            let server = Metricmote::spawn(&[&address], Stdio::null());
            scrape(server.address);
            address = server.address.to_string();
        }
    }

    #[test]
    fn without_file_descriptors_it_says_so_twice_a_second_and_then_serves_on() {
        let server = Metricmote::spawn(&["0"], Stdio::piped());
        let (address, pid) = (server.address, server.child.id());
        // It has four: stdin, stdout, stderr and the listener.
        shell(&format!("prlimit --pid {pid} --nofile=4:100"));
        // The `accept` that is waiting may already have a descriptor for one client.
        let clients = [(); 2].map(|()| thread::spawn(move || scrape(address)));
        thread::sleep(Duration::from_millis(1200));
        shell(&format!("prlimit --pid {pid} --nofile=100:100"));
        drop(clients.map(|client| client.join().unwrap()));
        let (printed, error) = (server.end(), "error: cannot accept a connection: ");
        let errors = printed.matches(error).count();
        assert!((2..=4).contains(&errors), "{printed}");
    }

    /// A signal interrupts a system call that has a time-out.
    #[test]
    fn a_signal_before_the_request_costs_the_client_nothing() {
        let server = Metricmote::start();
        let pid = server.child.id();
        let stat = format!("/proc/{pid}/stat");
        let is = |state| fs::read_to_string(&stat).unwrap().contains(state);
        let mut stream = connect(server.address);
        // The program sleeps in `accept` before, and in `read` after. Let it get there.
        thread::sleep(Duration::from_millis(50));
        wait_until(|| is(") S "));
        for (signal, state) in [("STOP", ") T "), ("CONT", ") S ")] {
            shell(&format!("kill -{signal} {pid}"));
            wait_until(|| is(state));
        }
        stream.write_all(SCRAPE).unwrap();
        assert_eq!(Response::parse(&read_to_end(&mut stream)).status, "200 OK");
    }

    #[test]
    fn five_thousand_scrapes_leave_memory_and_descriptors_as_they_were() {
        let server = Metricmote::start();
        let descriptors = format!("/proc/{}/fd", server.child.id());
        let open = || fs::read_dir(&descriptors).unwrap().count();
        let at_rest = open();
        let memory_after = |scrapes| {
            (0..scrapes).for_each(|_| drop(scrape(server.address)));
            // The last response may be here before the server has closed that connection.
            wait_until(|| open() == at_rest);
            server.status("VmRSS:")
        };
        let (before, after) = (memory_after(1_000), memory_after(5_000));
        assert!(after <= before + 128, "from {before} kB to {after} kB");
        assert_eq!(server.status("Threads:"), 1);
    }
}
