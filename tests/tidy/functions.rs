//! Functions that fit on a screen. Owns that rule, for the product: tests may have longer ones.

use super::tokens::{Token, closed, product};
use super::{File, Finding, files, none, shown};

/// The longest function, in lines.
const LINES_MAX: usize = 70;

/// Whether a file holds only tests and what they use.
pub(crate) fn is_of_tests(name: &str) -> bool {
    let of_tests = ["tests", "testing", "whole", "power", "recording"];
    let stem = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".rs");
    !name.contains("/src/")
        || name.contains("/tests/")
        || of_tests.contains(&stem)
        || stem.ends_with("_tests")
}

/// The index at which the body of the function at `at` begins; a declaration has none.
fn body(tokens: &[Token], mut at: usize) -> Option<usize> {
    loop {
        match tokens.get(at)?.text.as_str() {
            "{" => return Some(at),
            ";" => return None,
            "(" | "[" => at = closed(tokens, at),
            _ => at += 1,
        }
    }
}

fn long_ones(file: &File) -> Vec<Finding> {
    if is_of_tests(&file.name) {
        return vec![];
    }
    let (tokens, _) = product(&file.text);
    let mut findings = vec![];
    for (at, pair) in tokens.windows(2).enumerate() {
        if !pair[0].is("fn") || !pair[1].is_name() {
            continue;
        }
        let Some(open) = body(&tokens, at) else { continue };
        let close = closed(&tokens, open) - 1;
        let lines = tokens[close].line - pair[0].line + 1;
        if lines > LINES_MAX {
            let name = &pair[1].text;
            findings.push(Finding {
                file: file.name.clone(),
                line: pair[0].line,
                key: format!("{} {name}", file.name),
                text: format!("`{name}` has {lines} lines, {LINES_MAX} are allowed: give its parts names"),
            });
        }
    }
    findings
}

#[test]
fn functions_are_short() {
    let findings = files().iter().flat_map(long_ones).collect();
    none(&shown(findings));
}

#[test]
fn a_long_function_is_found() {
    let file = |lines: usize| File {
        name: "server/src/made_up.rs".to_owned(),
        text: format!(
            "trait A {{ fn a(&self); }}\nfn long(x: [u8; 4]) {{{}}}\nfn short() {{}}\n",
            "\n".repeat(lines - 1)
        ),
    };
    assert!(long_ones(&file(LINES_MAX)).is_empty());
    let found = long_ones(&file(LINES_MAX + 1));
    assert_eq!((found.len(), found[0].line), (1, 2));
    assert_eq!(found[0].key, "server/src/made_up.rs long");
    let mut test = file(LINES_MAX + 1);
    test.text.insert_str(0, "#[cfg(test)] mod tests {");
    test.text.push('}');
    assert!(long_ones(&test).is_empty());
}
