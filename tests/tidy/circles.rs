//! No circle of imports between the files of a crate: to understand one file of a circle one has to read all. Owns that
//! rule; a parent that declares its children and re-exports their names does not import them.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Import, imports};
use super::{Finding, files, none, shown};

/// The imports that are part of a circle, the first between each two files.
fn circles(imports: &[Import]) -> Vec<Finding> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        next.entry(&import.from).or_default().insert(&import.to);
    }
    let mut seen = BTreeSet::new();
    imports
        .iter()
        .filter(|import| seen.insert((&import.from, &import.to)))
        .filter_map(|import| Some((import, way(&next, &import.to, &import.from)?)))
        .map(|(import, way)| Finding {
            file: import.from.clone(),
            line: import.line,
            key: format!("{} -> {}", import.from, import.to),
            text: format!(
                "`{}` is in {}, which needs this file too ({}): move what both need into a file below both",
                import.path,
                import.to,
                way.join(" -> ")
            ),
        })
        .collect()
}

/// A shortest path over imports.
fn way<'a>(next: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from]];
    let mut seen = BTreeSet::from([from]);
    while !ways.is_empty() {
        let mut longer = vec![];
        for way in ways {
            let last = way.last().copied().unwrap_or(from);
            if last == to {
                return Some(way);
            }
            for file in next.get(last).into_iter().flatten().filter(|file| seen.insert(**file)) {
                longer.push([way.as_slice(), &[*file]].concat());
            }
        }
        ways = longer;
    }
    None
}

#[test]
fn no_files_need_each_other() {
    none(&shown(circles(&imports(&files()))));
}

#[test]
fn a_circle_is_found() {
    use super::modules::of_texts;
    let two = [("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B;\nstruct A;"), ("b.rs", "struct B;")];
    assert!(circles(&of_texts(&two)).is_empty());
    let mut round = two;
    round[2] = ("b.rs", "struct B { a: crate::a::A }");
    let found = circles(&of_texts(&round));
    let keys: Vec<_> = found.iter().map(|finding| finding.key.as_str()).collect();
    assert_eq!(
        keys,
        ["server/src/a.rs -> server/src/b.rs", "server/src/b.rs -> server/src/a.rs"],
        "a struct and an inline path"
    );
    // A child that needs its parent's item while the parent needs the child's.
    let family = |parent: &'static str| {
        [("lib.rs", "mod p;"), ("p.rs", parent), ("p/c.rs", "use super::P; struct C;")]
    };
    assert!(circles(&of_texts(&family("mod c; pub use c::C; struct P;"))).is_empty(), "handed on");
    assert_eq!(circles(&of_texts(&family("mod c; use c::C; struct P(C);"))).len(), 2);
    assert_eq!(
        circles(&of_texts(&family("mod c; pub use c::C; struct P(C);"))).len(),
        2,
        "handed on and used"
    );
    // Over re-exports, and a circle of three; tests may import anything.
    let three = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; struct A;"),
        ("b.rs", "use crate::c::C; struct B;"),
        ("c.rs", "pub use crate::a::A; #[cfg(test)] use crate::b::B; struct C(A);"),
    ];
    assert_eq!(circles(&of_texts(&three)).len(), 3);
    let tested = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B;\nstruct A;"),
        ("b.rs", "struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
    ];
    assert!(circles(&of_texts(&tested)).is_empty());
}
