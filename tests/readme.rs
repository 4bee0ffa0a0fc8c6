//! What the README shows is real. Its Rust programs are examples, and its `prometheus.yml` is checked
//! by promtool in `tests/prometheus.rs`.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
fn the_scrape_is_that_of_the_program() {
    let server = Metricmote::start();
    let response = String::from_utf8(exchange(server.address, SCRAPE))
        .unwrap()
        .replace('\r', "");
    let (_, body) = response.split_once("\n\n").unwrap();
    let shown = output_of("curl localhost:8043/metrics");
    assert_eq!(without_figures(shown), without_figures(body));

    let [_, request, on_the_wire] = blocks("text")[..] else {
        panic!("the walk, a request and a response")
    };
    assert_eq!(request.replace('\n', "\r\n").as_bytes(), SCRAPE);
    let response = without_figures(&response);
    assert!(
        response.starts_with(&without_figures(on_the_wire)),
        "{response}"
    );
}

#[test]
fn the_walk_of_a_scrape_is_that_of_the_documentation() {
    let documentation: String = include_str!("../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    assert!(documentation.contains(blocks("text")[0]));
}

#[test]
fn the_programs_are_those_that_run() {
    let shown = blocks("rust,no_run");
    let files = [
        include_str!("examples/naive.rs"),
        include_str!("examples/jobs.rs"),
        include_str!("examples/network.rs"),
    ];
    // Without the line that says what they are.
    assert_eq!(shown, files.map(|file| file.split_once("\n\n").unwrap().1));
}

/// Each cure and each proof: a function, a method or a constant in the file that was named last, and a
/// test.
#[test]
fn the_names_that_it_gives_are_there() {
    let texts_in = |folder: &str| -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let files = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|name| name == "rs"));
        files
            .map(|path| fs::read_to_string(path).unwrap())
            .collect()
    };
    let tests = texts_in("tests");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut source = String::new();
    let (_, list) = README.split_once("and break it.").unwrap();
    let (list, _) = list.split_once("\n## ").unwrap();
    let mut found = [0, 0];
    for proof in list.split("→").skip(1) {
        let (cures, test) = proof.split_once("; ").unwrap();
        let test = test.split('`').nth(1).unwrap();
        assert!(tests.contains(&format!("fn {test}()")), "{test}");
        found[0] += 1;
        for cure in cures.split('`').skip(1).step_by(2) {
            if cure.contains('/') {
                source = fs::read_to_string(root.join(cure)).unwrap();
            }
        }
        for cure in cures.split('`').skip(1).step_by(2) {
            if !cure.contains('/') {
                let name = cure.rsplit(':').next().unwrap();
                let defined = source.contains(&format!("fn {name}("))
                    || source.contains(&format!("const {name}:"));
                assert!(defined, "{cure}");
                found[1] += 1;
            }
        }
    }
    assert_eq!(found, [9, 10]);
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
