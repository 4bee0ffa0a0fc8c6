//! What the README shows is real. `ladder.rs` checks its table of faults, and `prometheus.rs` its
//! configuration.

mod support;

#[allow(dead_code, reason = "its `main` is not called")]
#[path = "examples/network.rs"]
mod network;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use support::{Metricmote, SCRAPE, exchange};

const README: &str = include_str!("../README.md");

/// Returns the fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    let blocks = README.split(&opening).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// Replaces the numbers that differ from run to run.
fn without_figures(text: &str) -> String {
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((start, end)) if end.parse::<f64>().is_ok() => format!("{start} #\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn the_scrape_is_that_of_the_program() {
    let server = Metricmote::start();
    let response = String::from_utf8(exchange(server.address, SCRAPE)).unwrap();
    let response = without_figures(&response.replace('\r', ""));
    let [request, on_the_wire, _] = blocks("text")[..] else {
        panic!("a request, a response and the steps of a scrape")
    };
    assert_eq!(request.replace('\n', "\r\n").as_bytes(), SCRAPE);
    let shown = without_figures(on_the_wire.strip_suffix("…\n").unwrap());
    assert!(response.starts_with(&shown), "{response}");
    let curl = blocks("console")[1]
        .strip_prefix("$ curl localhost:8043/metrics\n")
        .unwrap();
    assert!(
        response.ends_with(&format!("\n\n{}", without_figures(curl))),
        "{response}"
    );
}

#[test]
fn the_programs_and_the_configuration_are_those_that_run() {
    let files = [
        include_str!("examples/naive.rs"),
        include_str!("examples/jobs.rs"),
        include_str!("examples/network.rs"),
    ];
    // Without the line that says what each is.
    let programs = files.map(|file| file.split_once("\n\n").unwrap().1);
    assert_eq!(blocks("rust,no_run"), programs);
    assert_eq!(blocks("yaml"), [include_str!("prometheus/prometheus.yml")]);
}

#[test]
fn the_exporter_fails_where_its_source_has_no_count() {
    let received = |bytes: &str| {
        let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/devices");
        let table = format!("Inter-\n face\n    lo: {bytes} 27 0\n  eth0: 3 1 0\n");
        fs::write(path, table).unwrap();
        network::received(path)
    };
    let exposition = received("18446744073709551615").unwrap().render();
    assert!(exposition.contains("{device=\"lo\"} 1.8446744073709552e19\n"));
    for bytes in ["-1", "nan", "1.5", "1e3"] {
        let error = format!("{:#}", received(bytes).unwrap_err());
        assert!(error.contains(" bytes: invalid digit"), "{error}");
    }
}

#[test]
fn the_steps_and_the_files_are_those_of_the_documentation() {
    let documentation: String = include_str!("../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    assert!(documentation.contains(blocks("text")[2]));

    let words = README.split(['`', '(', ')', '=', ' ', '\n']);
    let named = words.filter(|word| word.starts_with("src/") || word.starts_with("tests/"));
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in &named {
        assert!(root.join(name).exists(), "{name}");
    }
    for file in fs::read_dir(root.join("src")).unwrap() {
        let name = format!("src/{}", file.unwrap().file_name().to_str().unwrap());
        assert!(named.contains(&name), "{name}");
    }
}

#[test]
fn the_refusal_is_that_of_the_registry() {
    let refused = metricmote::Registry::new().gauge("a-b", "", &[]);
    let error = refused.unwrap_err().to_string();
    assert!(README.contains(&format!("`{error}`")), "{error}");
}
