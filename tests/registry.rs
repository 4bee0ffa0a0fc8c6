//! What the registry promises: whatever it accepts reads back exactly, and whatever would make a
//! scrape fail or lose data is refused.

mod support;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;
use metricmote::{Counter, Gauge, MetricsServer, Registry};
use support::Random;
use support::exposition::parse;

type Labels<'a> = &'a [(&'a str, &'a str)];

/// A function that adds an amount to the value of one series.
type Add = Box<dyn Fn(f64)>;

/// Registers a series of either type.
fn register(to: &mut Registry, kind: &str, name: &str, help: &str, labels: Labels) -> Result<Add> {
    Ok(if kind == "counter" {
        let counter = to.counter(name, help, labels)?;
        Box::new(move |amount| counter.inc_by(amount))
    } else {
        let gauge = to.gauge(name, help, labels)?;
        Box::new(move |amount| gauge.inc_by(amount))
    })
}

#[test]
fn families_series_and_labels_are_sorted_whatever_the_order_of_registration() {
    // Upper case sorts before an underscore, and an underscore before lower case. Label values are
    // sorted as text, so 10 comes before 9.
    let expected = r#"# HELP a Help.
# TYPE a gauge
a{X="10",x="1"} 6
a{X="9",x="1"} -3
# HELP a_b Help.
# TYPE a_b gauge
a_b{X="",x=""} 0.5
# HELP b_total Help.
# TYPE b_total counter
b_total 0
"#;
    let mut gauges = [
        ("a", [("X", "9"), ("x", "1")], -3.0),
        ("a_b", [("X", ""), ("x", "")], 0.5),
        ("a", [("X", "10"), ("x", "1")], 6.0),
    ];
    for _ in 0..gauges.len() {
        gauges.rotate_left(1);
        gauges[0].1.reverse();
        let mut registry = Registry::new();
        registry.counter("b_total", "Help.", &[]).unwrap();
        for (name, labels, value) in gauges {
            registry.gauge(name, "Help.", &labels).unwrap().set(value);
        }
        assert_eq!(registry.render(), expected);
    }
}

#[test]
fn a_hundred_thousand_series_keep_their_order_and_their_values() {
    let mut registry = Registry::new();
    // Every number below 100,000 comes up once, because 7919 is a prime that does not divide it.
    for number in (0..100_000).map(|i| i * 7919 % 100_000) {
        let (name, label) = (format!("f{}", number % 10), format!("{number:05}"));
        let gauge = registry.gauge(&name, "", &[("number", &label)]).unwrap();
        gauge.set(f64::from(number));
    }
    let mut expected = String::new();
    for family in 0..10 {
        expected += &format!("# HELP f{family} \n# TYPE f{family} gauge\n");
        for number in (family..100_000).step_by(10) {
            expected += &format!("f{family}{{number=\"{number:05}\"}} {number}\n");
        }
    }
    // If the two differed, `assert_eq!` would print megabytes.
    assert!(registry.render() == expected);
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
    let texts = "0 -0 1 -17 2.5 0.30000000000000004 0.00001 9.999999999999999e-6 -9.9e-6 5e-324 \
                 -2.2250738585072014e-308 1000000000000000.5 -9007199254740994 9999999999999998 \
                 1e16 -3.14e42 1.7976931348623157e308 +Inf -Inf NaN";
    for text in texts.split(' ') {
        assert_eq!(render(text.parse().unwrap()), text);
    }
    assert_eq!(render(-f64::NAN), "NaN");

    let mut random = Random(1);
    for _ in 0..10_000 {
        let eighths = random.below(1 << 52) as f64 / 8.0;
        for value in [f64::from_bits(random.bits()), eighths] {
            assert!(render(value).len() <= "-2.2250738585072014e-308".len());
        }
    }
}

#[test]
fn help_texts_and_label_values_read_back_exactly() {
    let hostile = ["C:\\", "\\n", "1\",y=\"2", "} 1 # ö", " "];
    let mut random = Random(2);
    let random = (0..1000).map(|_| random.text());
    for text in hostile.map(String::from).into_iter().chain(random) {
        let mut registry = Registry::new();
        registry.gauge("m", &text, &[("x", &text)]).unwrap();
        let family = &parse(&registry.render())[0];
        assert_eq!(family.help, text);
        assert_eq!(family.samples[0].labels["x"], text);
    }
}

/// Registers series and adds to them at random, and compares each scrape with what it should show.
#[test]
fn each_scrape_shows_every_series_once_with_its_current_value() {
    let mut random = Random(3);
    for _ in 0..100 {
        let mut registry = Registry::new();
        let mut expected: BTreeMap<String, (Add, f64)> = BTreeMap::new();
        for _ in 0..40 {
            // Some names are part of another name, or differ from it in one character.
            let name = ["a", "aa", "a_b", "b_a", "b", "b:a"][random.below(6)];
            let kind = ["counter", "gauge"][usize::from(name.starts_with('b'))];
            let (x, y) = (random.text(), ["", "1"][random.below(2)]);
            let mut labels = [("x", &*x), ("y", y)];
            let series = format!("{kind} {name} {name} {:?}", BTreeMap::from(labels));
            labels.rotate_left(random.below(2));
            let add = register(&mut registry, kind, name, name, &labels);
            assert_eq!(add.is_err(), expected.contains_key(&series), "{series}");
            expected.extend(add.ok().map(|add| (series, (add, 0.0))));

            let nth = random.below(expected.len());
            let (add, value) = expected.values_mut().nth(nth).unwrap();
            let amount = random.below(1000) as f64 / 8.0;
            add(amount);
            *value += amount;
            let mut count = 0;
            for family in parse(&registry.render()) {
                let about = [family.kind, family.name, family.help].join(" ");
                for sample in family.samples {
                    let (_, value) = &expected[&format!("{about} {:?}", sample.labels)];
                    assert_eq!(sample.value, *value, "{about}");
                    count += 1;
                }
            }
            assert_eq!(count, expected.len());
        }
    }
}

/// On a terminal, this would clear the screen, start a new line and reverse the text after it.
const HOSTILE: &str = "\x1b[2J\r\n\0\u{7f}\u{9b}\u{2028}\u{202e}";

/// Series that are registered one after another. The last column is "accepted", or words that the
/// error must contain.
#[rustfmt::skip]
const REGISTRATIONS: [(&str, &str, &str, Labels, &str); 32] = [
    ("counter", "jobs_total", "Jobs.", &[("y", ""), ("x", "1")], "accepted"),
    ("gauge", "up_seconds", "Up.", &[], "accepted"),
    ("gauge", "hostile", HOSTILE, &[("x", HOSTILE)], "accepted"),
    ("gauge", "", "", &[], "metric name"),
    ("gauge", "1a", "", &[], "metric name"),
    ("gauge", "a-b", "", &[], "metric name"),
    ("gauge", "a b", "", &[], "metric name"),
    ("gauge", "é", "", &[], "metric name"),
    ("gauge", HOSTILE, "", &[(HOSTILE, "")], "metric name"),
    ("gauge", "disks", "", &[("", "")], "\"\" label name"),
    ("gauge", "disks", "", &[("1x", "")], "1x label name"),
    ("gauge", "disks", "", &[("x:", "")], "x: label name"),
    ("gauge", "disks", "", &[("ö", "")], "ö label name"),
    ("gauge", "disks", "", &[(HOSTILE, "")], r"\u{1b}[2J\r\n label name"),
    ("gauge", "disks", "", &[("a", ""), ("__name__", "")], "__name__ reserved"),
    ("gauge", "disks", "", &[("__x", "")], "__x reserved"),
    ("gauge", "disks", "", &[("x", "1"), ("y", ""), ("x", "2")], "x twice"),
    ("gauge", "jobs_total", "Jobs.", &[("x", "2"), ("y", "")], "type gauge counter"),
    ("counter", "jobs_total", "Work.", &[("x", "2"), ("y", "")], "help Work. Jobs."),
    ("counter", "jobs_total", "Jobs.", &[("x", "2")], "label names \"x\" x,y"),
    ("counter", "jobs_total", "Jobs.", &[("xy", "2"), ("z", "")], "label names xy,z x,y"),
    ("counter", "jobs_total", "Jobs.", &[("x", "1"), ("y", "")], r#"{x=\"1\",y=\"\"} already"#),
    ("counter", "jobs_total", "Jobs.", &[("y", ""), ("x", "1")], r#"{x=\"1\",y=\"\"} already"#),
    // Prometheus would drop the empty label, so it would see the series `up_seconds` twice.
    ("gauge", "up_seconds", "Up.", &[("x", "")], "label names"),
    ("gauge", "up_seconds", "Up.", &[], "already handle clone"),
    ("gauge", "hostile", HOSTILE, &[("x", HOSTILE)], "already"),
    ("gauge", "hostile", "\x1b", &[("x", "")], "help"),
    // Each of these differs only slightly from a series that has been refused.
    ("gauge", ":_aZ09:", "", &[("_aZ09", "")], "accepted"),
    ("counter", "disks", "Disks.", &[("x", "1"), ("y", ""), ("_", "2")], "accepted"),
    ("gauge", "up_total", "", &[("job", ""), ("instance", "a")], "accepted"),
    ("counter", "jobs_total", "Jobs.", &[("x", "2"), ("y", "")], "accepted"),
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
fn no_metric_can_replace_a_series_that_prometheus_stores() {
    let stored = "up scrape_duration_seconds scrape_samples_scraped scrape_series_added \
                  scrape_samples_post_metric_relabeling scrape_timeout_seconds \
                  scrape_sample_limit scrape_body_size_bytes";
    let mut registry = Registry::new();
    for name in stored.split(' ') {
        for (kind, labels) in [("gauge", &[][..]), ("counter", &[("x", "1")])] {
            let refused = register(&mut registry, kind, name, "", labels);
            let error = refused.err().expect(name).to_string();
            assert!(error.starts_with(name) && error.contains("Prometheus stores"));
        }
        assert_eq!(registry.render(), "");
    }
}

#[test]
fn a_counter_never_falls() {
    let counter = Registry::new().counter("c_total", "", &[]).unwrap();
    counter.inc();
    counter.inc_by(0.1);
    assert_eq!(format!("{counter:?}"), "Counter(1.1)");
    for value in [1.1, f64::INFINITY] {
        counter.inc_by(value - counter.get());
        for amount in [-1.0, -f64::MIN_POSITIVE, f64::NEG_INFINITY, f64::NAN] {
            let refused = catch_unwind(AssertUnwindSafe(|| counter.inc_by(amount)));
            let message = *refused.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains(&format!("by {amount}")), "{message}");
            assert_eq!(counter.get(), value);
        }
    }
}

#[test]
fn a_gauge_goes_up_and_down() {
    let gauge = Registry::new().gauge("g", "", &[]).unwrap();
    gauge.inc();
    gauge.inc_by(2.5);
    gauge.dec();
    gauge.dec_by(0.1);
    assert_eq!(gauge.get(), 2.4);
    gauge.set(-3.0);
    assert_eq!(format!("{gauge:?}"), "Gauge(-3.0)");
}

#[test]
fn threads_share_a_number_without_losing_increments() {
    fn is_shareable<T: Clone + Send + Sync + 'static>() {}
    is_shareable::<(Counter, Gauge)>();
    fn can_move_to_a_thread<T: Send + 'static>() {}
    can_move_to_a_thread::<(Registry, MetricsServer)>();

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
        let mut last = 0.0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            let value = parse(&registry.render())[0].samples[0].value;
            assert!(value >= last, "from {last} to {value}");
            last = value;
        }
    });
    assert_eq!((counter.get(), gauge.get()), (4e6, -8e6));
}
