//! Core: mistakes in a TOML text that people write, each with its place: all that can be found at once, and not only the
//! first that a parser stops at. Touches nothing.

use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use crate::fault::Fault;

/// How many mistakes are named; a file with more is no configuration.
const MOST: usize = 50;

/// How alike two names must be for one to be meant by the other, from 0 to 1.
const ALIKE: f64 = 0.7;

/// How bad a mistake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It works, and is hardly what was meant.
    Warning,
    /// It is not taken.
    Error,
}

/// Something that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Mistake {
    /// How bad it is.
    pub severity: Severity,
    /// The line in the file, from 1; none where it is not in the file.
    pub line: Option<usize>,
    /// The column in the line, in characters from 1.
    pub column: Option<usize>,
    /// What is wrong, as a sentence.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The mistakes of a text, as they are found.
#[derive(Debug)]
pub struct Mistakes<'a> {
    /// The text as it was written, from which places are counted.
    pub text: &'a str,
    /// What was found so far.
    pub found: Vec<Mistake>,
}

impl<'a> Mistakes<'a> {
    /// Nothing was found in `text` yet.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        Self { text, found: vec![] }
    }

    /// Adds one, at the byte `at` of the text.
    pub fn add(&mut self, severity: Severity, at: Option<usize>, text: String, hint: Option<String>) {
        let place = at.map(|at| place(self.text, at));
        let (line, column) = (place.map(|(line, _)| line), place.map(|(_, column)| column));
        let mistake = Mistake { severity, line, column, text, hint };
        // One cause may be found in two ways.
        if !self.found.contains(&mistake) {
            self.found.push(mistake);
        }
    }

    /// Adds an error in the words of `fault`.
    pub fn fault(&mut self, at: Option<usize>, fault: &Fault) {
        let (sentence, causes, hint) = fault.parts();
        let text =
            std::iter::once(sentence).chain(causes.iter().map(String::as_str)).collect::<Vec<_>>().join(": ");
        self.add(Severity::Error, at, text, hint.map(str::to_owned));
    }

    /// All of them, in the order of the file; what is not in the file comes first.
    #[must_use]
    pub fn sorted(mut self) -> Vec<Mistake> {
        self.found.sort_by_key(|mistake| (mistake.line, mistake.column));
        self.found
    }

    /// Whether one of them is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.found.iter().any(|mistake| mistake.severity == Severity::Error)
    }
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Reads the text as a `T` as far as it can be read, noting what cannot: what is wrong is blanked out, and the rest read
/// again. Returns the text with the blanks, in which all places are as before; `None` if nothing can be made of it.
pub fn read<T: DeserializeOwned>(mistakes: &mut Mistakes<'_>) -> Option<String> {
    let mut text = mistakes.text.to_owned();
    while mistakes.found.len() < MOST {
        let Err(error) = toml::from_str::<T>(&text) else { return Some(text) };
        let span = error.span();
        let (said, hint) = words(error.message());
        mistakes.add(Severity::Error, span.as_ref().map(|span| span.start), said, hint);
        let entry = DeTable::parse(&text).ok().and_then(|table| entry(table.get_ref(), span?.start))?;
        text = blanked(&text, entry);
        // Blanked out of the middle of an inline table, say: what is wrong there is not the admin's doing.
        DeTable::parse(&text).ok()?;
    }
    None
}

/// What the parser says, in our words.
fn words(message: &str) -> (String, Option<String>) {
    let message = message.trim().replace('\n', ", ");
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match names.as_slice() {
        [unknown, known @ ..] if message.starts_with("unknown field") => {
            let near = nearest(unknown, known).map(|near| format!("did you mean `{near}`?"));
            let all = || format!("there are: {}", known.join(", "));
            (format!("there is no setting `{}`", unknown.escape_debug()), Some(near.unwrap_or_else(all)))
        }
        _ => (message, None),
    }
}

/// The name that is most like `typed`, if one is.
#[must_use]
pub fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    let typed = typed.to_lowercase().replace('-', "_");
    let likeness = |name: &str| strsim::jaro_winkler(&typed, name);
    let best = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= ALIKE).then_some(*best)
}

/// The bytes of the innermost `key = value` around the byte `at`.
fn entry(table: &DeTable<'_>, at: usize) -> Option<Range<usize>> {
    for (key, value) in table {
        match value.get_ref() {
            DeValue::Table(inner) => {
                if let Some(found) = entry(inner, at) {
                    return Some(found);
                }
            }
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                let inner = items.iter().filter_map(|item| item.get_ref().as_table());
                if let Some(found) = inner.filter_map(|inner| entry(inner, at)).next() {
                    return Some(found);
                }
            }
            _ => {
                let all = key.span().start..value.span().end;
                if all.contains(&at) {
                    return Some(all);
                }
            }
        }
    }
    None
}

/// `text` with spaces in `range`, so that all other places stay what they are.
fn blanked(text: &str, range: Range<usize>) -> String {
    let blank = |char: char| if char == '\n' { "\n".to_owned() } else { " ".repeat(char.len_utf8()) };
    let middle: String = text[range.clone()].chars().map(blank).collect();
    format!("{}{middle}{}", &text[..range.start], &text[range.end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_like_none_gets_all() {
        assert_eq!(nearest("Keep-Events", &["log", "keep_events"]), Some("keep_events"));
        assert_eq!(nearest("zzz", &["log", "keep_events"]), None);
        assert!(words("unknown field `zzz`, expected `a` or `b`").1.unwrap().contains("there are: a, b"));
    }

    #[test]
    fn columns_are_characters() {
        assert_eq!(place("é = 1\nüü x", "é = 1\nüü ".len()), (2, 4));
        assert_eq!(place("", 7), (1, 1));
    }
}
