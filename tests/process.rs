//! The program as a process: its command line, its output, and how it holds out.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Metricmote, Response, exchange, exposition, scrape};

/// An address of this machine that no other test uses, so that none takes a port of it. Elsewhere
/// than on Linux there is but one.
const ADDRESS_OF_ITS_OWN: &str = if cfg!(target_os = "linux") {
    "127.0.43.1"
} else {
    "127.0.0.1"
};

fn run(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_metricmote"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(program.stdout.take().unwrap());
    // A server does not end by itself.
    if stdout.fill_buf().unwrap().starts_with(b"Serving") {
        program.kill().unwrap();
    }
    let mut output = program.wait_with_output().unwrap();
    stdout.read_to_end(&mut output.stdout).unwrap();
    output
}

#[test]
fn help_and_version_are_printed() {
    for option in ["-h", "--help"] {
        let output = run(&[option]);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.starts_with(b"Serves two counters"));
        assert_eq!(output.stderr, b"");
    }
    for option in ["-V", "--version"] {
        let output = run(&[option]);
        assert_eq!(output.status.code(), Some(0));
        let version = concat!("metricmote ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(output.stdout, version.as_bytes());
    }
}

#[test]
fn a_wrong_command_line_gives_one_line_and_exit_code_2() {
    let mut wrong: Vec<Vec<&str>> = vec![vec!["0", "0"], vec!["--help", "0"]];
    for argument in [
        "",
        "x",
        "-x",
        "-x:80",
        "65536",
        "-1",
        "localhost",
        "localhost:",
        ":8043",
        "::1",
        "::1:80",
        "[::1]",
        "[::1]:",
        "[::1]:+80",
        "[]:80",
        "[a]:80",
        "+80",
        "a:+80",
        "a b:80",
        "a\nb:80x",
    ] {
        wrong.push(vec![argument]);
    }
    for arguments in wrong {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.starts_with("error: ")
                && error.contains("is not an ADDRESS")
                && error.contains("--help"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_not_utf_8_is_a_wrong_command_line() {
    use std::os::unix::ffi::OsStrExt;
    let argument = std::ffi::OsStr::from_bytes(b"\xff:80");
    let output = Command::new(env!("CARGO_BIN_EXE_metricmote"))
        .arg(argument)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn it_listens_where_it_is_told_to() {
    let mut arguments = vec!["0", "127.0.0.1:0", "localhost:0"];
    if TcpListener::bind("[::1]:0").is_ok() {
        arguments.push("[::1]:0");
    }
    for argument in arguments {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metricmote"));
        let server = Metricmote::spawn({
            command.arg(argument).stderr(Stdio::null());
            command
        });
        assert!(server.address.ip().is_loopback());
        scrape(server.address);
    }
}

/// Where that port is taken, the error names it.
#[test]
fn without_an_address_it_is_not_open_to_the_network() {
    let output = run(&[]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("127.0.0.1:8043"), "{said}");
}

#[test]
fn a_port_in_use_gives_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // With this an anyhow error printed for debugging has a backtrace.
    let output = Command::new(env!("CARGO_BIN_EXE_metricmote"))
        .arg(&address)
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with(&format!("error: cannot listen on {address}: ")),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn the_example_serves_the_series_of_the_original() {
    let server = Metricmote::start();
    let families = exposition::parse(&scrape(server.address));
    let series: Vec<_> = families
        .iter()
        .flat_map(|family| family.samples.iter().map(move |sample| (family, sample)))
        .map(|(family, sample)| {
            let labels: Vec<_> = sample
                .labels
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            format!(
                "{} {} {} {}",
                family.kind,
                family.name,
                labels.join(","),
                family.help
            )
        })
        .collect();
    assert_eq!(
        series,
        [
            "counter counter1 a=1,b=1 Help for c1",
            "counter counter1 a=1,b=2 Help for c1",
            "gauge gauge1 a=2,b=1 Help for g1",
            "gauge gauge1 a=2,b=2 Help for g1",
        ]
    );
}

/// Once at the start and then for every second, although only a scrape brings it about.
#[test]
fn the_example_catches_up_with_the_seconds_at_a_scrape() {
    let start = Instant::now();
    let server = Metricmote::start();
    let values = || -> Vec<f64> {
        let families = exposition::parse(&scrape(server.address));
        families
            .iter()
            .flat_map(|family| &family.samples)
            .map(|sample| sample.value)
            .collect()
    };
    let mut scrapes = 1;
    let mut last = values();
    let most = 1.0 + start.elapsed().as_secs_f64();
    assert!(last.iter().all(|value| value.abs() < most), "{last:?}");
    assert!(last[0] > 0.0 && last[1] > 0.0, "{last:?}");
    loop {
        thread::sleep(Duration::from_secs(3));
        let now = values();
        scrapes += 1;
        assert!((0..4).all(|i| now[i] != last[i]), "{last:?} {now:?}");
        assert!(
            now[0] > last[0] && now[1] > last[1],
            "a counter fell: {last:?} {now:?}"
        );
        let most = start.elapsed().as_secs_f64() + 2.0;
        assert!(now.iter().all(|value| value.abs() < most), "{now:?}");
        // More than one update can do. Three fail to in one case of 36, so few rounds will do.
        if now[0] >= last[0] + 1.0 || now[1] >= last[1] + 1.0 {
            break;
        }
        assert!(scrapes < 8, "one update at a time");
        last = now;
    }
    // The request line of each scrape, and one line for each catch-up.
    let printed = server.end();
    let printed: Vec<&str> = printed.lines().collect();
    assert_eq!(
        printed,
        ["GET /metrics HTTP/1.1", "Update metrics"].repeat(scrapes)
    );
}

#[test]
fn scrapes_within_a_second_show_the_same_values() {
    let start = Instant::now();
    let server = Metricmote::start();
    let shown: BTreeSet<String> = (0..50).map(|_| scrape(server.address)).collect();
    let updates = server.end().matches("Update metrics").count();
    let due = start.elapsed().as_secs() + 1;
    assert!(shown.len() as u64 <= due, "{shown:?}");
    assert!(updates as u64 <= due, "{updates} updates");
}

/// As under `metricmote | head -1`.
#[test]
fn it_serves_on_when_nobody_reads_what_it_prints() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metricmote"));
    command.arg("0").stderr(Stdio::piped());
    let (mut server, stdout) = Metricmote::spawn_unread(command);
    drop((stdout, server.child.stderr.take()));
    for _ in 0..100 {
        Response::parse(&exchange(server.address, b"nonsense\r\n\r\n"));
        scrape(server.address);
    }
    assert!(server.child.try_wait().unwrap().is_none());
}

#[test]
fn it_starts_again_on_the_same_port_at_once() {
    let start = |address: String| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metricmote"));
        command.arg(address).stderr(Stdio::null());
        Metricmote::spawn(command)
    };
    let mut server = start(format!("{ADDRESS_OF_ITS_OWN}:0"));
    for _ in 0..20 {
        scrape(server.address);
        let address = server.address.to_string();
        drop(server);
        server = start(address);
    }
    scrape(server.address);
}

#[test]
fn fifty_scrapers_at_once_for_five_seconds_lose_no_scrape() {
    let server = Metricmote::start();
    let end = Instant::now() + Duration::from_secs(5);
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                while Instant::now() < end {
                    assert_eq!(exposition::parse(&scrape(server.address)).len(), 2);
                }
            });
        }
    });
}

/// They look into `/proc`, or need a shell, a limit or a signal of Unix.
#[cfg(target_os = "linux")]
mod on_linux {
    use std::fs;
    use std::io::Write;
    use std::net::{SocketAddr, TcpStream};

    use metricmote::{MetricsServer, Registry};

    use super::support::{GUARD, SCRAPE, connect, read_to_end};
    use super::*;

    #[test]
    fn it_serves_without_stdout_and_stderr() {
        let address: SocketAddr = {
            let free = TcpListener::bind((ADDRESS_OF_ITS_OWN, 0)).unwrap();
            free.local_addr().unwrap()
        };
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$1\" >&- 2>&-"])
            .args([env!("CARGO_BIN_EXE_metricmote"), &address.to_string()])
            .spawn()
            .unwrap();
        let start = Instant::now();
        while TcpStream::connect(address).is_err() && start.elapsed() < GUARD {
            thread::yield_now();
        }
        let response = exchange(address, SCRAPE);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Response::parse(&response).status, "HTTP/1.0 200 OK");
    }

    /// A signal interrupts a system call that has a time-out, whatever else was asked for.
    #[test]
    fn a_signal_in_the_middle_of_a_request_costs_nothing() {
        let server = Metricmote::start();
        let pid = server.child.id().to_string();
        let signal = |name| {
            assert!(
                Command::new("sh")
                    .args(["-c", "kill -$0 $1", name, &pid])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap()
        };
        let wait_for = |wanted| {
            let start = Instant::now();
            while state() != wanted {
                assert!(start.elapsed() < GUARD, "never in state {wanted}");
                thread::sleep(Duration::from_millis(1));
            }
        };
        let mut stream = connect(server.address);
        stream.write_all(&SCRAPE[..20]).unwrap();
        // It sleeps in `accept` before and in `read` after; give it time to get from one to the other.
        thread::sleep(Duration::from_millis(50));
        wait_for('S');
        signal("STOP");
        wait_for('T');
        signal("CONT");
        wait_for('S');
        stream.write_all(&SCRAPE[20..]).unwrap();
        assert_eq!(
            Response::parse(&read_to_end(&mut stream)).status,
            "HTTP/1.0 200 OK"
        );
    }

    /// In a process of its own, because the limit is for all threads of one.
    #[test]
    fn it_survives_a_time_without_file_descriptors() {
        const NAME: &str = "on_linux::it_survives_a_time_without_file_descriptors";
        if std::env::var_os("METRICMOTE_FEW_DESCRIPTORS").is_none() {
            let output = Command::new("sh")
                .args(["-c", "ulimit -n 20; exec \"$0\" --exact \"$1\" --nocapture"])
                .arg(std::env::current_exe().unwrap())
                .arg(NAME)
                .env("METRICMOTE_FEW_DESCRIPTORS", "1")
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
            return;
        }
        let mut registry = Registry::new();
        let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
        let mut client = connect(server.local_addr().unwrap());
        client.write_all(SCRAPE).unwrap();
        let mut hoard = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            hoard.push(file);
        }
        let start = Instant::now();
        let mut reports = 0;
        while start.elapsed() < Duration::from_millis(500) {
            let error = server
                .accept()
                .map(drop)
                .expect_err("no descriptor is left");
            assert!(
                format!("{error:#}").starts_with("cannot accept a connection: "),
                "{error:#}"
            );
            reports += 1;
        }
        assert!(reports <= 11, "{reports} reports in half a second");
        hoard.pop();
        server.accept().unwrap().answer(registry.render()).unwrap();
        hoard.pop();
        assert_eq!(
            Response::parse(&read_to_end(&mut client)).status,
            "HTTP/1.0 200 OK"
        );
    }

    #[test]
    fn twenty_thousand_scrapes_leave_memory_and_descriptors_where_they_were() {
        let server = Metricmote::start();
        let descriptors = || {
            let open = fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap();
            open.count()
        };
        let at_rest = descriptors();
        let resident_after = |scrapes| {
            for _ in 0..scrapes {
                scrape(server.address);
            }
            // The last answer is here before the server has closed its end of that connection.
            let start = Instant::now();
            while descriptors() > at_rest && start.elapsed() < Duration::from_secs(5) {
                thread::yield_now();
            }
            assert_eq!(descriptors(), at_rest);
            server.status("VmRSS:")
        };
        let before = resident_after(1_000);
        let after = resident_after(20_000);
        assert!(after <= before + 128, "from {before} kB to {after} kB");
        assert_eq!(server.status("Threads:"), 1);
    }
}
