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
    let mut pairs = Vec::new();
    for (name, value) in labels {
        // A label value ends at the next quote, so quotes inside it are escaped. (A help text is
        // not in quotes, so quotes inside that are left as they are.)
        let value = escape(value).replace('"', "\\\"");
        pairs.push(format!("{name}=\"{value}\""));
    }
    ["{", &pairs.join(","), "}"].concat()
}

/// Doubles backslashes, and replaces line feeds, which would end the line, by a backslash and an
/// `n`.
pub fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('\n', r"\n")
}

/// Appends the shortest digits that read back as the same `f64`.
pub fn format_value(value: f64, text: &mut String) -> fmt::Result {
    if value.is_infinite() {
        text.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if value.abs() >= 1e16 || (value.abs() < 1e-5 && value != 0.0) {
        // With an exponent, as in `1e300`, because the plain form would have hundreds of zeros.
        write!(text, "{value:e}")
    } else if value.fract() == 0.0 && value != 0.0 {
        // std writes the same digits three times as fast for an `i64` as for an `f64`. (0 is left
        // out, because -0 would lose its sign.)
        write!(text, "{}", value as i64)
    } else {
        // All other numbers, and NaN.
        write!(text, "{value}")
    }
}
