//! Core: reads the text of a selector, and says where it cannot be read. Touches `common`.

use common::limits::cut;

use super::term::{BadSelector, Compare, Kind, Term, Test, fact, is_special, number};

/// The longest text that is read as a selector, in bytes.
const SELECTOR_BYTES_MAX: usize = 4096;

/// The longest part of it that an error shows, in bytes.
const SHOWN_MAX: usize = 120;

/// The terms of `text`.
pub(super) fn terms(text: &str) -> Result<Vec<Term>, BadSelector> {
    let mut reader = Reader { text, at: 0 };
    if text.len() > SELECTOR_BYTES_MAX {
        return Err(reader.wrong(0, format!("it has {} bytes, more than {SELECTOR_BYTES_MAX}", text.len())));
    }
    let mut terms = vec![reader.term()?];
    loop {
        reader.skip_blanks();
        if reader.rest().is_empty() {
            return Ok(terms);
        }
        if !reader.take(",") {
            let at = reader.at;
            return Err(reader.wrong(at, "a comma or the end is missing".to_owned()));
        }
        terms.push(reader.term()?);
    }
}

/// The operators, longest first so that `>=` is not read as `>`.
const OPERATORS: [(&str, Operator); 7] = [
    (">=", Operator::Range(Compare::AtLeast)),
    ("<=", Operator::Range(Compare::AtMost)),
    ("!=", Operator::Equal(false)),
    ("==", Operator::Equal(true)),
    ("=", Operator::Equal(true)),
    (">", Operator::Range(Compare::More)),
    ("<", Operator::Range(Compare::Less)),
];

#[derive(Clone, Copy)]
enum Operator {
    Equal(bool),
    Range(Compare),
}

/// A text, and how much of it is read.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn wrong(&self, at: usize, why: String) -> BadSelector {
        let before = self.text.get(..at).map_or(0, |before| before.chars().count());
        BadSelector { text: cut(self.text, SHOWN_MAX).to_owned(), at: before + 1, why }
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, word: &str) -> bool {
        let is_there = self.rest().starts_with(word);
        self.at += if is_there { word.len() } else { 0 };
        is_there
    }

    /// Takes `in` or `notin`, which an opening bracket follows, and that bracket.
    fn take_set(&mut self, word: &str) -> bool {
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        let Some(list) = after.trim_start().strip_prefix('(') else { return false };
        self.at = self.text.len() - list.len();
        true
    }

    fn term(&mut self) -> Result<Term, BadSelector> {
        self.skip_blanks();
        let begin = self.at;
        let negated = self.take("!");
        self.skip_blanks();
        let key = self.key(begin)?;
        let after_key = self.at;
        self.skip_blanks();
        if negated {
            return Ok(Term { key, test: Test::Exists, negated });
        }
        for (word, negated) in [("in", false), ("notin", true)] {
            if self.at > after_key && self.take_set(word) {
                let values = self.list(&key)?;
                return Ok(Term { key, test: Test::OneOf(values), negated });
            }
        }
        let at = self.at;
        let Some((text, operator)) = OPERATORS.iter().find(|(text, _)| self.rest().starts_with(text)) else {
            return Ok(Term { key, test: Test::Exists, negated: false });
        };
        self.at += text.len();
        self.skip_blanks();
        let value_at = self.at;
        match operator {
            Operator::Equal(equal) => {
                let value = self.value(false)?;
                self.check_value(&key, &value, value_at)?;
                Ok(Term { key, test: Test::OneOf(vec![value]), negated: !equal })
            }
            Operator::Range(compare) => {
                let Some(kind @ (Kind::Bytes | Kind::Count)) = fact(&key) else {
                    let why = format!(
                        "`{key}` is no number that `{text}` could compare: memory, disk and cpus are"
                    );
                    return Err(self.wrong(at, why));
                };
                let value = self.value(false)?;
                self.check_value(&key, &value, value_at)?;
                let bound = number(kind, &value).unwrap_or(0);
                Ok(Term { key, test: Test::Range(*compare, bound, value), negated: false })
            }
        }
    }

    fn key(&mut self, begin: usize) -> Result<String, BadSelector> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let end = self.rest().find(is_special).unwrap_or(self.rest().len());
        if end == 0 {
            let why = "a key is missing, as in role=web".to_owned();
            return Err(self.wrong(begin, why));
        }
        let key = self.rest()[..end].to_owned();
        self.at += end;
        Ok(key)
    }

    /// A value, up to a comma or, in a list, a closing bracket; it may be empty.
    fn value(&mut self, in_list: bool) -> Result<String, BadSelector> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let ends = |c: char| c == ',' || (in_list && c == ')');
        let end = self.rest().find(ends).unwrap_or(self.rest().len());
        let value = self.rest()[..end].trim_end().to_owned();
        if let Some(at) = value.find(['(', ')', '"']) {
            let at = self.at + at;
            let why = "brackets and quotes in a value stand in quotes: key=\"a (b)\"".to_owned();
            return Err(self.wrong(at, why));
        }
        self.at += end;
        Ok(value)
    }

    fn list(&mut self, key: &str) -> Result<Vec<String>, BadSelector> {
        let begin = self.at;
        let mut values = vec![];
        loop {
            self.skip_blanks();
            let at = self.at;
            let value = self.value(true)?;
            self.check_value(key, &value, at)?;
            if value.is_empty() && at == self.at {
                return Err(self.wrong(at, "a value is missing in the list".to_owned()));
            }
            values.push(value);
            self.skip_blanks();
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(self.wrong(begin, "the list is not closed: `)` is missing".to_owned()));
            }
        }
    }

    fn quoted(&mut self) -> Result<String, BadSelector> {
        let begin = self.at;
        let mut text = String::new();
        let mut chars = self.text[begin + 1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = begin + 1 + at + 1;
                    return Ok(text);
                }
                '\\' => text.extend(chars.next().map(|(_, escaped)| escaped)),
                c => text.push(c),
            }
        }
        Err(self.wrong(begin, "the quotes are not closed".to_owned()))
    }

    /// Checks a value of a fact, which is at `at`: a wrong one would only match nothing.
    fn check_value(&self, key: &str, value: &str, at: usize) -> Result<(), BadSelector> {
        let wanted = match fact(key) {
            Some(kind @ Kind::Bytes) if number(kind, value).is_none() => {
                "no size such as 16G (10^9) or 16Gi (2^30)".to_owned()
            }
            Some(kind @ Kind::Count) if number(kind, value).is_none() => "no number such as 8".to_owned(),
            Some(Kind::Word(words)) if !words.contains(&value) => {
                format!("no {key}: {}", words.join(", "))
            }
            _ => return Ok(()),
        };
        Err(self.wrong(at, format!("`{}` is {wanted}", cut(value, SHOWN_MAX))))
    }
}
