//! Core: selectors, by which machines are chosen for what they are: `role=web,memory>=16G,rack in (a, b)`. Owns their
//! grammar and what a term asks; what a machine answers is in `facts`. Touches nothing else.
//!
//! The grammar is that of Kubernetes: `key=value`, `key!=value`, `key in (a, b)`, `key notin (a, b)`, `key`, `!key`, with
//! commas between terms that must all hold. Ranges (`>=`, `<=`, `>`, `<`) are for what is measured. A value that holds a
//! comma, a bracket or a blank at an end stands in double quotes.
//!
//! The facts that a machine shows of itself have fixed names ([`FACTS`]) without a prefix, because people type them. A
//! label of such a name can be set no more; where a machine has one from before, that label is compared, so that a
//! fact that a later version adds changes the meaning of no order.

// One term, and the names of facts.
mod term;

// Reads the text of a selector.
mod read;

pub use term::{BadSelector, FACTS, Kind, Shown, Term, fact, fact_names};
use term::{Test, is_special, quoted};

/// Terms, all of which a machine must fit. Every machine fits an empty list: the caller decides what that means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selectors(Vec<Term>);

impl Selectors {
    /// The terms of `texts`, each of which may have several.
    ///
    /// # Errors
    /// When one of them cannot be read, with the place.
    pub fn parse(texts: &[String]) -> Result<Self, BadSelector> {
        let mut terms = vec![];
        for text in texts {
            terms.extend(read::terms(text)?);
        }
        Ok(Self(terms))
    }

    /// Whether there are no terms.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its terms.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.0
    }

    /// The site that they ask for, if it is just one.
    #[must_use]
    pub fn site(&self) -> Option<&str> {
        self.0.iter().find_map(|term| match &term.test {
            Test::OneOf(values) if term.key == "site" && !term.negated && values.len() == 1 => {
                values.first().filter(|value| !value.contains('*')).map(String::as_str)
            }
            _ => None,
        })
    }

    /// Whether all terms hold for what `shown` answers to their keys.
    pub fn fit(&self, shown: impl Fn(&str) -> Shown) -> bool {
        self.0.iter().all(|term| term.holds(&shown(&term.key)))
    }
}

/// Whether `text` is one label with its value, and means the same in an earlier version, which knew nothing else.
#[must_use]
pub fn is_one_label(text: &str) -> bool {
    let plain = |part: &str| !part.contains(is_special);
    text.split_once('=').is_some_and(|(key, value)| !key.is_empty() && plain(key) && plain(value))
}

/// A selector of an earlier version, which was one label with its value as it stood, in today's grammar.
#[must_use]
pub fn of_one_label(text: &str) -> String {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !is_one_label(text) => {
            format!("{}={}", quoted(key), quoted(value))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
