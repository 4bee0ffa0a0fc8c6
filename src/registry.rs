//! The registered series: checked once, at registration, and rendered at every scrape.
//!
//! A handle stores a number, which the registry shares. At a scrape the registry compares each
//! number with the one that its text shows, and writes the text anew with those that differ.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::hash::BuildHasher;
use std::mem;

use anyhow::{Result, bail, ensure};

use crate::metric::{Counter, Gauge, Value, Values};

/// The metrics of a program, rendered in the [text exposition format 0.0.4][format].
///
/// Whatever it accepts, Prometheus reads back with the same names, labels and values (an empty
/// label value is to Prometheus as if the label were not there). Whatever would break or blur a
/// scrape is refused when it is registered, with an error that names the metric and the rule. A
/// refused registration changes nothing.
///
/// Families, and the series of a family, are rendered in the order of their registration. A series
/// of an earlier family moves all that comes after it: where there are 100,000, register family by
/// family, or it takes seconds.
///
/// [format]: https://prometheus.io/docs/instrumenting/exposition_formats/
#[derive(Debug, Default)]
pub struct Registry {
    families: Vec<Family>,
    /// The index of each family, by metric name.
    family_indices: HashMap<String, usize>,
    /// The series of all families, in the order of the exposition.
    series: Vec<Series>,
    values: Values,
    /// A hash of each series, by which a new one is known to be new.
    hashes: HashSet<u32>,
    /// The metrics as text. A registration adds a line; a scrape replaces the values that have
    /// changed since the last.
    exposition: String,
    /// Where the next exposition is put together.
    next: String,
    /// The length of the exposition if every value were as long as a value can be.
    longest: usize,
}

/// What all series of one metric name share.
#[derive(Debug)]
struct Family {
    kind: &'static str,
    help: String,
    /// Sorted, with commas between.
    label_names: String,
    /// How many series it has.
    size: usize,
}

/// A series, and where its value stands in the exposition:
///
/// ```text
/// requests_total{path="/"} 17
/// ------- before ---------|-| length
/// ```
#[derive(Debug)]
struct Series {
    /// The index of its value. Values are in the order of their registration, and series in that
    /// of the exposition.
    value_index: usize,
    /// The value that the exposition shows, as bits: NaN differs from itself, and -0 equals 0.
    shown: u64,
    /// The length of the text before the value: name, labels and a space, and for the first series
    /// of a family also HELP and TYPE. A line feed follows the value.
    before: usize,
    /// The length of the value in the exposition.
    length: usize,
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
    /// `http_response_bytes_total`.
    ///
    /// # Errors
    ///
    /// * `name` does not match `[a-zA-Z_:][a-zA-Z0-9_:]*`;
    /// * a label name does not match `[a-zA-Z_][a-zA-Z0-9_]*`, starts with `__`, which is reserved
    ///   for Prometheus itself, or is given twice;
    /// * `name` is registered with another type, another help text or other label names;
    /// * the series is registered, be it with its labels in another order.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Counter> {
        Ok(Counter::new(self.register("counter", name, help, labels)?))
    }

    /// Registers a gauge: a series that goes up and down.
    ///
    /// # Errors
    ///
    /// Those of [`counter`](Self::counter).
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Gauge> {
        Ok(Gauge::new(self.register("gauge", name, help, labels)?))
    }

    fn register(
        &mut self,
        kind: &'static str,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
    ) -> Result<Value> {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        check_names(name, &labels)?;
        let label_names: Vec<&str> = labels.iter().map(|label| label.0).collect();
        let label_names = label_names.join(",");
        let (family, header) = match self.family_indices.get(name) {
            Some(&family) => {
                self.families[family].check(name, kind, help, &label_names)?;
                (family, String::new())
            }
            None => {
                let header = format_help(name, help) + &format_type(name, kind);
                (self.families.len(), header)
            }
        };
        let identifier = format!("{name}{}", format_labels(&labels));
        // Hashes spare a second copy of all names. A new hash is a new series. A known hash may be
        // known by chance, as one is among some 100,000, so then the exposition is searched.
        let hash = self.hashes.hasher().hash_one(&identifier) as u32;
        if !self.hashes.insert(hash) {
            let known = self.exposition.contains(&format!("\n{identifier} "));
            ensure!(!known, "{identifier} is registered already");
        }

        if family == self.families.len() {
            self.family_indices.insert(name.to_owned(), family);
            self.families.push(Family {
                kind,
                help: help.to_owned(),
                label_names,
                size: 0,
            });
        }
        Ok(self.add(family, format!("{header}{identifier} ")))
    }

    /// Adds a series to a family, and its text to the exposition, both behind the others of the
    /// family. Its value is 0.
    fn add(&mut self, family: usize, mut text: String) -> Value {
        let before = text.len();
        text.push_str("0\n");
        let later = self.families[family + 1..].iter();
        let index = self.series.len() - later.map(|family| family.size).sum::<usize>();
        let behind: usize = self.series[index..].iter().map(Series::text_length).sum();
        self.exposition
            .insert_str(self.exposition.len() - behind, &text);
        self.longest += before + LONGEST_VALUE + 1;
        self.families[family].size += 1;
        let value = self.values.add();
        let series = Series {
            value_index: value.index,
            shown: 0.0_f64.to_bits(),
            before,
            length: 1,
        };
        self.series.insert(index, series);
        value
    }

    /// The exposition: for each family its HELP and its TYPE, then a sample for each of its series.
    ///
    /// Only values that have changed since the last time are formatted: for thousands of series
    /// that stand still, a scrape then costs hardly more than sending the text. After two renderings
    /// of changed values nothing is allocated, until the next registration.
    pub fn render(&mut self) -> &str {
        if self
            .series
            .iter()
            .all(|series| self.values.get(series.value_index).to_bits() == series.shown)
        {
            // The text is right as it is, and not even copied.
            return &self.exposition;
        }
        self.next.clear();
        self.next.reserve(self.longest);
        // In the old exposition: where the text of a series starts, and up to where all is copied.
        let mut start = 0;
        let mut copied = 0;
        for series in &mut self.series {
            let end = start + series.text_length();
            let value = self.values.get(series.value_index);
            if value.to_bits() != series.shown {
                let old_value = start + series.before;
                self.next.push_str(&self.exposition[copied..old_value]);
                copied = old_value + series.length;

                let new_value = self.next.len();
                format_value(value, &mut self.next);
                series.length = self.next.len() - new_value;
                series.shown = value.to_bits();
            }
            start = end;
            if start - copied >= PIECE {
                self.next.push_str(&self.exposition[copied..start]);
                copied = start;
            }
        }
        self.next.push_str(&self.exposition[copied..]);
        mem::swap(&mut self.exposition, &mut self.next);
        &self.exposition
    }
}

impl Family {
    fn check(&self, name: &str, kind: &str, help: &str, label_names: &str) -> Result<()> {
        ensure!(
            self.kind == kind,
            "{name} cannot be a {kind}: it is registered as a {}",
            self.kind
        );
        ensure!(
            self.help == help,
            "{name} cannot have the help text {help:?}: it is registered with {:?}",
            self.help
        );
        ensure!(
            self.label_names == label_names,
            "{name} cannot have the label names {label_names:?}: it is registered with {:?}",
            self.label_names
        );
        Ok(())
    }
}

impl Series {
    fn text_length(&self) -> usize {
        self.before + self.length + 1
    }
}

/// Checks a metric name and its labels, which are sorted.
fn check_names(name: &str, labels: &[(&str, &str)]) -> Result<()> {
    // A metric name is a label name that may have colons.
    ensure!(
        is_label_name(&name.replace(':', "_")),
        "{name:?} is not a metric name: it must match [a-zA-Z_:][a-zA-Z0-9_:]*"
    );
    for (label, _) in labels {
        ensure!(
            is_label_name(label),
            "{name}: {label:?} is not a label name: it must match [a-zA-Z_][a-zA-Z0-9_]*"
        );
        ensure!(
            !label.starts_with("__"),
            "{name}: the label name {label} starts with __, which is reserved for Prometheus"
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

fn format_help(name: &str, help: &str) -> String {
    format!("# HELP {name} {}\n", escape(help))
}

fn format_type(name: &str, kind: &str) -> String {
    format!("# TYPE {name} {kind}\n")
}

fn format_labels(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value).replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('\n', r"\n")
}

/// Appends the shortest digits that read back as the same `f64`, with an exponent where the plain
/// form would be absurdly long.
fn format_value(value: f64, text: &mut String) {
    let magnitude = value.abs();
    let whole = value as i64;
    // Writing to a `String` cannot fail.
    let _ = if value.is_nan() {
        text.write_str("NaN")
    } else if value.is_infinite() {
        text.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if magnitude < 1e15 && (whole as f64).to_bits() == value.to_bits() {
        // std formats an integer in a third of the time that the same `f64` takes.
        write!(text, "{whole}")
    } else if value == 0.0 || (1e-5..1e16).contains(&magnitude) {
        write!(text, "{value}")
    } else {
        write!(text, "{value:e}")
    };
}

/// Such as `-2.2250738585072014e-308`.
const LONGEST_VALUE: usize = 24;

/// About how many bytes of unchanged text are copied at once. C's `memcpy` may copy more than 2 KiB
/// with an instruction that is slow where old and new text start a few bytes apart in their pages:
/// without this bound 10,000 series, a hundredth changed, took twice the time.
const PIECE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_whose_hash_is_taken_by_chance_is_registered() {
        let mut registry = Registry::new();
        let hash = registry.hashes.hasher().hash_one("a") as u32;
        registry.hashes.insert(hash);
        assert!(registry.gauge("a", "", &[]).is_ok());
        assert!(registry.gauge("a", "", &[]).is_err());
    }
}
