//! A strict parser of the text exposition format 0.0.4, written from its description and apart
//! from the code that renders it. It panics on whatever the description does not allow, and on
//! what it allows but a careful program does not write: blank lines, stray spaces, comments,
//! interleaved families, a missing last line feed.

use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    pub name: String,
    pub help: String,
    pub kind: String,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
    /// In milliseconds; only Prometheus itself sends one.
    pub timestamp: Option<i64>,
}

/// The families, in their order.
pub fn parse(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    if text.is_empty() {
        return families;
    }
    let text = text
        .strip_suffix('\n')
        .expect("a line feed at the very end");
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        let (name, help) = comment(line, "HELP");
        let type_line = lines.next().expect("TYPE after HELP");
        let (typed, kind) = comment(type_line, "TYPE");
        assert_eq!(name, typed, "TYPE of another family: {type_line:?}");
        assert!(matches!(kind, "counter" | "gauge"), "{type_line:?}");
        assert!(
            families.iter().all(|family| family.name != name),
            "family {name} twice"
        );

        let mut samples = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let sample = parse_sample(line);
            assert_eq!(sample.name, name, "sample of another family: {line:?}");
            assert_eq!(sample.timestamp, None, "{line:?}");
            assert!(seen.insert(sample.labels.clone()), "series twice: {line:?}");
            samples.push(sample);
        }
        assert!(!samples.is_empty(), "no sample of {name}");
        families.push(Family {
            name: name.to_owned(),
            help: unescape(help, false),
            kind: kind.to_owned(),
            samples,
        });
    }
    families
}

fn comment<'a>(line: &'a str, keyword: &str) -> (&'a str, &'a str) {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    assert!(
        words.len() == 4 && words[..2] == ["#", keyword],
        "no {keyword} line: {line:?}"
    );
    assert_eq!(name_length(words[2], true), words[2].len(), "{line:?}");
    (words[2], words[3])
}

/// `name{label="value",…} value [timestamp]`, with single spaces and nothing else.
pub fn parse_sample(line: &str) -> Sample {
    let (name, mut rest) = line.split_at(name_length(line, true));
    assert!(!name.is_empty(), "no metric name: {line:?}");
    let mut labels = Labels::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_at(name_length(inside, false));
            assert!(!label.is_empty(), "no label name: {line:?}");
            let value = after
                .strip_prefix("=\"")
                .unwrap_or_else(|| panic!("no value: {line:?}"));
            let end = closing_quote(value).unwrap_or_else(|| panic!("no closing quote: {line:?}"));
            let old = labels.insert(label.to_owned(), unescape(&value[..end], true));
            assert_eq!(old, None, "label twice: {line:?}");
            let after = &value[end + 1..];
            if let Some(after) = after.strip_prefix('}') {
                rest = after;
                break;
            }
            inside = after
                .strip_prefix(',')
                .unwrap_or_else(|| panic!("no comma: {line:?}"));
        }
    }
    let words: Vec<&str> = rest.split(' ').collect();
    assert!(
        matches!(words.len(), 2 | 3) && words[0].is_empty(),
        "no value: {line:?}"
    );
    Sample {
        name: name.to_owned(),
        labels,
        value: number(words[1]),
        timestamp: words.get(2).map(|word| word.parse().unwrap()),
    }
}

fn name_length(text: &str, colons: bool) -> usize {
    let allowed = |(place, byte): &(usize, u8)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
        b'0'..=b'9' => *place > 0,
        b':' => colons,
        _ => false,
    };
    text.bytes().enumerate().take_while(allowed).count()
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(place),
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    None
}

fn unescape(text: &str, quotes: bool) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('\\') => plain.push('\\'),
                Some('n') => plain.push('\n'),
                Some('"') if quotes => plain.push('"'),
                other => panic!("unknown escape {other:?} in {text:?}"),
            },
            '"' if quotes => panic!("unescaped quote in {text:?}"),
            _ => plain.push(character),
        }
    }
    plain
}

fn number(word: &str) -> f64 {
    match word {
        "NaN" => f64::NAN,
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        _ => {
            let plain = word
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e'));
            assert!(plain, "not a number: {word:?}");
            word.parse()
                .unwrap_or_else(|error| panic!("{word:?}: {error}"))
        }
    }
}
