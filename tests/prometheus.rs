//! What a real Prometheus makes of the server. These tests need the programs `prometheus` and
//! `promtool` (on Debian both are in the package `prometheus`), so they run only on request:
//! `cargo build --examples && cargo test --test prometheus -- --ignored`. To test with another
//! Prometheus than the one in `PATH`, set the variable `PROMETHEUS` to its path.

mod support;

use std::collections::{BTreeMap, btree_map::Entry::Vacant};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, thread};

use metricmote::Registry;
use support::exposition::{Labels, parse_sample};
use support::{GUARD, Metricmote, Random, Served, exchange, scrape};

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Starts a Prometheus that scrapes the target every second, and returns its address.
fn start_prometheus(name: &str, target: SocketAddr) -> (SocketAddr, Process) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let config = include_str!("prometheus/prometheus.yml");
    let config = config.replace("127.0.0.1:8043", &target.to_string());
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
    let line = lines.find(|line| line.contains("Listening on")).unwrap();
    let address = line.rsplit("address=").next().unwrap().parse().unwrap();
    lines.find(|line| line.contains("Server is ready")).unwrap();
    // Keep reading the log, because Prometheus would stop at a full pipe.
    thread::spawn(move || lines.for_each(drop));
    (address, Process(child))
}

/// Returns the body of a response that must have the status 200.
fn get(prometheus: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    let response = String::from_utf8(exchange(prometheus, request.as_bytes())).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 OK"), "{path}: {response}");
    body.to_owned()
}

/// Waits until the query has a result.
fn wait_for(prometheus: SocketAddr, query: &str) {
    let path = format!("/api/v1/query?query={query}");
    let has_result = |_| {
        thread::sleep(GUARD / 300);
        get(prometheus, &path).contains("\"value\"")
    };
    assert!((0..300).any(has_result), "{query} has no result");
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
    let gauge = registry.gauge("depth_meters", odd, &[("path", odd)]);
    gauge.unwrap().set(-1e300);
    assert_eq!(promtool(&["metrics"], &registry.render()), "exit status: 0");

    // By convention the counter would be counter1_total, but the original program calls it counter1.
    let advice = "counter1 counter metrics should have \"_total\" suffix\nexit status: 3";
    let example = scrape(Metricmote::start().address);
    assert_eq!(promtool(&["metrics"], &example), advice);
    let printed = promtool(&["config", "tests/prometheus/prometheus.yml"], "");
    assert!(printed.ends_with("exit status: 0"), "{printed}");
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn prometheus_scrapes_the_example() {
    let server = Metricmote::start();
    let (prometheus, _process) = start_prometheus("example", server.address);
    // Every scrape succeeds, all four series change, and neither counter ever falls.
    for query in [
        "count(count_over_time({a!=''}[1m])>4)==4",
        "min_over_time(up[1m])==1",
        "count(changes(gauge1{a='2',b=~'1|2'}[1m])>0)==2",
        "count(changes(counter1{a='1',b=~'1|2'}[1m])>0)==2",
        "count(resets(counter1[1m])==0)==2",
    ] {
        wait_for(prometheus, query);
    }
    for (name, kind, help) in [("counter1", "counter", "c1"), ("gauge1", "gauge", "g1")] {
        let metadata = get(prometheus, &format!("/api/v1/metadata?metric={name}"));
        assert!(
            metadata.contains(&format!("\"type\":\"{kind}\"")),
            "{metadata}"
        );
        assert!(
            metadata.contains(&format!("\"help\":\"Help for {help}\"")),
            "{metadata}"
        );
    }
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn prometheus_scrapes_the_program_sturdy() {
    // No other test uses this loopback address, so the port is still free when the program binds it.
    let listener = TcpListener::bind("127.0.43.2:0");
    let address = listener.and_then(|free| free.local_addr()).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_metricmote")).with_file_name("examples/sturdy");
    let mut command = Command::new(program);
    command.arg(address.to_string()).stdout(Stdio::null());
    let _sturdy = Process(command.spawn().expect("`cargo build --examples` was run"));
    let (prometheus, _process) = start_prometheus("sturdy", address);
    // The program counts the scrapes that it answers, and Prometheus those that it has stored.
    let query = "jobs_total{worker='a'}==count_over_time(jobs_total[1m])>1";
    wait_for(prometheus, query);
}

/// Returns the exposition of random gauges, and the values that Prometheus should read back.
fn random_exposition() -> (String, BTreeMap<String, f64>) {
    let mut random = Random(3);
    let mut registry = Registry::new();
    let mut expected = BTreeMap::new();
    for i in 0..800 {
        // The number makes each name unique.
        let name = format!("{}{i}", [":", "_", "a", "Z"][random.below(4)]);
        let label = ["_", "a", "Z"][random.below(3)];
        let (label_count, help) = (random.below(4), random.text());
        for _ in 0..=random.below(8) {
            let labels = (0..label_count).map(|i| (format!("{label}{i}"), random.text()));
            let mut labels: Labels = labels.collect();
            let pairs: Vec<_> = labels.iter().rev().map(|(n, v)| (&n[..], &v[..])).collect();
            let gauge = registry.gauge(&name, &help, &pairs);
            // Prometheus drops labels with an empty value.
            labels.retain(|_, value| !value.is_empty());
            if let Vacant(place) = expected.entry(format!("{name}{labels:?}")) {
                let any = f64::from_bits(random.bits());
                let value = [0.0, -f64::INFINITY, f64::NAN, any][random.below(40).min(3)];
                gauge.unwrap().set(*place.insert(value));
            }
        }
    }
    (registry.render(), expected)
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn prometheus_reads_back_whatever_the_registry_accepts() {
    let (exposition, mut expected) = random_exposition();
    let server = Served::start(move |scrape| scrape.answer(&exposition));
    let (prometheus, _process) = start_prometheus("random", server.address);
    // Prometheus stores this value together with the samples of the scrape.
    wait_for(prometheus, "up==1");
    // A second Prometheus would scrape this endpoint to copy the newest value of each series.
    let endpoint = "/federate?match[]={job='metricmote',__name__!~'scrape_.*|up'}";
    let samples = get(prometheus, endpoint);
    for line in samples.lines().filter(|line| !line.starts_with('#')) {
        let (line, _timestamp) = line.rsplit_once(' ').unwrap();
        let mut sample = parse_sample(line).expect(line);
        let added = ["job", "instance"].map(|label| sample.labels.remove(label).unwrap());
        assert_eq!(added, ["metricmote", &server.address.to_string()]);
        let value = expected.remove(&format!("{}{:?}", sample.name, sample.labels));
        // Two numbers have the same text only if they have the same bits or are both NaN.
        assert_eq!(format!("{:?}", Some(sample.value)), format!("{value:?}"));
    }
    assert_eq!(expected, BTreeMap::new());
}
