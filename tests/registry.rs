//! What a registered set promises: whatever is accepted reads back exactly, and what would break
//! or blur a scrape is refused.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::thread;

use metricmote::{Counter, Gauge, MetricsServer, Registry};
use support::Random;
use support::exposition::{self, Labels};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

#[test]
fn a_family_has_one_help_one_type_and_all_its_samples_together() {
    let mut registry = Registry::new();
    registry.counter("a_total", "A.", &[("x", "1")]).unwrap();
    registry.gauge("b", "B.", &[]).unwrap();
    registry
        .counter("a_total", "A.", &[("x", "2")])
        .unwrap()
        .inc();
    registry.gauge("c", "C.", &[]).unwrap().set(-1.0);
    registry.counter("a_total", "A.", &[("x", "3")]).unwrap();
    assert_eq!(
        registry.render(),
        "# HELP a_total A.\n\
         # TYPE a_total counter\n\
         a_total{x=\"1\"} 0\n\
         a_total{x=\"2\"} 1\n\
         a_total{x=\"3\"} 0\n\
         # HELP b B.\n\
         # TYPE b gauge\n\
         b 0\n\
         # HELP c C.\n\
         # TYPE c gauge\n\
         c -1\n"
    );
}

/// Families in the order of their first series, and in each the series in the order of theirs.
#[test]
fn whatever_the_order_of_registration_the_exposition_keeps_it() {
    let mut registry = Registry::new();
    let mut expected = vec![String::new(); 10];
    for i in 0..1000 {
        let family = i * 7 % 10;
        let series = format!("f{family}{{i=\"{i}\"}} 0\n");
        registry
            .gauge(&format!("f{family}"), "", &[("i", &i.to_string())])
            .unwrap();
        expected[family] += &series;
    }
    let in_order = (0..10).map(|i| i * 7 % 10);
    let expected: String = in_order
        .map(|f| format!("# HELP f{f} \n# TYPE f{f} gauge\n{}", expected[f]))
        .collect();
    assert_eq!(registry.render(), expected);
}

/// Beside `a`, a name that starts with it and one that ends with it.
#[test]
fn a_name_is_known_from_its_start_to_its_end() {
    let mut registry = Registry::new();
    for name in ["a_b", "b_a", "a", "aa", "b"] {
        registry.gauge(name, "", &[]).unwrap();
    }
    registry.gauge("c", "", &[("l", "a_b")]).unwrap();
    registry.gauge("c", "", &[("l", "a")]).unwrap();
    assert_eq!(exposition::parse(registry.render()).len(), 6);
}

/// As the documentation says; the original keeps the order in which they are given.
#[test]
fn labels_are_rendered_in_the_order_of_their_names() {
    let mut registry = Registry::new();
    registry
        .gauge("a", "", &[("z", "1"), ("b", "2"), ("B", "3")])
        .unwrap();
    assert!(
        registry
            .render()
            .ends_with("\na{B=\"3\",b=\"2\",z=\"1\"} 0\n")
    );
}

#[test]
fn an_empty_registry_renders_nothing() {
    assert_eq!(Registry::new().render(), "");
}

#[test]
fn values_are_short_and_read_back_exactly() {
    let mut registry = Registry::new();
    let gauge = registry.gauge("g", "", &[]).unwrap();
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-17.0, "-17"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-5, "0.00001"),
        (9.9e-6, "9.9e-6"),
        (5e-324, "5e-324"),
        (-2.225_073_858_507_201_4e-308, "-2.2250738585072014e-308"),
        (9_007_199_254_740_994.0, "9007199254740994"),
        (1e16, "1e16"),
        (3.14e42, "3.14e42"),
        (f64::MAX, "1.7976931348623157e308"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
        (-f64::NAN, "NaN"),
        (0.0, "0"),
    ] {
        gauge.set(value);
        let rendered = registry.render();
        assert_eq!(rendered, format!("# HELP g \n# TYPE g gauge\ng {text}\n"));
        let read = exposition::parse(rendered)[0].samples[0].value;
        assert!(read.to_bits() == value.to_bits() || read.is_nan() && value.is_nan());
    }
    let mut random = Random(1);
    for _ in 0..100_000 {
        let value = f64::from_bits(random.bits());
        gauge.set(value);
        let rendered = registry
            .render()
            .strip_prefix("# HELP g \n# TYPE g gauge\ng ")
            .unwrap();
        assert!(rendered.len() <= 25, "{rendered:?}");
        let read = exposition::parse_sample(&format!("g {}", rendered.trim_end())).value;
        assert!(
            read.to_bits() == value.to_bits() || read.is_nan() && value.is_nan(),
            "{value:e}"
        );
    }
}

#[test]
fn help_texts_and_label_values_read_back_exactly() {
    let hostile = [
        "",
        "two\nlines and a \\ backslash",
        "a \\, a \" and a\nline feed",
        "C:\\",
        "C:\\\\",
        "\\n is not \n",
        "\0",
        "\r",
        "\u{2028}",
        "} foo # bar",
        "Björn",
        " leading and trailing ",
        "# HELP x y",
    ];
    let mut registry = Registry::new();
    for (i, text) in hostile.iter().enumerate() {
        registry.gauge(&format!("m{i}"), text, &[]).unwrap();
        registry.gauge("m", "", &[("l", text)]).unwrap();
    }
    let families = exposition::parse(registry.render());
    let by_label = families.iter().find(|family| family.name == "m").unwrap();
    for (i, text) in hostile.iter().enumerate() {
        let family = families
            .iter()
            .find(|family| family.name == format!("m{i}"))
            .unwrap();
        assert_eq!(family.help, *text);
        assert_eq!(by_label.samples[i].labels, labels(&[("l", text)]));
    }
}

/// Registers and updates at random, renders now and then, and compares with what the handles say.
#[test]
fn whatever_happens_between_two_scrapes_the_exposition_tells_the_values() {
    let mut random = Random(2);
    for _ in 0..50 {
        let mut registry = Registry::new();
        let mut counters: Vec<(String, Labels, Counter)> = Vec::new();
        let mut gauges: Vec<(String, Labels, Gauge)> = Vec::new();
        for _ in 0..200 {
            match random.below(6) {
                0 => {
                    let name = format!("c{}", random.below(5));
                    let (x, y) = (random.text(), random.text());
                    let its_labels = labels(&[("x", &x), ("y", &y)]);
                    let known = counters
                        .iter()
                        .any(|(n, l, _)| (n, l) == (&name, &its_labels));
                    let result = registry.counter(&name, "C", &[("y", &y), ("x", &x)]);
                    assert_eq!(result.is_err(), known, "{name}{its_labels:?}");
                    counters.extend(result.ok().map(|counter| (name, its_labels, counter)));
                }
                1 => {
                    let name = format!("g{}", random.below(5));
                    let x = random.text();
                    let its_labels = labels(&[("x", &x)]);
                    let known = gauges
                        .iter()
                        .any(|(n, l, _)| (n, l) == (&name, &its_labels));
                    let result = registry.gauge(&name, "G", &[("x", &x)]);
                    assert_eq!(result.is_err(), known, "{name}{its_labels:?}");
                    gauges.extend(result.ok().map(|gauge| (name, its_labels, gauge)));
                }
                2 if !counters.is_empty() => {
                    counters[random.below(counters.len())]
                        .2
                        .inc_by(random.below(1000) as f64 / 8.0);
                }
                3 | 4 if !gauges.is_empty() => {
                    gauges[random.below(gauges.len())]
                        .2
                        .set(f64::from_bits(random.bits()));
                }
                _ => {
                    let families = exposition::parse(registry.render());
                    let expected = counters.iter().map(|(n, l, c)| ("counter", n, l, c.get()));
                    let expected =
                        expected.chain(gauges.iter().map(|(n, l, g)| ("gauge", n, l, g.get())));
                    for (kind, name, labels, value) in expected {
                        let family = families.iter().find(|family| family.name == *name).unwrap();
                        assert_eq!(family.kind, kind);
                        let sample = family.samples.iter().find(|s| s.labels == *labels).unwrap();
                        assert!(sample.value == value || sample.value.is_nan() && value.is_nan());
                    }
                    let samples: usize = families.iter().map(|family| family.samples.len()).sum();
                    assert_eq!(samples, counters.len() + gauges.len());
                }
            }
        }
    }
}

/// Each refused registration, and words that its error must have.
#[test]
fn what_would_break_a_scrape_is_refused_and_changes_nothing() {
    let mut registry = Registry::new();
    registry
        .counter(
            "requests_total",
            "Requests.",
            &[("method", "get"), ("code", "")],
        )
        .unwrap();
    registry.gauge("up_seconds", "Up.", &[]).unwrap();
    let before = registry.render().to_owned();
    let mut refuse = |result: fn(&mut Registry) -> anyhow::Result<()>, words: &[&str]| {
        let error = result(&mut registry).expect_err(words[0]).to_string();
        for word in words {
            assert!(error.contains(word), "{error:?} does not say {word:?}");
        }
        assert!(!error.contains('\n'), "{error:?} is not one line");
        assert_eq!(registry.render(), before);
    };

    refuse(|r| r.gauge("1a", "", &[]).map(drop), &["1a", "metric name"]);
    refuse(
        |r| r.gauge("a-b", "", &[]).map(drop),
        &["a-b", "metric name"],
    );
    refuse(
        |r| r.gauge("a.b", "", &[]).map(drop),
        &["a.b", "metric name"],
    );
    refuse(|r| r.gauge("é", "", &[]).map(drop), &["é", "metric name"]);
    refuse(
        |r| r.gauge("a\nb", "", &[]).map(drop),
        &["a\\nb", "metric name"],
    );
    refuse(
        |r| r.gauge("a b", "", &[]).map(drop),
        &["a b", "metric name"],
    );
    refuse(|r| r.gauge("", "", &[]).map(drop), &["\"\"", "metric name"]);

    refuse(|r| r.gauge("up", "", &[]).map(drop), &["up cannot"]);
    refuse(
        |r| {
            r.counter("scrape_duration_seconds", "", &[("x", "")])
                .map(drop)
        },
        &["scrape_duration_seconds", "Prometheus stores"],
    );
    refuse(
        |r| r.gauge("scrape_samples_scraped", "", &[]).map(drop),
        &["scrape_samples_scraped", "Prometheus stores"],
    );
    refuse(
        |r| {
            r.gauge("scrape_samples_post_metric_relabeling", "", &[])
                .map(drop)
        },
        &["scrape_samples_post_metric_relabeling", "Prometheus stores"],
    );
    refuse(
        |r| r.gauge("scrape_series_added", "", &[]).map(drop),
        &["scrape_series_added", "Prometheus stores"],
    );

    refuse(
        |r| r.gauge("m", "", &[("1x", "")]).map(drop),
        &["m:", "1x", "label name"],
    );
    refuse(
        |r| r.gauge("m", "", &[("le:", "")]).map(drop),
        &["m:", "le:", "label name"],
    );
    refuse(
        |r| r.gauge("m", "", &[("", "")]).map(drop),
        &["m:", "\"\"", "label name"],
    );
    refuse(
        |r| r.gauge("m", "", &[("ö", "")]).map(drop),
        &["m:", "ö", "label name"],
    );
    refuse(
        |r| r.gauge("m", "", &[("__name__", "")]).map(drop),
        &["m:", "__name__", "reserved for Prometheus"],
    );
    refuse(
        |r| {
            r.gauge("m", "", &[("x", "1"), ("y", ""), ("x", "2")])
                .map(drop)
        },
        &["m:", "x", "twice"],
    );

    refuse(
        |r| {
            r.gauge(
                "requests_total",
                "Requests.",
                &[("method", "get"), ("code", "")],
            )
            .map(drop)
        },
        &[
            "requests_total",
            "type",
            "gauge",
            "registered with \"counter\"",
        ],
    );
    refuse(
        |r| {
            r.counter(
                "requests_total",
                "Other.",
                &[("method", "put"), ("code", "")],
            )
            .map(drop)
        },
        &["requests_total", "help", "Other.", "Requests."],
    );
    refuse(
        |r| {
            r.counter("requests_total", "Requests.", &[("method", "put")])
                .map(drop)
        },
        &["requests_total", "label names", "method", "code"],
    );
    refuse(
        |r| {
            let labels = [("codem", ""), ("ethod", "put")];
            r.counter("requests_total", "Requests.", &labels).map(drop)
        },
        &["requests_total", "label names", "codem,ethod"],
    );
    // An empty label value is to Prometheus as if the label were not there.
    refuse(
        |r| r.gauge("up_seconds", "Up.", &[("x", "")]).map(drop),
        &["up_seconds", "label names"],
    );
    refuse(
        |r| {
            r.counter(
                "requests_total",
                "Requests.",
                &[("method", "get"), ("code", "")],
            )
            .map(drop)
        },
        &[
            r#""requests_total{code=\"\",method=\"get\"}""#,
            "registered already: keep its handle, or a clone",
        ],
    );
    refuse(
        |r| {
            r.counter(
                "requests_total",
                "Requests.",
                &[("code", ""), ("method", "get")],
            )
            .map(drop)
        },
        &[
            r#""requests_total{code=\"\",method=\"get\"}""#,
            "registered already: keep its handle, or a clone",
        ],
    );
    refuse(
        |r| r.gauge("up_seconds", "Up.", &[]).map(drop),
        &[
            "up_seconds",
            "registered already: keep its handle, or a clone",
        ],
    );

    // No error brings a control character to a terminal.
    let hostile = [("l", "\x1b[2J\r\n\u{2028}")];
    registry.gauge("hostile", "", &hostile).unwrap();
    for error in [
        registry.gauge("hostile", "", &hostile).unwrap_err(),
        registry.gauge("hostile", "\x1b", &hostile).unwrap_err(),
        registry.gauge("\x1b", "", &[]).unwrap_err(),
        registry.gauge("m", "", &[("\x1b", "")]).unwrap_err(),
    ] {
        let plain = |c: char| c == ' ' || c.is_ascii_graphic();
        assert!(error.to_string().chars().all(plain), "{error:?}");
    }

    // The refusals stand in the way of nothing else.
    registry
        .counter(
            "requests_total",
            "Requests.",
            &[("method", "put"), ("code", "")],
        )
        .unwrap();
    registry.gauge(":_aZ09:", "", &[("_aZ09", "")]).unwrap();
}

#[test]
fn a_counter_refuses_to_fall_and_keeps_its_value() {
    let counter = Registry::new().counter("c_total", "", &[]).unwrap();
    counter.inc();
    counter.inc_by(0.5);
    counter.inc_by(0.0);
    for amount in [-1.0, -f64::MIN_POSITIVE, f64::NEG_INFINITY, f64::NAN] {
        let fall = catch_unwind(AssertUnwindSafe(|| counter.inc_by(amount)));
        let message = *fall.expect_err("a panic").downcast::<String>().unwrap();
        assert!(
            message.contains("a counter cannot be increased by"),
            "{message}"
        );
        assert_eq!(counter.get(), 1.5);
    }
}

#[test]
fn a_gauge_goes_up_and_down() {
    let gauge = Registry::new().gauge("g", "", &[]).unwrap();
    assert_eq!(gauge.get(), 0.0);
    gauge.inc();
    gauge.inc_by(2.5);
    gauge.dec();
    gauge.dec_by(0.25);
    assert_eq!(gauge.get(), 2.25);
    gauge.set(-3.0);
    assert_eq!(gauge.get(), -3.0);
    assert_eq!(format!("{gauge:?}"), "Gauge(-3.0)");
}

#[test]
fn each_of_a_thousand_series_has_a_number_of_its_own() {
    let mut registry = Registry::new();
    let gauges: Vec<Gauge> = (0..1000)
        .map(|i| registry.gauge("g", "", &[("i", &i.to_string())]).unwrap())
        .collect();
    for (i, gauge) in gauges.iter().enumerate() {
        gauge.set(i as f64);
    }
    let families = exposition::parse(registry.render());
    assert_eq!(families[0].samples.len(), 1000);
    for (i, (gauge, sample)) in gauges.iter().zip(&families[0].samples).enumerate() {
        assert_eq!((gauge.get(), sample.value), (i as f64, i as f64));
    }
}

#[test]
fn handles_work_from_any_thread_and_no_increment_is_lost() {
    fn is_shareable<T: Clone + Send + Sync + 'static>() {}
    is_shareable::<Counter>();
    is_shareable::<Gauge>();
    fn can_move_to_a_thread<T: Send + 'static>() {}
    can_move_to_a_thread::<Registry>();
    can_move_to_a_thread::<MetricsServer>();

    let mut registry = Registry::new();
    let counter = registry.counter("c_total", "", &[]).unwrap();
    let gauge = registry.gauge("g", "", &[]).unwrap();
    let together = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            let (counter, gauge, together) = (counter.clone(), gauge.clone(), &together);
            scope.spawn(move || {
                together.wait();
                for _ in 0..500_000 {
                    counter.inc();
                    gauge.dec_by(2.0);
                }
            });
        }
        // The registry renders meanwhile, and a counter is never seen to fall.
        let mut last = 0.0;
        for _ in 0..1_000 {
            let value = exposition::parse(registry.render())[0].samples[0].value;
            assert!(value >= last, "from {last} to {value}");
            last = value;
        }
    });
    assert_eq!((counter.get(), gauge.get()), (2e6, -4e6));
}
