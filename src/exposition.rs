//! The [text exposition format 0.0.4][format]: how names, labels and values are written.
//!
//! ```text
//! # HELP jobs_total Jobs done.
//! # TYPE jobs_total counter
//! jobs_total{queue="mail",worker="a"} 3
//! ```
//!
//! [format]: https://prometheus.io/docs/instrumenting/exposition_formats/

use std::fmt::{self, Write};

/// Appends the two lines that precede the samples of a family. The help text must be escaped.
pub fn format_header(name: &str, kind: &str, help: &str, text: &mut String) -> fmt::Result {
    write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

/// Returns the labels in braces, or an empty string if there are none.
pub fn format_labels(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    // A label value ends at the next quote, so quotes in it are escaped. A help text ends at the
    // end of the line, so quotes in it are not.
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value).replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// Escapes line feeds, which would end the line, and the backslash itself.
pub fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('\n', r"\n")
}

/// Appends the shortest digits that read back as the same `f64`.
pub fn format_value(value: f64, text: &mut String) -> fmt::Result {
    if value.is_infinite() {
        text.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if value != 0.0 && !(1e-5..1e16).contains(&value.abs()) {
        // With an exponent, since `1e300` is shorter than three hundred zeros. Also NaN, which is
        // in no range.
        write!(text, "{value:e}")
    } else if (value as i64 as f64).to_bits() == value.to_bits() {
        // The same digits as below, but std writes an integer three times as fast. (-0 differs in
        // bits.)
        write!(text, "{}", value as i64)
    } else {
        write!(text, "{value}")
    }
}
