//! Rules on a file's text: it opens with what it owns, a core uses nothing that runs, comments say something and cite
//! files that exist, and it has 500 lines at the most. Owns these rules.

use super::{File, files, none, root};

/// The longest file, in lines.
const LINES_MAX: usize = 500;

/// What a core must not use: what runs, waits, reads or tells the time. The caller passes in the results.
const NOT_IN_A_CORE: [&str; 12] = [
    "tokio",
    "std::fs",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "rusqlite",
];

/// One-word comments that only satisfy the lint for missing ones.
const FILLERS: [&str; 7] = ["Who.", "What.", "Why.", "How.", "Where.", "When.", "Which."];

fn opens_without_a_word(file: &File) -> Option<String> {
    (!file.text.starts_with("//! ")).then(|| {
        format!("{}:1: say in a first line `//! …` what the file owns and what it may touch", file.name)
    })
}

fn too_long(file: &File) -> Option<String> {
    let count = file.text.lines().count();
    (count > LINES_MAX).then(|| {
        format!("{}:{LINES_MAX}: {count} lines, {LINES_MAX} are allowed: divide the file", file.name)
    })
}

fn not_a_core(file: &File) -> Vec<String> {
    if !file.text.starts_with("//! Core") {
        return vec![];
    }
    let code = file.product().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let uses = |line: &str| NOT_IN_A_CORE.iter().find(|word| line.contains(**word));
    code.filter_map(|(number, line)| uses(line).map(|word| (number, word)))
        .map(|(number, word)| {
            format!("{}:{number}: a core is given what `{word}` would fetch: pass it in", file.name)
        })
        .collect()
}

fn fillers(file: &File) -> Vec<String> {
    let is_filler = |line: &str| {
        line.trim_start().strip_prefix("/// ").is_some_and(|text| FILLERS.contains(&text.trim_end()))
    };
    file.lines()
        .filter(|(_, line)| is_filler(line))
        .map(|(number, line)| {
            format!("{}:{number}: `{}` says nothing: say what it holds", file.name, line.trim())
        })
        .collect()
}

/// The paths in backquotes in a line's comment that name a file in a folder.
fn cited(line: &str) -> impl Iterator<Item = &str> {
    let comment = line.find("//").map_or("", |at| &line[at..]);
    comment.split('`').skip(1).step_by(2).filter(|word| {
        let is_file = [".rs", ".md", ".sh", ".toml"].iter().any(|ending| word.ends_with(ending));
        is_file && word.contains('/') && !word.contains([' ', '*', '<', ':']) && !word.starts_with('/')
    })
}

fn cites_nothing(file: &File) -> Vec<String> {
    // This file has texts that break the rules on purpose.
    if file.name == "tests/tidy/text.rs" {
        return vec![];
    }
    let own = root().join(&file.name);
    let krate = file.name.split('/').next().unwrap_or_default();
    let from = [
        root().to_owned(),
        root().join(krate),
        root().join(krate).join("src"),
        own.parent().unwrap().to_owned(),
    ];
    let is_there = |path: &str| from.iter().any(|folder| folder.join(path).exists());
    let mut findings = vec![];
    for (number, line) in file.lines() {
        for path in cited(line).filter(|path| !is_there(path)) {
            findings.push(format!("{}:{number}: `{path}` is not in the tree: name what is", file.name));
        }
        if line.contains("//") && line.contains("research/") {
            findings.push(format!(
                "{}:{number}: cites notes that are not in the tree: name the source",
                file.name
            ));
        }
    }
    findings
}

#[test]
fn every_file_says_what_it_owns() {
    none(&files().iter().filter_map(opens_without_a_word).collect::<Vec<_>>());
}

#[test]
fn files_are_short() {
    none(&files().iter().filter_map(too_long).collect::<Vec<_>>());
}

#[test]
fn a_core_only_decides() {
    none(&files().iter().flat_map(not_a_core).collect::<Vec<_>>());
}

#[test]
fn comments_say_something() {
    none(&files().iter().flat_map(fillers).collect::<Vec<_>>());
}

#[test]
fn what_is_cited_is_there() {
    none(&files().iter().flat_map(cites_nothing).collect::<Vec<_>>());
}

/// Each rule finds a text that breaks it.
#[test]
fn every_rule_finds_what_breaks_it() {
    let file = |text: &str| File { name: "server/src/made_up.rs".to_owned(), text: text.to_owned() };
    assert!(opens_without_a_word(&file("use std::fs;\n")).is_some());
    assert!(opens_without_a_word(&file("//! Words.\n")).is_none());
    assert!(too_long(&file(&"\n".repeat(LINES_MAX + 1))).is_some());
    assert!(too_long(&file(&"\n".repeat(LINES_MAX))).is_none());
    assert_eq!(not_a_core(&file("//! Core: x.\nlet now = Instant::now();\n")).len(), 1);
    assert_eq!(not_a_core(&file("//! Core: x.\n#[cfg(test)]\nlet now = Instant::now();\n")).len(), 0);
    assert_eq!(not_a_core(&file("//! A shell.\nlet now = Instant::now();\n")).len(), 0);
    assert_eq!(fillers(&file("    /// Why.\n    /// Why it failed.\n")).len(), 1);
    assert_eq!(cites_nothing(&file("// see `server/src/nowhere.rs`\n")).len(), 1);
    assert_eq!(cites_nothing(&file("// see `server/src/lib.rs` and `fleet/decide.rs`\n")).len(), 0);
    assert_eq!(cites_nothing(&file("//! after research/swarm.md 2.4\n")).len(), 1);
}
