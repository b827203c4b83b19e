//! Core: the mistakes in a configuration file, each with its place: all that can be found at once, and not only the first
//! that would stop `serve`. Touches nothing.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize as _, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::{Config, File, Flags};
use crate::fault::Fault;

/// How many mistakes are named; a file with more is no configuration.
const MOST: usize = 50;

/// How alike two names must be for one to be meant by the other, from 0 to 1.
const ALIKE: f64 = 0.7;

/// How bad a mistake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It works, and is hardly what was meant.
    Warning,
    /// The server would not start, or would not do its work.
    Error,
}

/// Something that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

/// The mistakes of a file, as they are found.
pub(super) struct Mistakes<'a> {
    pub(super) text: &'a str,
    pub(super) found: Vec<Mistake>,
}

impl Mistakes<'_> {
    pub(super) fn add(&mut self, severity: Severity, at: Option<usize>, text: String, hint: Option<String>) {
        let place = at.map(|at| place(self.text, at));
        let (line, column) = (place.map(|(line, _)| line), place.map(|(_, column)| column));
        let mistake = Mistake { severity, line, column, text, hint };
        // One cause may be found in two ways.
        if !self.found.contains(&mistake) {
            self.found.push(mistake);
        }
    }

    pub(super) fn fault(&mut self, at: Option<usize>, fault: &Fault) {
        let (sentence, causes, hint) = fault.parts();
        let text =
            std::iter::once(sentence).chain(causes.iter().map(String::as_str)).collect::<Vec<_>>().join(": ");
        self.add(Severity::Error, at, text, hint.map(str::to_owned));
    }

    /// All of them, in the order of the file; what is not in the file comes first.
    pub(super) fn sorted(mut self) -> Vec<Mistake> {
        self.found.sort_by_key(|mistake| (mistake.line, mistake.column));
        self.found
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|mistake| mistake.severity == Severity::Error)
    }
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Reads the file as far as it can be read, noting what cannot: what is wrong is blanked out, and the rest read again.
pub(super) fn read(mistakes: &mut Mistakes<'_>) -> Option<String> {
    let mut text = mistakes.text.to_owned();
    while mistakes.found.len() < MOST {
        let Err(error) = toml::from_str::<File>(&text) else { return Some(text) };
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
fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
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

/// Tries each setting of `text` by itself, so that each wrong value is found and has its place.
pub(super) fn values(mistakes: &mut Mistakes<'_>, text: &str) {
    let (Ok(table), Ok(plain)) = (DeTable::parse(text), toml::from_str::<toml::Table>(text)) else { return };
    for (key, value) in table.get_ref() {
        let Some(own) = plain.get(&**key.get_ref()) else { continue };
        let tries: Vec<(usize, toml::Value)> = match (value.get_ref(), own) {
            (DeValue::Array(places), toml::Value::Array(items))
                if items.iter().any(toml::Value::is_table) =>
            {
                let places = places.iter().map(inside);
                places.zip(items).map(|(place, item)| (place, vec![item.clone()].into())).collect()
            }
            _ => vec![(value.span().start, own.clone())],
        };
        for (at, value) in tries {
            let one = toml::Table::from_iter([(key.get_ref().to_string(), value)]);
            let Ok(file) = File::deserialize(one) else { continue };
            let mut flags = Flags::default();
            flags.link.interface = Some("lo".to_owned());
            if let Err(fault) = Config::merge(flags, file, PathBuf::new()) {
                mistakes.fault(Some(at), &fault);
            }
        }
    }
}

/// Where a table of an array begins: at its first key, since its header may be anywhere before.
fn inside(table: &Spanned<DeValue<'_>>) -> usize {
    let keys = table.get_ref().as_table().into_iter().flatten().map(|(key, _)| key.span().start);
    keys.min().unwrap_or_else(|| table.span().start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, usize, String)> {
        let mut mistakes = Mistakes { text, found: vec![] };
        if let Some(read) = read(&mut mistakes) {
            values(&mut mistakes, &read);
        }
        let place = |mistake: Mistake| {
            let hint = mistake.hint.unwrap_or_default();
            (mistake.line.unwrap_or(0), mistake.column.unwrap_or(0), format!("{} {hint}", mistake.text))
        };
        mistakes.found.into_iter().map(place).collect()
    }

    #[test]
    fn every_mistake_has_its_place() {
        let text = "interfaces = 'eth1'\nhttp-port = 'x'\nswarm_port = 'y'\n  dns = ['10.0.0.1', 'dns']\nboot_peers = 'yes'\n\
                    limit = 'much'\n[[site]]\nname = 'a'\nsubnet = []\nsubnets = []\n[[site]]\nname = ''\nsubnets = []\n";
        let found = found(text);
        let has = |line, column, part: &str| {
            assert!(
                found.iter().any(|(l, c, said)| (*l, *c) == (line, column) && said.contains(part)),
                "{line}:{column} {part}: {found:#?}"
            );
        };
        has(1, 1, "no setting `interfaces` did you mean `interface`?");
        has(2, 1, "did you mean `http_port`?");
        has(3, 14, "invalid type: string \"y\"");
        has(4, 22, "IPv4");
        has(5, 14, "`verified`, `any`, `off`");
        has(6, 9, "`much`");
        has(9, 1, "did you mean `subnets`?");
        has(12, 1, "no name for a site");
        assert_eq!(found.len(), 8, "{found:#?}");
    }

    #[test]
    fn what_is_no_toml_is_said_once() {
        for text in [
            "interface eth1",
            "a = {b = 1, b = 2}",
            "[[site]\n",
            "\u{feff}",
            "x = \"",
            "dns = [\n",
            "[site]\n",
            "é",
        ] {
            let found = found(text);
            assert!(found.len() <= 2, "{text}: {found:?}");
        }
        assert_eq!(found("# nothing\n"), []);
        assert_eq!(found("interface = 'eth1'\nrouter = '10.0.0.1'\n"), []);
    }

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
