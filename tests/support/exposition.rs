//! A strict parser of the text exposition format 0.0.4, written from the description of the format
//! and not from the code that renders it. It also refuses what a careful program does not write,
//! such as blank lines, additional spaces, comments, timestamps and interleaved families.

use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

pub struct Family {
    pub name: String,
    pub help: String,
    pub kind: String,
    pub samples: Vec<Sample>,
}

pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

/// Returns the families in their order.
pub fn parse(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some((family, after)) = split_header(rest) {
            let is_same = |other: &Family| other.name == family.name;
            assert!(!families.iter().any(is_same), "twice: {}", family.name);
            families.push(family);
            rest = after;
        }
        // There must be a sample after each header, so no family can be empty.
        let (line, after) = rest.split_once('\n').expect("a line feed at the end");
        let sample = parse_sample(line).unwrap_or_else(|| panic!("malformed: {line:?}"));
        let family = families.last_mut().expect("a header first");
        assert_eq!(sample.name, family.name, "in another family: {line:?}");
        let is_same = |other: &Sample| other.labels == sample.labels;
        assert!(!family.samples.iter().any(is_same), "twice: {line:?}");
        family.samples.push(sample);
        rest = after;
    }
    families
}

/// Splits off the HELP line and the TYPE line, and returns a family that has no samples yet.
fn split_header(text: &str) -> Option<(Family, &str)> {
    let (name, rest) = split_name(text.strip_prefix("# HELP ")?, "_:")?;
    let (help, rest) = split_escaped(rest.strip_prefix(' ')?, '\n')?;
    let rest = rest.strip_prefix(&format!("# TYPE {name} "))?;
    let (kind, rest) = rest.split_once('\n')?;
    let family = Family {
        name: name.to_owned(),
        help,
        kind: kind.to_owned(),
        samples: Vec::new(),
    };
    let is_kind = kind == "counter" || kind == "gauge";
    is_kind.then_some((family, rest))
}

/// Parses a line like `name{label="value",other="value"} 1`. Returns `None` if it is malformed.
pub fn parse_sample(line: &str) -> Option<Sample> {
    let (name, mut rest) = split_name(line, "_:")?;
    let mut labels = Labels::new();
    let mut separator = '{';
    while let Some(after) = rest.strip_prefix(separator) {
        let (label, after) = split_name(after, "_")?;
        let (value, after) = split_escaped(after.strip_prefix("=\"")?, '"')?;
        let is_new = labels.insert(label.to_owned(), value).is_none();
        rest = is_new.then_some(after)?;
        separator = ',';
    }
    let number = rest.strip_prefix(if labels.is_empty() { " " } else { "} " })?;
    let is_plain = |byte: u8| byte.is_ascii_digit() || b"+-.e".contains(&byte);
    let is_number = number.bytes().all(is_plain) || ["NaN", "+Inf", "-Inf"].contains(&number);
    let sample = Sample {
        name: name.to_owned(),
        labels,
        value: number.parse().ok()?,
    };
    is_number.then_some(sample)
}

/// Splits off a name: letters, the given punctuation and, except at its start, digits.
fn split_name<'a>(text: &'a str, punctuation: &str) -> Option<(&'a str, &'a str)> {
    let ends_name = |c: char| !c.is_ascii_alphanumeric() && !punctuation.contains(c);
    let (name, rest) = text.split_at(text.find(ends_name)?);
    let is_name = name.starts_with(|first: char| !first.is_ascii_digit());
    is_name.then_some((name, rest))
}

/// Splits the text at the first `end` that is not escaped, and unescapes what is before it.
fn split_escaped(text: &str, end: char) -> Option<(String, &str)> {
    let mut plain = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '\\' => plain.push(match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                '"' if end == '"' => '"',
                _ => return None,
            }),
            character if character == end => return Some((plain, characters.as_str())),
            character => plain.push(character),
        }
    }
}
