//! What the registry promises: whatever it accepts reads back exactly, and whatever would make a
//! scrape fail or lose data is refused.

mod support;

use std::collections::BTreeMap;
use std::iter::repeat_with;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;
use metricmote::{Counter, Gauge, Registry};
use support::Random;
use support::exposition::parse;

type Labels<'a> = &'a [(&'a str, &'a str)];

/// A function that adds an amount to the value of one series.
type Add = Box<dyn Fn(f64)>;

/// Registers a counter or a gauge.
fn register(to: &mut Registry, kind: &str, name: &str, help: &str, labels: Labels) -> Result<Add> {
    if kind == "counter" {
        let counter = to.counter(name, help, labels)?;
        return Ok(Box::new(move |amount| counter.inc_by(amount)));
    }
    let gauge = to.gauge(name, help, labels)?;
    Ok(Box::new(move |amount| gauge.inc_by(amount)))
}

#[test]
fn families_series_and_labels_are_sorted_whatever_the_order_of_registration() {
    let mut registry = Registry::new();
    let labels = [("x", ""), ("X", "")];
    registry.counter("a_total", "Help.", &labels).unwrap();
    for (labels, value) in [
        ([("x", "1"), ("X", "9")], -3.0),
        ([("X", "10"), ("x", "1")], 6.0),
    ] {
        registry.gauge("a", "Help.", &labels).unwrap().set(value);
    }
    // Upper case sorts before lower case. Label values are sorted as text, so 10 comes before 9.
    let expected = r#"# HELP a Help.
# TYPE a gauge
a{X="10",x="1"} 6
a{X="9",x="1"} -3
# HELP a_total Help.
# TYPE a_total counter
a_total{X="",x=""} 0
"#;
    assert_eq!(registry.render(), expected);
}

#[test]
fn values_are_short_and_read_back_exactly() {
    let mut registry = Registry::new();
    let gauge = registry.gauge("g", "", &[]).unwrap();
    let render = |value: f64| {
        gauge.set(value);
        let exposition = registry.render();
        let read = parse(&exposition)[0].samples[0].value;
        assert_eq!(format!("{read:?}"), format!("{value:?}"));
        exposition.lines().last().unwrap()["g ".len()..].to_owned()
    };
    let texts = "0 -0 1 -4294967297 2.5 0.30000000000000004 0.00001 9.999999999999999e-6 -9.9e-6 5e-324 \
                 -2.2250738585072014e-308 1000000000000000.5 -9007199254740994 9999999999999998 \
                 1e16 -3.14e42 1.7976931348623157e308 +Inf -Inf NaN";
    for text in texts.split(' ') {
        assert_eq!(render(text.parse().unwrap()), text);
    }

    let mut random = Random(1);
    for _ in 0..10_000 {
        let text = render(f64::from_bits(random.bits()));
        assert!(text.len() <= "-2.2250738585072014e-308".len(), "{text}");
    }
}

/// Registers series and adds to them at random, and compares each scrape with what it should show.
#[test]
fn each_scrape_shows_every_series_once_with_its_exact_help_labels_and_value() {
    let mut random = Random(3);
    for _ in 0..100 {
        let mut registry = Registry::new();
        let mut adds: Vec<(String, Add)> = Vec::new();
        let mut expected = BTreeMap::new();
        // Some names are part of another name, or differ from it in one character.
        let families = ["a", "aa", "a_b", "b_a", "b", "b:a"].map(|name| (name, random.text()));
        for _ in 0..40 {
            let (name, help) = &families[random.below(6)];
            let kind = ["counter", "gauge"][usize::from(name.starts_with('b'))];
            let (x, y) = (random.text(), ["", "1"][random.below(2)]);
            let mut labels = [("x", &*x), ("y", y)];
            let series = format!("{kind} {name} {help} {:?}", BTreeMap::from(labels));
            labels.rotate_left(random.below(2));
            let add = register(&mut registry, kind, name, help, &labels);
            assert_eq!(add.is_err(), expected.contains_key(&series), "{series}");
            expected.entry(series.clone()).or_insert(0.0);
            adds.extend(add.map(|add| (series, add)));

            let (series, add) = &adds[random.below(adds.len())];
            let amount = random.below(1000) as f64 / 8.0;
            add(amount);
            *expected.get_mut(series).unwrap() += amount;

            let mut shown = BTreeMap::new();
            for family in parse(&registry.render()) {
                let about = [family.kind, family.name, family.help].join(" ");
                for sample in family.samples {
                    shown.insert(format!("{about} {:?}", sample.labels), sample.value);
                }
            }
            assert_eq!(shown, expected);
        }
    }
}

/// On a terminal, this would clear the screen, start a new line and reverse the text after it.
const HOSTILE: &str = "\x1b[2J\r\n\0\u{7f}\u{9b}\u{2028}\u{202e}";

/// Series that are registered one after another. The last column is "accepted", or words that the
/// error must contain.
#[rustfmt::skip]
const REGISTRATIONS: [(&str, &str, &str, Labels, &str); 38] = [
    ("counter", "jobs_total", "Jobs.", &[("y", ""), ("x", "1")], "accepted"),
    ("gauge", "up_seconds", "Up.", &[], "accepted"),
    ("gauge", "hostile", HOSTILE, &[("x", HOSTILE)], "accepted"),
    ("gauge", "", "", &[], "metric name"),
    ("counter", "1a", "", &[], "metric name"),
    ("gauge", "a-b", "", &[], "metric name"),
    ("gauge", "a b", "", &[], "metric name"),
    ("gauge", "é", "", &[], "metric name"),
    ("gauge", HOSTILE, "", &[(HOSTILE, "")], "metric name"),
    // Prometheus itself stores series with these names, so a metric would replace them.
    ("gauge", "up", "", &[], "Prometheus stores"),
    ("counter", "scrape_duration_seconds", "", &[("x", "")], "Prometheus stores"),
    ("gauge", "scrape_samples_scraped", "", &[("x", "")], "Prometheus stores"),
    ("counter", "scrape_samples_post_metric_relabeling", "", &[], "Prometheus stores"),
    ("gauge", "scrape_series_added", "", &[], "Prometheus stores"),
    ("gauge", "scrape_timeout_seconds", "", &[], "Prometheus stores"),
    ("gauge", "scrape_sample_limit", "", &[], "Prometheus stores"),
    ("gauge", "scrape_body_size_bytes", "", &[], "Prometheus stores"),
    ("gauge", "disks", "", &[("", "")], "\"\" label name"),
    ("gauge", "disks", "", &[("1x", "")], "1x label name"),
    ("gauge", "disks", "", &[("x:", "")], "x: label name"),
    ("gauge", "disks", "", &[("A", ""), ("ö", "")], "ö label name"),
    ("gauge", "disks", "", &[(HOSTILE, "")], r"\u{1b}[2J\r\n label name"),
    ("gauge", "disks", "", &[("a", ""), ("__name__", "")], "__name__ reserved"),
    ("gauge", "disks", "", &[("__x", "")], "__x reserved"),
    ("gauge", "disks", "", &[("x", "1"), ("y", ""), ("x", "2")], "x twice"),
    ("gauge", "jobs_total", "Jobs.", &[("x", ""), ("y", "1")], "type gauge counter"),
    ("counter", "jobs_total", "Work.", &[("x", ""), ("y", "1")], "help Work. Jobs."),
    ("counter", "jobs_total", "Jobs.", &[("xy", "2")], "label names \"xy\" x,y"),
    ("counter", "jobs_total", "Jobs.", &[("x", "2"), ("z", "")], "label names x,z x,y"),
    ("counter", "jobs_total", "Jobs.", &[("x", "1"), ("y", "")], r#"{x=\"1\",y=\"\"} already"#),
    // Prometheus would drop the empty label, so it would see the series `up_seconds` twice.
    ("gauge", "up_seconds", "Up.", &[("x", "")], "label names"),
    ("gauge", "up_seconds", "Up.", &[], "already handle clone"),
    ("gauge", "hostile", HOSTILE, &[("x", HOSTILE)], "already"),
    ("gauge", "hostile", "\x1b", &[("x", "")], "help"),
    // Each of these differs only slightly from a series that has been refused.
    ("gauge", ":_aZ09:", "", &[("_aZ09", "")], "accepted"),
    ("counter", "disks", "Disks.", &[("x", "1"), ("y", "1"), ("_", "")], "accepted"),
    ("gauge", "up_total", "", &[("job", ""), ("instance", "a")], "accepted"),
    ("counter", "jobs_total", "Jobs.", &[("x", ""), ("y", "1")], "accepted"),
];

#[test]
fn what_would_break_a_scrape_is_refused_with_the_reason_and_changes_nothing() {
    let mut registry = Registry::new();
    for (kind, name, help, labels, words) in REGISTRATIONS {
        let before = registry.render();
        let Err(error) = register(&mut registry, kind, name, help, labels) else {
            assert_eq!(words, "accepted", "{kind} {name:?} {help:?} {labels:?}");
            continue;
        };
        let error = format!("{error:#}");
        let escaped_name = name.escape_debug().to_string();
        for word in words.split(' ').chain([&*escaped_name]) {
            assert!(error.contains(word), "{error:?} does not say {word:?}");
        }
        // Letters may be printed as they are, but control characters must be escaped.
        let is_plain = |c: char| c == ' ' || c.is_ascii_graphic() || c.is_alphabetic();
        assert!(error.chars().all(is_plain), "{error:?}");
        assert_eq!(registry.render(), before, "{error}");
    }
    assert_eq!(parse(&registry.render()).len(), 6);
}

#[test]
fn a_counter_never_falls() {
    let counter = Registry::new().counter("c_total", "", &[]).unwrap();
    counter.inc();
    counter.inc_by(0.1);
    for amount in [-1.0, -f64::MIN_POSITIVE, f64::NEG_INFINITY, f64::NAN] {
        let refused = catch_unwind(AssertUnwindSafe(|| counter.inc_by(amount)));
        let message = *refused.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains(&format!("by {amount}")), "{message}");
        assert_eq!(format!("{counter:?}"), "Counter(1.1)");
    }
    counter.inc_by(f64::INFINITY);
    assert_eq!(counter.get(), f64::INFINITY);
}

#[test]
fn a_gauge_goes_up_and_down() {
    let gauge = Registry::new().gauge("g", "", &[]).unwrap();
    gauge.inc();
    gauge.inc_by(-2.5);
    gauge.dec();
    gauge.dec_by(0.1);
    assert_eq!(gauge.get(), -2.6);
    gauge.set(3.0);
    assert_eq!(format!("{gauge:?}"), "Gauge(3.0)");
}

#[test]
fn threads_share_a_number_without_losing_increments() {
    fn can_be_shared<T: Send + Sync + 'static>() {}
    can_be_shared::<(Counter, Gauge, Registry)>();

    let mut registry = Registry::new();
    let counter = registry.counter("c_total", "", &[]).unwrap();
    let gauge = registry.gauge("g", "", &[]).unwrap();
    std::thread::scope(|scope| {
        let count = || {
            let (counter, gauge) = (counter.clone(), gauge.clone());
            for _ in 0..1_000_000 {
                counter.inc();
                gauge.dec_by(2.0);
            }
        };
        let threads = [count; 4].map(|count| scope.spawn(count));
        // Meanwhile, no scrape shows a lower value than the scrape before.
        let scrape = || parse(&registry.render())[0].samples[0].value;
        let is_counting = |_: &f64| threads.iter().any(|thread| !thread.is_finished());
        assert!(repeat_with(scrape).take_while(is_counting).is_sorted());
    });
    assert_eq!((counter.get(), gauge.get()), (4e6, -8e6));
}
