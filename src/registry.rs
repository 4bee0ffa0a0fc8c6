//! The registry: checks which series are registered, and renders them all at each scrape.
//!
//! It consists of maps on two levels, because the text format has two levels as well: the first map
//! contains the families by their names, and each family contains its series by their labels.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::exposition::{escape, format_header, format_labels, format_value};
use crate::metric::{Counter, Gauge, Value};

/// The metrics of a program.
///
/// A *family* has a name, a type and a help text. It contains one *series* for each combination of
/// label values.
///
/// Whatever the registry accepts arrives in Prometheus with the same names, labels and values.
/// (Prometheus itself changes labels in two cases, which [`counter`](Self::counter) describes.)
/// Whatever would make a scrape fail or lose data is refused when it is registered, with an error
/// that names the metric and the rule. A refused registration changes nothing.
///
/// # Two ways to use it
///
/// To *instrument* a program, register each series once and keep the handle that you get.
///
/// To *export* the numbers of another system, such as a kernel or a device, create a new registry
/// for each scrape and fill it with the numbers of that moment. A series that has disappeared from
/// the other system is then gone from the exposition. A counter that has been reset there shows a
/// smaller value, from which Prometheus concludes that it has been reset:
///
/// ```
/// use metricmote::Registry;
///
/// fn export(disks: &[(&str, u32)]) -> anyhow::Result<String> {
///     let mut registry = Registry::new();
///     for (disk, bytes) in disks {
///         let help = "Bytes read since the disk was switched on.";
///         let counter = registry.counter("disk_read_bytes_total", help, &[("disk", disk)])?;
///         counter.inc_by(f64::from(*bytes));
///     }
///     Ok(registry.render())
/// }
///
/// fn main() -> anyhow::Result<()> {
///     let exposition = export(&[("a", 20), ("b", 6)])?;
///     assert!(exposition.contains("disk_read_bytes_total{disk=\"a\"} 20\n"));
///     assert!(exposition.contains("disk_read_bytes_total{disk=\"b\"} 6\n"));
///
///     // Disk a has been switched off and on, and disk b has been removed.
///     let exposition = export(&[("a", 3)])?;
///     assert!(exposition.contains("disk_read_bytes_total{disk=\"a\"} 3\n"));
///     assert!(!exposition.contains("disk=\"b\""));
///     Ok(())
/// }
/// ```
///
/// Every scraper waits while the numbers are collected. If that takes seconds, let another thread
/// collect and render them.
#[derive(Debug, Default)]
pub struct Registry {
    families: BTreeMap<String, Family>,
}

/// All series with the same name, and what they have in common.
#[derive(Debug)]
struct Family {
    /// `counter` or `gauge`.
    kind: &'static str,
    /// The help text, in the escaped form that is rendered.
    help: String,
    /// The names of the labels, sorted and separated by commas. It is only used to compare them
    /// with those of another series.
    label_names: String,
    /// The value of each series. The key is its labels, as they are rendered.
    series: BTreeMap<String, Value>,
}

impl Registry {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a counter, which is a series that only goes up.
    ///
    /// By convention the name of a counter says what it counts, in a base unit, and ends in
    /// `_total`: for example `http_response_bytes_total`.
    ///
    /// Prometheus changes labels in two cases. It adds the labels `job` and `instance` to every
    /// series, so it renames your own labels of these names to `exported_job` and
    /// `exported_instance`, unless it is configured with `honor_labels`. And it drops labels whose
    /// value is empty.
    ///
    /// # Errors
    ///
    /// Fails if
    ///
    /// * `name` does not match `[a-zA-Z_:][a-zA-Z0-9_:]*`;
    /// * Prometheus itself stores a series called `name` for every target. These are `up`,
    ///   `scrape_duration_seconds`, `scrape_samples_scraped`,
    ///   `scrape_samples_post_metric_relabeling`, `scrape_series_added`, `scrape_timeout_seconds`,
    ///   `scrape_sample_limit` and `scrape_body_size_bytes`;
    /// * a label name does not match `[a-zA-Z_][a-zA-Z0-9_]*`, starts with `__`, which is reserved
    ///   for Prometheus, or is given twice;
    /// * another series called `name` has another type, another help text or other label names. A
    ///   family has only one type and one help text, and the guidelines [Writing client
    ///   libraries](https://prometheus.io/docs/instrumenting/writing_clientlibs/) demand the same
    ///   label names for all its series;
    /// * the same series is already registered, even if its labels were given in another order.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Counter> {
        Ok(Counter(self.register("counter", name, help, labels)?))
    }

    /// Registers a gauge, which is a series that goes up and down.
    ///
    /// By convention its name ends in a base unit, for example `depth_meters`.
    ///
    /// # Errors
    ///
    /// Fails as [`counter`](Self::counter) does.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Gauge> {
        Ok(Gauge(self.register("gauge", name, help, labels)?))
    }

    fn register(
        &mut self,
        kind: &'static str,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
    ) -> Result<Value> {
        // The same labels in another order are the same series, so sort them by their names.
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        check_name(name)?;
        let label_names = check_labels(name, &labels)?;
        let (key, help) = (format_labels(&labels), escape(help));
        let series = format!("{name}{key}");

        if let Some(family) = self.families.get(name) {
            for (what, given, registered) in [
                ("type", kind, family.kind),
                ("help text", &help, &family.help),
                ("label names", &label_names, &family.label_names),
            ] {
                ensure!(
                    given == registered,
                    "{name} cannot have the {what} {given:?}: it is registered with {registered:?}"
                );
            }
            ensure!(
                !family.series.contains_key(&key),
                "{series:?} is registered already: keep its handle, or a clone of it"
            );
        }

        let family = self.families.entry(name.to_owned()).or_insert(Family {
            kind,
            help,
            label_names,
            series: BTreeMap::new(),
        });
        // A clone shares the value, so the registry renders what the handle sets.
        Ok(family.series.entry(key).or_default().clone())
    }

    /// Renders the exposition: for each family its HELP and TYPE lines, then a line for each
    /// series.
    ///
    /// Families are sorted by their names, series by their labels, and labels by their names.
    ///
    /// The values are read one after another. If another thread changes a value meanwhile, the
    /// change appears either in this exposition or in the next.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            // Writing to a `String` cannot fail, so the results can be ignored.
            let _ = format_header(name, family.kind, &family.help, &mut text);
            for (labels, value) in &family.series {
                text.extend([name, labels, " "]);
                let _ = format_value(value.get(), &mut text);
                text.push('\n');
            }
        }
        text
    }
}

/// The series that Prometheus itself stores for every target, the last three only if a feature flag
/// is set. A metric with the same name would replace them.
const STORED_BY_PROMETHEUS: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

fn check_name(name: &str) -> Result<()> {
    // A metric name may contain colons. Otherwise the rule is the same as for label names.
    ensure!(
        is_label_name(&name.replace(':', "_")),
        "{name:?} is not a metric name: it must match [a-zA-Z_:][a-zA-Z0-9_:]*"
    );
    ensure!(
        !STORED_BY_PROMETHEUS.contains(&name),
        "{name} cannot be registered: Prometheus stores a series of that name for every target"
    );
    Ok(())
}

/// Checks the labels of the metric `name`, and returns their names, separated by commas.
fn check_labels(name: &str, labels: &[(&str, &str)]) -> Result<String> {
    let mut names = Vec::new();
    for (label, _) in labels {
        ensure!(
            is_label_name(label) && !label.starts_with("__"),
            "{name}: {label:?} is not a label name: it must match [a-zA-Z_][a-zA-Z0-9_]*, and names \
             that start with __ are reserved for Prometheus"
        );
        ensure!(
            !names.contains(label),
            "{name}: the label name {label} is given twice"
        );
        names.push(*label);
    }
    Ok(names.join(","))
}

fn is_label_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}
