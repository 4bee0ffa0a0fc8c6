//! What a real Prometheus makes of the server. These tests need the programs `prometheus` and `promtool`
//! (on Debian both are in the package `prometheus`), so they run only on request:
//! `cargo build --examples && cargo test --test prometheus -- --ignored`. To test with another Prometheus
//! than the one in `PATH`, set the variable `PROMETHEUS` to its path.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::{env, thread};

use metricmote::{MetricsServer, Registry};
use support::{Metricmote, Random, exchange, exposition, scrape};

/// A Prometheus that scrapes one target every second.
struct Prometheus {
    address: SocketAddr,
    folder: PathBuf,
    /// The processes that end with the test: Prometheus itself and, in one test, its target.
    children: Vec<Child>,
}

impl Prometheus {
    fn start(name: &str, target: SocketAddr) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let config = include_str!("prometheus/prometheus.yml");
        let config = config.replace("127.0.0.1:8043", &target.to_string());
        assert!(config.contains(&target.to_string()));
        fs::write(folder.join("prometheus.yml"), config).unwrap();

        let mut child = Command::new(env::var("PROMETHEUS").unwrap_or("prometheus".to_owned()))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg("--web.listen-address=127.0.0.1:0")
            .current_dir(&folder)
            .stderr(Stdio::piped())
            .spawn()
            .expect("Prometheus is installed");
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = log.lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("\"Listening on\""));
        let line = line.expect("Prometheus listens");
        let address = line.rsplit("address=").next().unwrap().parse().unwrap();
        // Keep reading the log, because Prometheus would stop at a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self {
            address,
            folder,
            children: vec![child],
        }
    }

    /// Returns the body of a response that must have the status 200.
    fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let response = String::from_utf8(exchange(self.address, request.as_bytes())).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 OK"), "{path}: {response}");
        body.to_owned()
    }

    /// Returns the newest value of each series of the target, from the endpoint that a second Prometheus
    /// would scrape. The keys are `name{"label": "value"}`. Checks that the last scrape succeeded.
    fn read_back(&self, target: SocketAddr) -> BTreeMap<String, f64> {
        let body = self.get("/federate?match[]={job=\"metricmote\",__name__!~\"scrape_.*\"}");
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let values = samples.map(|line| {
            let (line, timestamp) = line.rsplit_once(' ').unwrap();
            assert!(timestamp.parse::<i64>().is_ok(), "{timestamp}");
            let mut sample = exposition::parse_sample(line).expect(line);
            let added = ["job", "instance"].map(|label| sample.labels.remove(label).unwrap());
            assert_eq!(added, ["metricmote", &target.to_string()]);
            (format!("{}{:?}", sample.name, sample.labels), sample.value)
        });
        let mut values: BTreeMap<String, f64> = values.collect();
        assert_eq!(values.remove("up{}"), Some(1.0));
        values
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill().and_then(|()| child.wait());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns what `promtool check` prints, and its exit status.
fn promtool(arguments: &[&str], input: &str) -> String {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/promtool");
    fs::write(path, input).unwrap();
    let mut command = Command::new("promtool");
    command.arg("check").args(arguments);
    let output = command.stdin(File::open(path).unwrap()).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    format!("{}{}", String::from_utf8_lossy(&printed), output.status)
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn promtool_accepts_the_exposition_and_the_configuration() {
    let mut registry = Registry::new();
    let odd = "\n\\n\\ \"quoted\" {} # ö";
    let counter = registry.counter("requests_total", odd, &[("path", odd)]);
    counter.unwrap().inc_by(0.1 + 0.2);
    let gauge = registry.gauge("depth_meters", "Depth.", &[]);
    gauge.unwrap().set(-1e300);
    assert_eq!(promtool(&["metrics"], &registry.render()), "exit status: 0");

    // The counter has the same name as in the original program. By convention it would be counter1_total.
    let advice = "counter1 counter metrics should have \"_total\" suffix\nexit status: 3";
    let example = scrape(Metricmote::start().address);
    assert_eq!(promtool(&["metrics"], &example), advice);
    let printed = promtool(&["config", "tests/prometheus/prometheus.yml"], "");
    assert!(printed.ends_with("exit status: 0"), "{printed}");
}

/// Waits until Prometheus has stored this many scrapes of a program that prints its request lines.
fn wait_for_scrapes(count: usize, stdout: &mut ChildStdout) {
    let lines = BufReader::new(stdout).lines().map(Result::unwrap);
    let mut requests = lines.filter(|line| line.starts_with("GET"));
    // Prometheus stores each scrape before it sends the next request.
    assert_eq!(requests.nth(count).unwrap(), "GET /metrics HTTP/1.1");
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn prometheus_scrapes_the_example() {
    let mut server = Metricmote::spawn(&["0"], Stdio::null());
    let prometheus = Prometheus::start("example", server.address);
    wait_for_scrapes(5, server.child.stdout.as_mut().unwrap());

    let values = prometheus.read_back(server.address);
    let expected = [
        r#"counter1{"a": "1", "b": "1"}"#,
        r#"counter1{"a": "1", "b": "2"}"#,
        r#"gauge1{"a": "2", "b": "1"}"#,
        r#"gauge1{"a": "2", "b": "2"}"#,
    ];
    assert!(values.keys().eq(&expected), "{values:?}");
    for (path, part) in [
        ("targets", r#""health":"up""#),
        ("targets", r#""lastError":"""#),
        ("metadata?metric=counter1", r#""type":"counter""#),
        ("metadata?metric=counter1", r#""help":"Help for c1""#),
        ("metadata?metric=gauge1", r#""type":"gauge""#),
        ("metadata?metric=gauge1", r#""help":"Help for g1""#),
        // All four series have five samples and change, and neither counter ever falls.
        ("query?query=count(count_over_time({a!=''}[1m])>4)", "\"4\""),
        ("query?query=count(changes({a!=''}[1m])>0)", "\"4\""),
        ("query?query=count(resets(counter1[1m])==0)", "\"2\""),
    ] {
        let body = prometheus.get(&format!("/api/v1/{path}"));
        assert!(body.contains(part), "{path}: {body}");
    }
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn prometheus_scrapes_the_program_sturdy() {
    let program = Path::new(env!("CARGO_BIN_EXE_metricmote")).with_file_name("examples/sturdy");
    assert!(program.exists(), "run `cargo build --examples` first");
    // No other test uses this loopback address, so the port is still free when the program binds it.
    let listener = TcpListener::bind("127.0.43.2:0");
    let address = listener.and_then(|free| free.local_addr()).unwrap();
    let mut prometheus = Prometheus::start("sturdy", address);
    let mut command = Command::new(program);
    command.arg(address.to_string()).stdout(Stdio::piped());
    let mut sturdy = command.spawn().unwrap();
    let mut stdout = sturdy.stdout.take().unwrap();
    prometheus.children.push(sturdy);
    wait_for_scrapes(2, &mut stdout);

    let jobs = prometheus.read_back(address)[r#"jobs_total{"worker": "a"}"#];
    // The program counts its requests, and Prometheus may have stored the third response by now.
    assert!([2.0, 3.0].contains(&jobs), "{jobs}");
}

/// Registers random series, some of them twice, and returns the values that Prometheus should read back.
fn random_registry(random: &mut Random) -> (Registry, BTreeMap<String, f64>) {
    const LETTERS: &str = ":_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut registry = Registry::new();
    let mut expected = BTreeMap::new();
    for i in 0..200 {
        // Names start with any letter, and the number makes each one unique.
        let name = format!("{}{i}", &LETTERS[random.below(54)..]);
        let (help, is_counter) = (random.text(), random.below(2) == 0);
        let letters = &LETTERS[1 + random.below(53)..];
        let labels = (0..random.below(4)).map(|i| (format!("{letters}{i}"), String::new()));
        let mut labels: exposition::Labels = labels.collect();
        for _ in 0..=random.below(8) {
            labels.values_mut().for_each(|value| *value = random.text());
            let pairs: Vec<_> = labels.iter().rev().map(|(n, v)| (&n[..], &v[..])).collect();
            let any = f64::from_bits(random.bits());
            let mut value = [0.0, -f64::INFINITY, f64::NAN, any][random.below(40).min(3)];
            let result = if is_counter {
                value = value.abs().max(0.0);
                let counter = registry.counter(&name, &help, &pairs);
                counter.map(|counter| counter.inc_by(value))
            } else {
                let gauge = registry.gauge(&name, &help, &pairs);
                gauge.map(|gauge| gauge.set(value))
            };
            // Prometheus drops labels with an empty value.
            let kept: BTreeMap<_, _> = labels.iter().filter(|label| !label.1.is_empty()).collect();
            let series = format!("{name}{kept:?}");
            assert_eq!(result.is_err(), expected.contains_key(&series), "{series}");
            expected.entry(series).or_insert(value);
        }
    }
    (registry, expected)
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn prometheus_reads_back_whatever_the_registry_accepts() {
    let mut random = Random(3);
    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap();
    let prometheus = Prometheus::start("random", target);
    let mut scrape = server.accept().unwrap();
    for _ in 0..4 {
        let (registry, sent) = random_registry(&mut random);
        assert!(sent.len() > 500, "{} series", sent.len());
        scrape.answer(&registry.render()).unwrap();
        // When Prometheus sends the next request, it has stored this response.
        scrape = server.accept().unwrap();
        let read = prometheus.read_back(target);
        assert_eq!(read.len(), sent.len());
        for (read, sent) in read.iter().zip(&sent) {
            // Two numbers have the same text only if they have the same bits or are both NaN.
            assert_eq!(format!("{read:?}"), format!("{sent:?}"));
        }
    }
}
