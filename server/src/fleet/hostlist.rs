//! Core: hostlists, by which cluster admins name many machines at once: `rack1-[01-16]`, `n[1-3,7]-bmc`. Touches
//! nothing.
//!
//! The notation is that of pdsh, Slurm and ClusterShell: a list in brackets of numbers and ranges, whose
//! leading zeros are kept. Several brackets multiply. The number of names is checked before they are made.

/// The most names one expression may stand for: ten times the largest fleet this is meant for.
pub const NAMES_MAX: usize = 20_000;

/// Why an expression is no hostlist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHostlist {
    /// A bracket is not closed, not opened, or nested.
    #[error("unbalanced brackets in `{0}`")]
    Brackets(String),
    /// A part of the list in the brackets is no number and no range.
    #[error("`{0}` is no number and no range such as 01-16")]
    Range(String),
    /// It stands for more than [`NAMES_MAX`] names.
    #[error("`{0}` stands for more than {NAMES_MAX} names")]
    TooMany(String),
}

/// The names that `text` stands for, in order; `text` itself where it has no brackets.
///
/// # Errors
/// When brackets do not match, a range is malformed, or there would be more than [`NAMES_MAX`] names.
pub fn expand(text: &str) -> Result<Vec<String>, BadHostlist> {
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let (before, after) = (&rest[..open], &rest[open + 1..]);
        let close = after.find(']').ok_or_else(|| BadHostlist::Brackets(text.to_owned()))?;
        if before.contains(']') || after[..close].contains('[') {
            return Err(BadHostlist::Brackets(text.to_owned()));
        }
        let numbers = numbers(&after[..close], text)?;
        if names.len().saturating_mul(numbers.len()) > NAMES_MAX {
            return Err(BadHostlist::TooMany(text.to_owned()));
        }
        names = names
            .iter()
            .flat_map(|name| numbers.iter().map(move |number| format!("{name}{before}{number}")))
            .collect();
        rest = &after[close + 1..];
    }
    if rest.contains(']') {
        return Err(BadHostlist::Brackets(text.to_owned()));
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

/// The expressions in `text`, separated by commas outside brackets; empty ones are left out.
#[must_use]
pub fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(move |c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
    .collect()
}

fn numbers(list: &str, whole: &str) -> Result<Vec<String>, BadHostlist> {
    let mut all = Vec::new();
    for part in list.split(',') {
        let wrong = || BadHostlist::Range(part.to_owned());
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let digits =
            |text: &str| !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(from) || !digits(to) {
            return Err(wrong());
        }
        let first: usize = from.parse().map_err(|_| wrong())?;
        let last: usize = to.parse().map_err(|_| wrong())?;
        if last < first {
            return Err(wrong());
        }
        if last - first >= NAMES_MAX || all.len() + (last - first) >= NAMES_MAX {
            return Err(BadHostlist::TooMany(whole.to_owned()));
        }
        let width = from.len();
        all.extend((first..=last).map(|number| format!("{number:0width$}")));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn brackets_stand_for_numbers_and_keep_their_zeros() {
        let table: &[(&str, &[&str])] = &[
            ("web", &["web"]),
            ("r[1-3]", &["r1", "r2", "r3"]),
            ("r[08-10]", &["r08", "r09", "r10"]),
            ("r[1,3-4]-x", &["r1-x", "r3-x", "r4-x"]),
            ("r[1-2]n[1-2]", &["r1n1", "r1n2", "r2n1", "r2n2"]),
            ("52:54:00:00:00:01", &["52:54:00:00:00:01"]),
        ];
        for (text, wanted) in table {
            assert_eq!(expand(text).unwrap(), *wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_hostlist_is_said_so() {
        for text in ["r[1-3", "r1-3]", "r[[1]]", "r[]", "r[a]", "r[3-1]", "r[1-]", "r[-1]", "r]1[", "r[+1]"] {
            assert!(expand(text).is_err(), "{text}");
        }
        for text in ["r[0-999999999]", "r[0-9999]n[0-9999]", "[1-20000,1-20000]"] {
            assert!(matches!(expand(text), Err(BadHostlist::TooMany(_))), "{text}");
        }
    }

    #[test]
    fn commas_split_outside_brackets_only() {
        assert_eq!(split("a, r[1,3-4],,b"), ["a", "r[1,3-4]", "b"]);
    }

    proptest! {
        #[test]
        fn no_text_panics_or_explodes(text in "[a-z0-9\\[\\],-]{0,40}") {
            if let Ok(names) = expand(&text) {
                prop_assert!(names.len() <= NAMES_MAX);
            }
        }
    }
}
