//! Names that had several meanings, or that nobody outside would look for, do not come back. Owns the list, each with
//! the name to use instead; the glossary is in `tests/README.md`.

use super::tokens::all;
use super::{File, Finding, files, none, shown};

/// A banned name of a type or a thing, and the name to use instead.
const BANNED: [(&str, &str); 25] = [
    ("Desk", "Fleet, or Seeder for the swarm's chunks"),
    ("desk", "fleet, or seeder for the swarm's chunks"),
    ("Crew", "Provisioner, or Supervisor for the tasks of serve"),
    ("crew", "provisioner, or supervisor for the tasks of serve"),
    ("Office", "Actor for the fleet's task; the server in the simulator"),
    ("office", "actor for the fleet's task; the server in the simulator"),
    ("Aftermath", "Effects"),
    ("aftermath", "effects"),
    ("Commission", "PlanRequest"),
    ("commission", "plan_request"),
    ("Shelf", "ChunkProvider, or BootSource for boot files"),
    ("shelf", "provider, or boot_source for boot files"),
    ("Shelves", "BootSource"),
    ("shelves", "boot_source"),
    ("Courier", "EventOutbox"),
    ("courier", "outbox"),
    ("Journal", "EventSink"),
    ("journal", "events, or sink"),
    ("Teller", "StepReporter"),
    ("Dice", "SplitMix64"),
    ("dice", "random"),
    ("KitRoom", "KitAdmin"),
    ("Guests", "Connections"),
    ("Standing", "BootPolicy, or Session in the agent"),
    ("Standings", "BootPolicies"),
];

fn banned(file: &File) -> Vec<Finding> {
    // This file has the banned names on purpose.
    if file.name == "tests/tidy/words.rs" {
        return vec![];
    }
    let finding = |line: usize, word: &str, instead: &str| Finding {
        file: file.name.clone(),
        line,
        key: format!("{} {word}", file.name),
        text: format!("`{word}` is no name here: call it {instead}"),
    };
    let find = |name: &str| BANNED.iter().find(|(word, _)| *word == name);
    let of_file = file.name.split(['/', '.']).filter_map(find);
    let mut findings: Vec<Finding> = of_file.map(|(word, instead)| finding(1, word, instead)).collect();
    for token in all(&file.text) {
        findings.extend(find(&token.text).map(|(word, instead)| finding(token.line, word, instead)));
    }
    findings
}

#[test]
fn names_are_of_the_glossary() {
    let findings = files().iter().flat_map(banned).collect();
    none(&shown(findings));
}

#[test]
fn a_banned_word_is_found() {
    let file = |name: &str, text: &str| File { name: name.to_owned(), text: text.to_owned() };
    let found = banned(&file("server/src/made_up.rs", "// a desk\nlet s = \"desk\";\nstruct Desk;"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].line, found[0].key.as_str()), (3, "server/src/made_up.rs Desk"));
    assert_eq!(banned(&file("server/src/crew.rs", "struct Desktop;")).len(), 1, "a file's name");
}
