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

/// Returns the two lines that precede the samples of a family.
pub fn format_header(name: &str, help: &str, kind: &str) -> String {
    format!("# HELP {name} {}\n# TYPE {name} {kind}\n", escape(help))
}

/// Returns the labels in braces, or an empty string if there are none.
pub fn format_labels(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    // A label value ends at the next quote, so quotes in it are escaped. A help text ends at the end of the
    // line, so quotes in it are not.
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value).replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// Escapes line feeds, which would end the line, and the backslash itself.
fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('\n', r"\n")
}

/// Appends the shortest digits that read back as the same `f64`.
pub fn format_value(value: f64, text: &mut String) -> fmt::Result {
    if value.is_infinite() {
        text.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if value != 0.0 && !(1e-5..1e16).contains(&value.abs()) {
        // With an exponent, since `1e300` is shorter than three hundred zeros. Also NaN, which is in no
        // range.
        write!(text, "{value:e}")
    } else {
        write!(text, "{value}")
    }
}
