//! The program as a process: its command line, its output, and how it holds out.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Metricmote, Response, exchange, exposition, scrape};

/// Runs the program until it ends, or until it says that it serves.
fn run(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_metricmote"))
        .args(arguments)
        // With this, an anyhow error that is printed for debugging has a backtrace.
        .env("RUST_BACKTRACE", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(program.stdout.take().unwrap());
    if stdout.fill_buf().unwrap().starts_with(b"Serving") {
        program.kill().unwrap();
    }
    let mut output = program.wait_with_output().unwrap();
    stdout.read_to_end(&mut output.stdout).unwrap();
    output
}

#[test]
fn help_and_version_are_printed() {
    let version = concat!("metricmote ", env!("CARGO_PKG_VERSION"), "\n");
    for (option, start) in [
        ("-h", "Serves two counters"),
        ("--help", "Serves two counters"),
        ("-V", version),
        ("--version", version),
    ] {
        let output = run(&[option]);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.starts_with(start.as_bytes()), "{option}");
        assert_eq!(output.stderr, b"");
    }
}

#[test]
fn what_is_wrong_with_the_command_line_is_said_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, exit_code, words) in [
        (vec!["-x"], 2, "unexpected \"-x\" (see --help)"),
        (vec!["-1"], 2, "unexpected \"-1\""),
        (vec!["--help", "0"], 2, "unexpected \"--help 0\""),
        (vec!["0", "0"], 2, "unexpected \"0 0\""),
        (vec![""], 1, "invalid socket address"),
        (
            vec!["localhost"],
            1,
            "cannot listen on \"localhost\": invalid socket address",
        ),
        (vec!["65536"], 1, "invalid socket address"),
        (vec!["127.0.0.1:65536"], 1, "invalid port value"),
        (vec!["[::1]"], 1, "invalid port value"),
        (
            vec!["a\nb:\x1b"],
            1,
            "cannot listen on \"a\\nb:\\u{1b}\": invalid port value",
        ),
        (vec![taken.as_str()], 1, "cannot listen on \"127.0.0.1:"),
    ] {
        let output = run(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit_code), "{error}");
        assert!(
            error.starts_with("error: ") && error.contains(words),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains('\x1b'), "{error:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_not_utf_8_is_a_wrong_address() {
    use std::os::unix::ffi::OsStrExt;
    let argument = std::ffi::OsStr::from_bytes(b"\xff:80");
    let mut program = Command::new(env!("CARGO_BIN_EXE_metricmote"));
    assert_eq!(
        program.arg(argument).output().unwrap().status.code(),
        Some(1)
    );
}

#[test]
fn it_listens_where_it_is_told_to_and_otherwise_on_loopback() {
    let ipv6 = TcpListener::bind("[::1]:0").is_ok().then_some("[::1]:0");
    for argument in ["0", "127.0.0.1:0", "localhost:0"].into_iter().chain(ipv6) {
        let server = Metricmote::spawn(&[argument], Stdio::null());
        assert!(server.address.ip().is_loopback());
        scrape(server.address);
    }
    // If that port is taken, the error names it.
    let output = run(&[]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("127.0.0.1:8043"), "{said}");
}

/// Returns the values of the example's four series.
fn values(server: &Metricmote) -> Vec<f64> {
    let families = exposition::parse(&scrape(server.address));
    let samples = families.iter().flat_map(|family| &family.samples);
    samples.map(|sample| sample.value).collect()
}

/// One step at the start and one each second, although nothing happens between two scrapes.
#[test]
fn the_example_catches_up_with_the_seconds_at_each_scrape() {
    let start = Instant::now();
    let server = Metricmote::spawn(&["0"], Stdio::null());
    let mut last = vec![0.0; 4];
    // In 16 s a series makes 17 steps, so it does not seem to stand still by chance.
    for scrapes in 1.. {
        let now = values(&server);
        let most = start.elapsed().as_secs_f64() + 1.0;
        assert!(now.iter().all(|value| value.abs() < most), "{now:?}");
        assert!(now[0] > last[0] && now[1] > last[1], "{last:?} {now:?}");
        assert!(now[2] != last[2] && now[3] != last[3], "{last:?} {now:?}");
        // A growth of more than 1 takes more than one step.
        let caught_up = scrapes > 1 && (now[0] > last[0] + 1.0 || now[1] > last[1] + 1.0);
        if caught_up {
            let printed = server.end();
            let each = "GET /metrics HTTP/1.1\nUpdate metrics\n";
            assert_eq!(printed, each.repeat(scrapes));
            return;
        }
        assert!(scrapes < 8, "one step at a time");
        last = now;
        thread::sleep(Duration::from_secs(2));
    }
}

#[test]
fn the_gauges_of_the_example_go_up_and_down() {
    let starts: Vec<f64> = (0..20).map(|_| values(&Metricmote::start())[2]).collect();
    let ups = starts.iter().filter(|value| **value > 0.0).count();
    assert!((1..20).contains(&ups), "{starts:?}");
}

#[test]
fn scrapes_within_a_second_show_the_same_values() {
    let start = Instant::now();
    let server = Metricmote::spawn(&["0"], Stdio::null());
    let shown: BTreeSet<String> = (0..50).map(|_| scrape(server.address)).collect();
    let updates = server.end().matches("Update metrics").count();
    let due = start.elapsed().as_secs() as usize + 1;
    assert!(
        shown.len() <= due && updates <= due,
        "{updates} updates: {shown:?}"
    );
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
    use std::net::{SocketAddr, TcpStream};

    use super::support::{GUARD, SCRAPE, connect, read_to_end};
    use super::*;

    fn wait_until(condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < GUARD, "it never came to that");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_serves_without_stdout_and_stderr() {
        // No other test uses this address, so nothing takes the port before the program does.
        let free = TcpListener::bind("127.0.43.1:0").unwrap();
        let address: SocketAddr = free.local_addr().unwrap();
        drop(free);
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$1\" >&- 2>&-"])
            .args([env!("CARGO_BIN_EXE_metricmote"), &address.to_string()])
            .spawn()
            .unwrap();
        wait_until(|| TcpStream::connect(address).is_ok());
        scrape(address);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn it_starts_again_on_the_same_port_at_once() {
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
        let limit_descriptors_to = |number: u32| {
            let pid = server.child.id().to_string();
            let mut prlimit = Command::new("prlimit");
            let nofile = format!("--nofile={number}:100");
            let status = prlimit.args(["--pid", &pid, &nofile]).status();
            assert!(status.unwrap().success());
        };
        // Those that it has: stdin, stdout, stderr and the listener.
        limit_descriptors_to(4);
        // The `accept` that is waiting already has a descriptor for the first client.
        scrape(server.address);
        let mut waiting = connect(server.address);
        waiting.write_all(SCRAPE).unwrap();
        thread::sleep(Duration::from_millis(1200));
        limit_descriptors_to(100);
        assert_eq!(Response::parse(&read_to_end(&mut waiting)).status, "200 OK");
        let printed = server.end();
        let errors = printed
            .matches("error: cannot accept a connection: ")
            .count();
        assert!((1..=4).contains(&errors), "{printed}");
    }

    /// A signal interrupts a system call that has a time-out.
    #[test]
    fn a_signal_in_the_middle_of_a_request_costs_nothing() {
        let server = Metricmote::start();
        let pid = server.child.id().to_string();
        let signal = |name| {
            let kill = Command::new("sh")
                .args(["-c", "kill -$0 $1", name, &pid])
                .status();
            assert!(kill.unwrap().success());
        };
        let is = |state| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat[stat.rfind(')').unwrap() + 2..].starts_with(state)
        };
        let mut stream = connect(server.address);
        stream.write_all(&SCRAPE[..20]).unwrap();
        // The program sleeps in `accept` before, and in `read` after. Let it get there.
        thread::sleep(Duration::from_millis(50));
        wait_until(|| is('S'));
        signal("STOP");
        wait_until(|| is('T'));
        signal("CONT");
        wait_until(|| is('S'));
        stream.write_all(&SCRAPE[20..]).unwrap();
        assert_eq!(Response::parse(&read_to_end(&mut stream)).status, "200 OK");
    }

    #[test]
    fn five_thousand_scrapes_leave_memory_and_descriptors_as_they_were() {
        let server = Metricmote::start();
        let descriptors = || {
            let open = fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap();
            open.count()
        };
        let at_rest = descriptors();
        let memory_after = |scrapes| {
            for _ in 0..scrapes {
                scrape(server.address);
            }
            // The last response may be here before the server has closed that connection.
            wait_until(|| descriptors() == at_rest);
            server.status("VmRSS:")
        };
        let before = memory_after(1_000);
        let after = memory_after(5_000);
        assert!(after <= before + 128, "from {before} kB to {after} kB");
        assert_eq!(server.status("Threads:"), 1);
    }
}
