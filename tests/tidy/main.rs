//! Rules that keep the code readable, checked on its text: one rule in each file, with a text that breaks it. Owns
//! these rules; reads the tree and runs nothing.
//!
//! A finding names file and line, and what to do. Plain `cargo test` runs it; without Cargo's other crates, in a
//! second: `CARGO_MANIFEST_DIR=$PWD rustc --test --edition 2024 tests/tidy/main.rs -o /tmp/tidy && /tmp/tidy`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

// A file's text: header, comments, citations, length, and what a core uses.
mod text;

// A file's code as tokens, without comments, strings and tests.
mod tokens;

// The file that a Rust path leads to.
mod modules;

// No two files that import each other.
mod circles;

// No import from a lower room to a higher one.
mod rooms;

// Functions that fit on a screen.
mod functions;

// Names that had several meanings.
mod words;

// Where foreign crates come from.
mod lock;

/// A file of the tree.
struct File {
    /// The path from the root of the repository.
    name: String,
    text: String,
}

impl File {
    /// Its lines, each with its number.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The lines before the tests at its end.
    fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
    }
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    /// What it is about, without line numbers; only the first finding of each key is shown.
    key: String,
    /// What is wrong, and what to do.
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the product and its tests.
fn files() -> Vec<File> {
    let mut folders: Vec<PathBuf> =
        ["agent", "common", "server", "tests"].map(|name| root().join(name)).into();
    let mut files = vec![];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                files.push(File { name, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    assert!(files.len() > 200, "only {} files were found", files.len());
    files.sort_by(|one, other| one.name.cmp(&other.name));
    files
}

fn none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// The lines to print for `findings`, the first of each key.
fn shown(mut findings: Vec<Finding>) -> Vec<String> {
    findings.sort();
    let mut seen = BTreeSet::new();
    let first = findings.iter().filter(|finding| seen.insert(&finding.key));
    first.map(|finding| format!("{}:{}: {}", finding.file, finding.line, finding.text)).collect()
}

#[test]
fn a_finding_is_shown_once_with_its_place() {
    let found = |line| Finding {
        file: "made/up.rs".to_owned(),
        line,
        key: "a".to_owned(),
        text: "is wrong: mend it".to_owned(),
    };
    assert_eq!(shown(vec![found(7), found(3)]), ["made/up.rs:3: is wrong: mend it"]);
}
