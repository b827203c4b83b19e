//! Core: one term of a selector: the key that it asks for, and what it asks of its values; and the names of facts.
//! Touches the units of sizes, and the tailor's patterns.

use std::fmt;

use crate::tailor::text_fits;
use crate::units::disk_bytes;

/// How a fact is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number of bytes. `G` is 10^9 as on a label of a disk: a machine sold with 16 GiB of memory shows some percent
    /// less, and still is `memory>=16G`.
    Bytes,
    /// A plain number.
    Count,
    /// A text, compared whatever its case; `*` stands for any text. A machine may show several.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// What a machine shows of itself, and how that is compared.
pub const FACTS: &[(&str, Kind)] = &[
    ("memory", Kind::Bytes),
    ("disk", Kind::Bytes),
    ("cpus", Kind::Count),
    ("arch", Kind::Text),
    ("vendor", Kind::Text),
    ("model", Kind::Text),
    ("nic", Kind::Text),
    ("pci", Kind::Text),
    ("firmware", Kind::Word(&["bios", "uefi", "uefi-secure", "none"])),
    (
        "state",
        Kind::Word(&[
            "discovered",
            "inspected",
            "approved",
            "deploying",
            "deployed",
            "failed",
            "rejected",
            "retired",
        ]),
    ),
    ("held", Kind::Word(&["yes", "no"])),
    ("os", Kind::Text),
    ("site", Kind::Text),
];

/// How the fact of this name is compared; `None` for the key of a label.
#[must_use]
pub fn fact(key: &str) -> Option<Kind> {
    FACTS.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
}

/// The names of all facts, for a sentence.
#[must_use]
pub fn fact_names() -> String {
    FACTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Less,
    AtMost,
    More,
    AtLeast,
}

/// What a term asks of the values of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// There is one.
    Exists,
    /// One of them is among these.
    OneOf(Vec<String>),
    /// It is a number in this range, whose bound was written so.
    Range(Compare, u64, String),
}

/// One condition of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub(super) key: String,
    pub(super) test: Test,
    /// Whether the test must not hold, as in `!=`, `notin` and `!key`.
    pub(super) negated: bool,
}

/// What a machine answers to a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The label of that key: if there is one, it alone counts.
    pub label: Option<String>,
    /// The texts of a fact; empty when nothing is known.
    pub texts: Vec<String>,
    /// The number of a fact.
    pub number: Option<u64>,
    /// Whether there may be more than is shown: hardware that is not known, or of which the report is not whole. Then
    /// the machine fits neither `key=value` nor `key!=value`.
    pub is_partial: bool,
}

/// A text that is no selector, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the selector `{text}` cannot be read at character {at}: {why}")]
pub struct BadSelector {
    /// The text, cut short where it is long.
    pub text: String,
    /// The first character that does not fit, counted from one.
    pub at: usize,
    /// What is wrong there.
    pub why: String,
}

/// Characters that end a key or a value outside quotes, or are quotes.
pub(super) fn is_special(c: char) -> bool {
    matches!(c, ',' | '(' | ')' | '"' | '\\' | '!' | '=' | '<' | '>' | '*') || c.is_whitespace()
}

/// `text` as a key or a value is written: in quotes where it has characters that mean something else.
pub(super) fn quoted(text: &str) -> String {
    if !text.is_empty() && !text.contains(is_special) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Term {
    /// The key that it asks for: of a label, or the name of a fact.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it asks for values, so that others could be suggested.
    #[must_use]
    pub fn values(&self) -> &[String] {
        match &self.test {
            Test::OneOf(values) if !self.negated => values,
            _ => &[],
        }
    }

    /// Whether it holds for a machine that answers `shown` to its key.
    #[must_use]
    pub fn holds(&self, shown: &Shown) -> bool {
        let holds = match (&self.test, &shown.label) {
            (Test::Exists, Some(_)) => true,
            (Test::Exists, None) => shown.number.is_some() || !shown.texts.is_empty(),
            (Test::OneOf(values), Some(label)) => values.contains(label),
            (Test::OneOf(values), None) => {
                values.iter().any(|value| is_number(&self.key, value, shown.number))
                    || shown.texts.iter().any(|text| values.iter().any(|value| text_fits(value, text)))
            }
            // Only facts have ranges: a label of that name, from before, is no number.
            (Test::Range(compare, bound, _), _) => shown.number.is_some_and(|number| match compare {
                Compare::Less => number < *bound,
                Compare::AtMost => number <= *bound,
                Compare::More => number > *bound,
                Compare::AtLeast => number >= *bound,
            }),
        };
        let is_unknown = shown.is_partial && shown.label.is_none() && self.test != Test::Exists;
        if holds { !self.negated } else { self.negated && !is_unknown }
    }
}

/// A value of a fact that is a number.
pub(super) fn number(kind: Kind, value: &str) -> Option<u64> {
    match kind {
        Kind::Bytes => disk_bytes(value),
        Kind::Count => value.parse().ok(),
        Kind::Text | Kind::Word(_) => None,
    }
}

fn is_number(key: &str, value: &str, shown: Option<u64>) -> bool {
    shown.is_some() && fact(key).and_then(|kind| number(kind, value)) == shown
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = quoted(&self.key);
        match (&self.test, self.negated) {
            (Test::Exists, false) => write!(f, "{key}"),
            (Test::Exists, true) => write!(f, "!{key}"),
            (Test::OneOf(values), negated) => match values.as_slice() {
                [one] => write!(f, "{key}{}{}", if negated { "!=" } else { "=" }, quoted(one)),
                _ => {
                    let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
                    write!(f, "{key} {} ({})", if negated { "notin" } else { "in" }, values.join(", "))
                }
            },
            (Test::Range(compare, _, bound), _) => {
                let operator = match compare {
                    Compare::Less => "<",
                    Compare::AtMost => "<=",
                    Compare::More => ">",
                    Compare::AtLeast => ">=",
                };
                write!(f, "{key}{operator}{bound}")
            }
        }
    }
}
