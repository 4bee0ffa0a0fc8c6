//! The registry: what may be registered, and the list of it that every scrape walks.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail, ensure};

use crate::exposition::{format_header, format_labels, format_value};
use crate::metric::{Counter, Gauge, Number};

/// The metrics of a program: *families* of one name, type and help text, and in each the *series*
/// that its labels tell apart.
///
/// Whatever it accepts, Prometheus reads back with the same names, labels and values, except two
/// changes to labels: see [`counter`](Self::counter). Whatever would break or blur a scrape is
/// refused when it is registered, with an error that names the metric and the rule. A refused
/// registration changes nothing.
///
/// # Two ways to use it
///
/// A program that measures itself registers its series once and keeps the handles.
///
/// A program that *exports* the numbers of another system, such as a kernel or a device, makes **a
/// fresh registry for each scrape** and fills it with what is there now. What is gone is gone then,
/// and a counter that has been reset over there is simply smaller, as Prometheus expects it:
///
/// ```
/// use metricmote::Registry;
///
/// fn export(disks: &[(&str, f64)]) -> anyhow::Result<String> {
///     let mut registry = Registry::new();
///     for (disk, bytes) in disks {
///         let help = "Bytes read since the disk was switched on.";
///         let counter = registry.counter("disk_read_bytes_total", help, &[("disk", disk)])?;
///         counter.inc_by(*bytes);
///     }
///     Ok(registry.render().to_owned())
/// }
///
/// export(&[("a", 10.0), ("b", 5.0)])?;
/// assert!(export(&[("a", 20.0), ("b", 6.0)])?.ends_with("{disk=\"a\"} 20\n\
///                               disk_read_bytes_total{disk=\"b\"} 6\n"));
/// // Disk a has been switched off and on, and disk b has been taken out.
/// assert!(export(&[("a", 3.0)])?.ends_with("disk_read_bytes_total{disk=\"a\"} 3\n"));
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Default)]
pub struct Registry {
    /// In the order of their registration.
    families: Vec<Family>,
    /// Where in that list the family of each name is.
    places: HashMap<String, usize>,
    /// Name and labels of each series, to know it again.
    known: HashSet<String>,
    /// The last exposition. Its memory serves for the next.
    exposition: String,
}

/// What all series of one metric name share, to check a further one by; and the series.
#[derive(Debug)]
struct Family {
    /// `counter` or `gauge`.
    kind: &'static str,
    /// As it was given. In the header it is escaped.
    help: String,
    /// Sorted, with commas between.
    label_names: String,
    /// The HELP and the TYPE line.
    header: String,
    /// In the order of their registration.
    series: Vec<Series>,
}

/// One number, and the line that shows it: `jobs_total{worker="a"} 3`.
#[derive(Debug)]
struct Series {
    /// Shared with the handles of this series.
    number: Number,
    /// As it was in the last scrape.
    line: String,
    /// How much of the line is name and labels, and the space behind them.
    before_value: usize,
    /// The bits of the value in the line. (A NaN float differs from itself.)
    shown: u64,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a counter: a series that only goes up.
    ///
    /// By convention the name of a counter ends in `_total`, after its unit, a base unit:
    /// `http_response_bytes_total`. Labels are rendered in the order of their names.
    ///
    /// Prometheus gives every series the labels `job` and `instance`; it renames
    /// a program's own to `exported_job` and `exported_instance`, unless it is told `honor_labels`. A label
    /// with an empty value is to Prometheus as if it were not there.
    ///
    /// # Errors
    ///
    /// * `name` does not match `[a-zA-Z_:][a-zA-Z0-9_:]*`, or Prometheus stores a series of that
    ///   name for every target: `up`, `scrape_duration_seconds`, `scrape_samples_scraped`,
    ///   `scrape_samples_post_metric_relabeling`, `scrape_series_added`;
    /// * a label name does not match `[a-zA-Z_][a-zA-Z0-9_]*`, starts with `__`, which is reserved
    ///   for Prometheus, or is given twice;
    /// * `name` is registered with another type or help text, of which a family has one, or with
    ///   other label names, which "Writing client libraries" forbids;
    /// * the series is registered, be it with its labels in another order.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Counter> {
        self.register("counter", name, help, labels).map(Counter)
    }

    /// Registers a gauge: a series that goes up and down. By convention its name ends in its unit, a
    /// base unit: `depth_meters`.
    ///
    /// # Errors
    ///
    /// Those of [`counter`](Self::counter).
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Gauge> {
        self.register("gauge", name, help, labels).map(Gauge)
    }

    /// Checks everything first, and only then changes anything.
    fn register(
        &mut self,
        kind: &'static str,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
    ) -> Result<Number> {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        check_name(name)?;
        check_labels(name, &labels)?;
        let label_names: Vec<&str> = labels.iter().map(|label| label.0).collect();
        let label_names = label_names.join(",");
        if let Some(&place) = self.places.get(name) {
            self.families[place].check(name, kind, help, &label_names)?;
        }
        let identifier = format!("{name}{}", format_labels(&labels));
        ensure!(
            self.known.insert(identifier.clone()),
            "{identifier:?} is registered already: keep its handle, or a clone of it"
        );

        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.families.push(Family {
                kind,
                help: help.to_owned(),
                label_names,
                header: format_header(name, help, kind),
                series: Vec::new(),
            });
            self.families.len() - 1
        });
        let series = Series::new(&identifier);
        let number = series.number.clone();
        self.families[place].series.push(series);
        Ok(number)
    }

    /// The exposition: for each family its HELP and its TYPE, then for each of its series its line.
    ///
    /// Values are read one after another. What another thread changes meanwhile is in this scrape or
    /// in the next.
    pub fn render(&mut self) -> &str {
        self.exposition.clear();
        for family in &mut self.families {
            self.exposition.push_str(&family.header);
            for series in &mut family.series {
                self.exposition.push_str(series.line());
            }
        }
        &self.exposition
    }
}

impl Family {
    fn check(&self, name: &str, kind: &str, help: &str, label_names: &str) -> Result<()> {
        for (what, given, known) in [
            ("type", kind, self.kind),
            ("help text", help, &self.help),
            ("label names", label_names, &self.label_names),
        ] {
            ensure!(
                given == known,
                "{name} cannot have the {what} {given:?}: it is registered with {known:?}"
            );
        }
        Ok(())
    }
}

impl Series {
    fn new(identifier: &str) -> Self {
        // Room for every value, so that no scrape has to move the line.
        let mut line =
            String::with_capacity(identifier.len() + " -2.2250738585072014e-308\n".len());
        line.extend([identifier, " 0\n"]);
        Self {
            number: Number::default(),
            line,
            before_value: identifier.len() + 1,
            shown: 0.0_f64.to_bits(),
        }
    }

    /// Its line. Most series stand still between two scrapes, and keep the line that they have.
    fn line(&mut self) -> &str {
        let value = self.number.get();
        if value.to_bits() != self.shown {
            self.shown = value.to_bits();
            self.line.truncate(self.before_value);
            format_value(value, &mut self.line);
            self.line.push('\n');
        }
        &self.line
    }
}

/// The series that Prometheus stores for every target. One of the same name and without labels would
/// take its place: the target would be up or down as the program says.
const STORED_BY_PROMETHEUS: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

fn check_name(name: &str) -> Result<()> {
    // A metric name is a label name that may have colons.
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

/// Checks the labels of a metric, which are sorted.
fn check_labels(name: &str, labels: &[(&str, &str)]) -> Result<()> {
    for (label, _) in labels {
        ensure!(
            is_label_name(label) && !label.starts_with("__"),
            "{name}: {label:?} is not a label name: it must match [a-zA-Z_][a-zA-Z0-9_]*, and what \
             starts with __ is reserved for Prometheus"
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
