//! The registry: checks what is registered, and renders it at each scrape.
//!
//! It is two maps, one inside the other, as the text format has two levels: families by name, and
//! in each family its series by labels.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};

use anyhow::{Result, bail, ensure};

use crate::exposition::{escape, format_header, format_labels, format_value};
use crate::metric::{Counter, Gauge, Number};

/// The metrics of a program.
///
/// A *family* has a name, a type and a help text. It contains one *series* for each combination of
/// label values.
///
/// Whatever the registry accepts, Prometheus reads back with the same names, labels and values
/// (except for two changes that it makes to labels, see [`counter`](Self::counter)). Whatever would
/// make a scrape fail or lose data is refused when it is registered, with an error that names the
/// metric and the rule. A refused registration changes nothing.
///
/// # Two ways to use it
///
/// To *instrument* a program, register each series once and keep its handle.
///
/// To *export* the numbers of another system, such as a kernel or a device, create a new registry
/// for each scrape and fill it with the numbers of that moment. A series that has disappeared from
/// the other system is then gone from the exposition, and a counter that has been reset there
/// simply shows a smaller value, which is what Prometheus expects after a reset:
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
/// let exposition = export(&[("a", 20), ("b", 6)])?;
/// assert!(exposition.ends_with(
///     "disk_read_bytes_total{disk=\"a\"} 20\n\
///      disk_read_bytes_total{disk=\"b\"} 6\n"
/// ));
/// // Disk a has been switched off and on, and disk b has been removed.
/// let exposition = export(&[("a", 3)])?;
/// assert!(exposition.ends_with("counter\ndisk_read_bytes_total{disk=\"a\"} 3\n"));
/// # anyhow::Ok(())
/// ```
///
/// Every scraper waits while the numbers are collected. If that takes seconds, collect them in
/// another thread and set gauges.
#[derive(Debug, Default)]
pub struct Registry {
    families: BTreeMap<String, Family>,
}

/// All series with the same name, and what they have in common.
#[derive(Debug)]
struct Family {
    /// `counter` or `gauge`.
    kind: &'static str,
    /// Escaped, as it is rendered.
    help: String,
    /// Sorted and separated by commas.
    label_names: String,
    /// The number of each series, by its labels as they are rendered.
    series: BTreeMap<String, Number>,
}

impl Registry {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a counter, which is a series that only goes up.
    ///
    /// By convention the name of a counter consists of what it counts, a base unit and `_total`,
    /// for example `http_response_bytes_total`.
    ///
    /// Prometheus makes two changes to labels. It adds the labels `job` and `instance` to every
    /// series, and renames labels of the same name to `exported_job` and `exported_instance`
    /// (unless it is configured with `honor_labels`). And it drops labels whose value is empty.
    ///
    /// # Errors
    ///
    /// Fails if
    ///
    /// * `name` does not match `[a-zA-Z_:][a-zA-Z0-9_:]*`;
    /// * `name` is one of the series that Prometheus itself stores for every target, which are
    ///   `up`, `scrape_duration_seconds`, `scrape_samples_scraped`,
    ///   `scrape_samples_post_metric_relabeling`, `scrape_series_added`, `scrape_timeout_seconds`,
    ///   `scrape_sample_limit` and `scrape_body_size_bytes`;
    /// * a label name does not match `[a-zA-Z_][a-zA-Z0-9_]*`, starts with `__`, which is reserved
    ///   for Prometheus, or is given twice;
    /// * `name` is already registered with another type or another help text, since a family has
    ///   only one, or with other label names, which "Writing client libraries" forbids;
    /// * the same series is already registered, with its labels in the same or in another order.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Counter> {
        self.register("counter", name, help, labels).map(Counter)
    }

    /// Registers a gauge, which is a series that goes up and down.
    ///
    /// By convention its name ends in a base unit, for example `depth_meters`.
    ///
    /// # Errors
    ///
    /// Fails as [`counter`](Self::counter) does.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Gauge> {
        self.register("gauge", name, help, labels).map(Gauge)
    }

    fn register(
        &mut self,
        kind: &'static str,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
    ) -> Result<Number> {
        // In the order of their names, so that the same labels in another order are the same
        // series.
        let help = escape(help);
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        check_name(name)?;
        check_labels(name, &labels)?;
        let label_names: Vec<&str> = labels.iter().map(|(label, _)| *label).collect();
        let label_names = label_names.join(",");

        let family = self.families.entry(name.to_owned()).or_insert(Family {
            kind,
            help: help.clone(),
            label_names: label_names.clone(),
            series: BTreeMap::new(),
        });
        // A new family passes these checks.
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
        match family.series.entry(format_labels(&labels)) {
            Vacant(place) => Ok(place.insert(Number::default()).clone()),
            Occupied(place) => {
                let series = format!("{name}{}", place.key());
                bail!("{series:?} is registered already: keep its handle, or a clone of it")
            }
        }
    }

    /// Renders the exposition: for each family a HELP and a TYPE line, then a line for each of its
    /// series.
    ///
    /// Families are in the order of their names, series in the order of their labels, and labels in
    /// the order of their names.
    ///
    /// The values are read one after another. If another thread changes one meanwhile, the change
    /// shows in this exposition or in the next.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            // Writing to a `String` cannot fail, so the results are ignored.
            let _ = format_header(name, family.kind, &family.help, &mut text);
            for (labels, number) in &family.series {
                text.extend([name, labels, " "]);
                let _ = format_value(number.get(), &mut text);
                text.push('\n');
            }
        }
        text
    }
}

/// The series that Prometheus itself stores for every target, the last three only with a feature
/// flag. A metric with the same name would replace them, so a target could claim to be up while it
/// is down.
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
    // Apart from colons, the rule for metric names is the same as for label names.
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

/// Checks the labels of the metric `name`. They must be sorted.
fn check_labels(name: &str, labels: &[(&str, &str)]) -> Result<()> {
    for (label, _) in labels {
        ensure!(
            is_label_name(label) && !label.starts_with("__"),
            "{name}: {label:?} is not a label name: it must match [a-zA-Z_][a-zA-Z0-9_]*, and names \
             that start with __ are reserved for Prometheus"
        );
    }
    if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        bail!("{name}: the label name {} is given twice", pair[0].0);
    }
    Ok(())
}

fn is_label_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
