//! What a real Prometheus makes of it. These tests need the programs `prometheus` and `promtool`
//! (on Debian the package `prometheus`), so they run only when asked for:
//!
//! ```sh
//! cargo test --test prometheus -- --ignored
//! ```
//!
//! `PROMETHEUS=/path/to/prometheus` names another Prometheus than the one in `PATH`.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use metricmote::{Counter, Gauge, MetricsServer, Registry};
use support::exposition::{self, Labels};
use support::{Metricmote, Random, exchange, scrape};

const CONFIG: &str = include_str!("prometheus/prometheus.yml");

/// A Prometheus that scrapes one target every second; it ends with the test.
struct Prometheus {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Prometheus {
    fn start(name: &str, target: SocketAddr) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let config = CONFIG.replace("127.0.0.1:8043", &target.to_string());
        assert!(config.contains(&target.to_string()));
        fs::write(folder.join("prometheus.yml"), config).unwrap();

        let program = std::env::var("PROMETHEUS").unwrap_or("prometheus".to_owned());
        let mut child = Command::new(&program)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg("--web.listen-address=127.0.0.1:0")
            .current_dir(&folder)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut log = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut prometheus = Self {
            child,
            folder,
            address: target,
        };
        let line = log
            .find(|line| line.contains("\"Listening on\""))
            .expect("it listens");
        let (_, address) = line.split_once("address=").unwrap();
        prometheus.address = address.split(' ').next().unwrap().parse().unwrap();
        // It would stop at a pipe that is full.
        thread::spawn(move || log.for_each(drop));
        prometheus
    }

    /// The body of a 200.
    fn get(&self, path: &str) -> String {
        let response = exchange(
            self.address,
            format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes(),
        );
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 OK"), "{path}: {response}");
        body.to_owned()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What `promtool check metrics` says of an exposition, and its exit code.
fn promtool(text: &str) -> (String, Option<i32>) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.code())
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn promtool_accepts_the_exposition_and_the_configuration() {
    let server = Metricmote::start();
    let (said, code) = promtool(&scrape(server.address));
    // The names are those of the original; the convention would have it counter1_total.
    assert_eq!(
        said,
        "counter1 counter metrics should have \"_total\" suffix\n"
    );
    assert_eq!(code, Some(3));

    let mut registry = Registry::new();
    let odd = "\n\\n\\ \"quoted\" {} # ö";
    registry
        .counter("requests_total", odd, &[("path", odd)])
        .unwrap()
        .inc_by(0.1 + 0.2);
    registry
        .gauge("depth_meters", "Depth.", &[])
        .unwrap()
        .set(-1e300);
    assert_eq!(promtool(registry.render()), (String::new(), Some(0)));

    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/prometheus/prometheus.yml"
    );
    let check = Command::new("promtool")
        .args(["check", "config", config])
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn prometheus_scrapes_the_example() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metricmote"));
    command.arg("0").stderr(Stdio::null());
    let (server, stdout) = Metricmote::spawn_unread(command);
    let prometheus = Prometheus::start("example", server.address);
    // When it asks for the sixth time it has stored five.
    let scrapes = stdout
        .lines()
        .map(Result::unwrap)
        .filter(|line| line.starts_with("GET"));
    assert_eq!(scrapes.take(6).last().unwrap(), "GET /metrics HTTP/1.1");

    let targets = prometheus.get("/api/v1/targets");
    assert!(targets.contains("\"health\":\"up\""), "{targets}");
    assert!(targets.contains("\"lastError\":\"\""), "{targets}");
    for (name, help, kind, series) in [
        (
            "counter1",
            "Help for c1",
            "counter",
            [("1", "1"), ("1", "2")],
        ),
        ("gauge1", "Help for g1", "gauge", [("2", "1"), ("2", "2")]),
    ] {
        let metadata = prometheus.get(&format!("/api/v1/metadata?metric={name}"));
        // In an order of its own in each version.
        for entry in [
            format!("\"type\":\"{kind}\""),
            format!("\"help\":\"{help}\""),
        ] {
            assert!(metadata.contains(&entry), "{metadata}");
        }

        let answer = prometheus.get(&format!("/api/v1/query?query={name}%5B1m%5D"));
        assert_eq!(answer.matches("\"metric\":").count(), 2, "{answer}");
        for (a, b) in series {
            let labels = format!(
                "\"metric\":{{\"__name__\":\"{name}\",\"a\":\"{a}\",\"b\":\"{b}\",\
                 \"instance\":\"{}\",\"job\":\"metricmote\"}},\"values\":[[",
                server.address
            );
            let (_, values) = answer
                .split_once(&labels)
                .unwrap_or_else(|| panic!("{answer}"));
            let (values, _) = values.split_once("]]").unwrap();
            let values: Vec<f64> = values
                .split("],[")
                .map(|pair| pair.split('"').nth(1).unwrap().parse().unwrap())
                .collect();
            assert!(values.len() >= 5, "{values:?}");
            assert!(
                values.iter().any(|value| *value != values[0]),
                "{name} stands: {values:?}"
            );
            assert!(
                kind == "gauge" || values.is_sorted(),
                "{name} fell: {values:?}"
            );
        }
    }
    let up = prometheus.get("/api/v1/query?query=up");
    assert!(up.contains(",\"1\"]}"), "{up}");
}

enum Handle {
    Counter(Counter),
    Gauge(Gauge),
}

/// A name that the format allows, and that Prometheus does not give to anything itself.
fn random_name(random: &mut Random, alphabet: &[u8]) -> String {
    loop {
        let length = 1 + random.below(10);
        let name = (0..length).map(|_| alphabet[random.below(alphabet.len())] as char);
        let name: String = name.collect();
        let own = ["up", "job", "instance"].contains(&name.as_str()) || name.starts_with("__");
        if !name.starts_with(|c: char| c.is_ascii_digit()) && !own {
            return name;
        }
    }
}

#[test]
#[ignore = "needs the programs prometheus and promtool"]
fn prometheus_reads_back_whatever_the_registry_accepts() {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789:";
    let mut random = Random(3);
    let mut registry = Registry::new();
    let mut series: Vec<(String, Labels, Handle)> = Vec::new();
    let mut families: BTreeMap<String, (bool, String, Vec<String>)> = BTreeMap::new();
    let mut known: BTreeSet<(String, Labels)> = BTreeSet::new();
    for _ in 0..200 {
        let name = random_name(&mut random, LETTERS);
        let help = random.text();
        let counter = random.below(2) == 0;
        let label_names: Vec<String> = (0..random.below(4))
            .map(|_| random_name(&mut random, LETTERS.strip_suffix(b":").unwrap()))
            .collect();
        for _ in 0..=random.below(8) {
            let values: Vec<String> = label_names.iter().map(|_| random.text()).collect();
            let labels: Vec<(&str, &str)> = label_names
                .iter()
                .zip(&values)
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
            let handle = if counter {
                registry.counter(&name, &help, &labels).map(Handle::Counter)
            } else {
                registry.gauge(&name, &help, &labels).map(Handle::Gauge)
            };
            let sorted: Labels = labels
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect();
            // Not with a label twice, nor in a family of its own under a known name, nor twice.
            let family = (counter, help.clone(), sorted.keys().cloned().collect());
            let acceptable = sorted.len() == labels.len()
                && *families.entry(name.clone()).or_insert(family.clone()) == family
                && known.insert((name.clone(), sorted.clone()));
            assert_eq!(handle.is_ok(), acceptable, "{name}{labels:?}");
            let Ok(handle) = handle else { continue };
            // To Prometheus a label without a value is no label.
            let labels = sorted.into_iter().filter(|label| !label.1.is_empty());
            let labels = labels.collect();
            series.push((name.clone(), labels, handle));
        }
    }
    assert!(series.len() > 500, "{} series", series.len());

    let mut server = MetricsServer::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap();
    let prometheus = Prometheus::start("random", target);
    let mut scrape = server.accept().unwrap();
    for _ in 0..4 {
        for (_, _, handle) in &series {
            match handle {
                Handle::Counter(counter) => {
                    let amount = f64::from_bits(random.bits() >> 1);
                    counter.inc_by(if amount.is_nan() { 1.0 } else { amount });
                }
                Handle::Gauge(gauge) => gauge.set(f64::from_bits(random.bits())),
            }
        }
        scrape.answer(registry.render()).unwrap();
        // When it asks for the next it has stored this one.
        scrape = server.accept().unwrap();

        let federated = prometheus.get("/federate?match%5B%5D=%7Bjob%3D%22metricmote%22%7D");
        let mut read: BTreeMap<(String, Labels), f64> = BTreeMap::new();
        for line in federated.lines().filter(|line| !line.starts_with('#')) {
            let mut sample = exposition::parse_sample(line);
            assert_eq!(sample.labels.remove("job").unwrap(), "metricmote");
            assert_eq!(
                sample.labels.remove("instance").unwrap(),
                target.to_string()
            );
            read.insert((sample.name, sample.labels), sample.value);
        }
        assert_eq!(read.remove(&("up".to_owned(), Labels::new())), Some(1.0));
        read.retain(|(name, _), _| !name.starts_with("scrape_"));
        assert_eq!(read.len(), series.len());
        for (name, labels, handle) in &series {
            let expected = match handle {
                Handle::Counter(counter) => counter.get(),
                Handle::Gauge(gauge) => gauge.get(),
            };
            let value = read[&(name.clone(), labels.clone())];
            let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
            assert!(same, "{name}{labels:?}: {value:e}, not {expected:e}");
        }
    }
}
