//! What the README shows is real. Its Rust programs are compiled with the documentation, and its
//! `prometheus.yml` is checked by promtool in `tests/prometheus.rs`.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Metricmote, SCRAPE, exchange};

const README: &str = include_str!("../README.md");

/// The fenced blocks of one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    README
        .split(&opening)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// What the README says that a command prints.
fn output_of(command: &str) -> &'static str {
    let prompt = format!("$ {command}\n");
    let mut outputs = blocks("console")
        .into_iter()
        .filter_map(|block| block.strip_prefix(&prompt));
    outputs.next().unwrap_or_else(|| panic!("no {prompt:?}"))
}

/// A text with a `#` in place of each number that differs from run to run.
fn without_figures(text: &str) -> String {
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((start, end)) if end.parse::<f64>().is_ok() => format!("{start} #\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn the_help_is_that_of_the_program() {
    let help = Command::new(env!("CARGO_BIN_EXE_metricmote"))
        .arg("--help")
        .output()
        .unwrap();
    assert_eq!(
        output_of("cargo run -- --help"),
        String::from_utf8(help.stdout).unwrap()
    );
}

#[test]
fn the_scrape_is_that_of_the_program() {
    let server = Metricmote::start();
    let response = String::from_utf8(exchange(server.address, SCRAPE))
        .unwrap()
        .replace('\r', "");
    let (_, body) = response.split_once("\n\n").unwrap();
    let shown = output_of("curl http://127.0.0.1:8043/metrics");
    assert_eq!(without_figures(shown), without_figures(body));

    let [request, on_the_wire] = blocks("text")[..2] else {
        panic!("a request and a response")
    };
    assert_eq!(request.replace('\n', "\r\n").as_bytes(), SCRAPE);
    let response = without_figures(&response);
    assert!(
        response.starts_with(&without_figures(on_the_wire)),
        "{response}"
    );
}

#[test]
fn the_refusal_is_that_of_the_registry() {
    let error = metricmote::Registry::new()
        .gauge("a-b", "", &[])
        .unwrap_err()
        .to_string();
    assert!(README.contains(&format!("`{error}`")), "{error}");
}

#[test]
fn the_configuration_is_the_one_that_is_tested() {
    assert_eq!(blocks("yaml"), [include_str!("prometheus/prometheus.yml")]);
}

#[test]
fn the_files_that_it_names_are_there_and_it_names_all_of_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named: BTreeSet<&str> = README
        .split(['`', '(', ')', '=', ' '])
        .filter(|word| word.starts_with("src/") || word.starts_with("tests/"))
        .collect();
    for name in &named {
        assert!(root.join(name).exists(), "{name}");
    }
    for file in fs::read_dir(root.join("src")).unwrap() {
        let name = format!("src/{}", file.unwrap().file_name().to_str().unwrap());
        assert!(named.contains(name.as_str()), "{name}");
    }
}

#[test]
fn the_tests_that_it_runs_exist() {
    let mut words = README.split_whitespace();
    let mut found = 0;
    while let Some(word) = words.next() {
        if word == "--test" {
            let name = words.next().unwrap().trim_matches('`');
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{name}.rs"));
            assert!(path.exists(), "{name}");
            found += 1;
        }
    }
    assert!(found > 0);
}
