//! The [text exposition format 0.0.4][format]: how names, labels and values are written.
//!
//! ```text
//! # HELP jobs_total Jobs done.
//! # TYPE jobs_total counter
//! jobs_total{queue="mail",worker="a"} 3
//! ```
//!
//! [format]: https://prometheus.io/docs/instrumenting/exposition_formats/

use std::fmt::Write;

/// The two lines that stand before the samples of a family.
pub fn format_header(name: &str, help: &str, kind: &str) -> String {
    format!("# HELP {name} {}\n# TYPE {name} {kind}\n", escape(help))
}

/// The labels in braces, or nothing where there are none.
pub fn format_labels(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    // A quote would end the value. A help text has no quotes around it, so none in it is escaped.
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, text)| format!("{name}=\"{}\"", escape(text).replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// A line feed would end the line.
fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('\n', r"\n")
}

/// Appends the shortest digits that read back as the same `f64`.
pub fn format_value(value: f64, line: &mut String) {
    // Writing to a `String` cannot fail.
    let _ = if value.is_infinite() {
        line.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if value != 0.0 && !(1e-5..1e16).contains(&value.abs()) {
        // Very large or small: all but 17 digits would be zeros. And NaN, which is in no range.
        write!(line, "{value:e}")
    } else if (value as i64 as f64).to_bits() == value.to_bits() {
        // std formats an integer in a third of the time. (By their bits -0 and 0 differ.)
        write!(line, "{}", value as i64)
    } else {
        write!(line, "{value}")
    };
}
