//! Core: label selectors: `key=value` pairs that a machine must have to be selected. Touches nothing.

use std::collections::BTreeMap;

/// Labels, all of which a machine must have. Every machine has all of an empty list: the caller decides what that
/// means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selectors(BTreeMap<String, String>);

/// A text that is no label selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no label selector such as role=web")]
pub struct BadSelector(String);

impl Selectors {
    /// The labels that `texts` ask for, each `key=value`.
    ///
    /// # Errors
    /// When one of them has no `=`, or nothing before it.
    pub fn parse(texts: &[String]) -> Result<Self, BadSelector> {
        let pair = |text: &String| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(BadSelector(text.clone())),
        };
        texts.iter().map(pair).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are no selectors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The site that they ask for, if any.
    #[must_use]
    pub fn site(&self) -> Option<&str> {
        self.0.get("site").map(String::as_str)
    }

    /// Each key with its value, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_a_key_and_its_value() {
        let read = |texts: &[&str]| {
            Selectors::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        let both = read(&["role=web", "rack="]).unwrap();
        assert_eq!(both.iter().collect::<Vec<_>>(), [("rack", ""), ("role", "web")]);
        assert!(read(&[]).unwrap().is_empty());
        for wrong in ["role", "=web", ""] {
            assert_eq!(read(&["a=b", wrong]), Err(BadSelector(wrong.to_owned())));
        }
    }
}
