//! The modules of a crate, and the file that a path in the code leads to: `mod` declarations are followed to their
//! files, re-exports to the file that defines the item. Owns that resolution; code under `#[cfg(test)]` is left out.

use std::collections::{BTreeMap, BTreeSet};

use super::File;
use super::tokens::{Token, closed, product};

/// The root files of the crates that are checked, as modules.
const ROOTS: [&str; 9] = [
    "agent/src/lib.rs",
    "common/src/lib.rs",
    "server/src/lib.rs",
    "tests/bench/main.rs",
    "tests/flows/main.rs",
    "tests/lab/lib.rs",
    "tests/sim/main.rs",
    "tests/storm/main.rs",
    "tests/swarm/main.rs",
];

/// The file `from` uses something that the file `to` defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) from: String,
    pub(crate) line: usize,
    pub(crate) to: String,
    /// The path as written in the code.
    pub(crate) path: String,
}

/// One name that a `use` imports, or every name (`*`).
#[derive(Debug)]
struct Use {
    line: usize,
    /// The name here; `*` for all names.
    name: String,
    path: Vec<String>,
    is_public: bool,
}

#[derive(Debug, Default)]
struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    uses: Vec<Use>,
    /// The code without its `use` lines.
    code: Vec<Token>,
}

/// The target of a path.
#[derive(Debug, Clone, Copy)]
enum Target {
    Module(usize),
    /// An item that this module defines.
    Item(usize),
}

/// The modules of one crate; the first is its root.
#[derive(Debug, Default)]
struct Crate(Vec<Module>);

/// Every import between two files of one crate.
pub(crate) fn imports(files: &[File]) -> Vec<Import> {
    let roots = files.iter().filter(|file| ROOTS.contains(&file.name.as_str()));
    roots
        .flat_map(|root| {
            let mut krate = Crate::default();
            krate.read(files, root, None);
            krate.imports()
        })
        .collect()
}

impl Crate {
    fn read(&mut self, files: &[File], file: &File, parent: Option<usize>) -> usize {
        let (tokens, test_modules) = product(&file.text);
        let (uses, code) = uses(&tokens);
        let own = self.0.len();
        let items = items(&code);
        let module = Module { file: file.name.clone(), parent, items, uses, code, ..Module::default() };
        let names: Vec<String> = module
            .code
            .windows(3)
            .filter(|three| three[0].is("mod") && three[2].is(";"))
            .map(|three| three[1].text.clone())
            .filter(|name| !test_modules.contains(name))
            .collect();
        self.0.push(module);
        for name in names {
            let paths = child_paths(&file.name, &name);
            if let Some(child) = files.iter().find(|file| paths.contains(&file.name)) {
                let index = self.read(files, child, Some(own));
                self.0[own].children.insert(name, index);
            }
        }
        own
    }

    fn imports(&self) -> Vec<Import> {
        let mut imports = vec![];
        for (own, module) in self.0.iter().enumerate() {
            for (line, path, is_own_export) in paths(module) {
                let Some(Target::Item(to)) = self.resolve(own, &path, 0) else { continue };
                if to == own || (is_own_export && self.is_below(to, own)) {
                    continue;
                }
                imports.push(Import {
                    from: module.file.clone(),
                    line,
                    to: self.0[to].file.clone(),
                    path: path.join("::"),
                });
            }
        }
        imports
    }

    fn is_below(&self, mut module: usize, above: usize) -> bool {
        while let Some(parent) = self.0[module].parent {
            if parent == above {
                return true;
            }
            module = parent;
        }
        false
    }

    /// The target of `path`, written in `own`; none for other crates and for names of the language.
    fn resolve(&self, own: usize, path: &[String], depth: usize) -> Option<Target> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => 0,
            "self" => own,
            "super" => self.0[own].parent?,
            _ => {
                rest = path;
                own
            }
        };
        let is_local = rest.len() < path.len();
        while let Some((_, behind)) = rest.split_first().filter(|(name, _)| *name == "super") {
            at = self.0[at].parent?;
            rest = behind;
        }
        let mut is_first = !is_local;
        while let Some((name, behind)) = rest.split_first() {
            match self.named(at, name, depth) {
                Some(Target::Module(module)) => at = module,
                Some(item @ Target::Item(_)) => return Some(item),
                None if is_first => return None,
                None => return Some(Target::Item(at)),
            }
            is_first = false;
            rest = behind;
        }
        Some(Target::Module(at))
    }

    /// The target of `name` in the module `at`.
    fn named(&self, at: usize, name: &str, depth: usize) -> Option<Target> {
        const DEEPEST: usize = 8;
        let module = &self.0[at];
        if let Some(child) = module.children.get(name) {
            return Some(Target::Module(*child));
        }
        if module.items.contains(name) {
            return Some(Target::Item(at));
        }
        if depth > DEEPEST {
            return None;
        }
        let used = |found: &&Use| found.name == name && found.path.first().is_some_and(|first| first != name);
        if let Some(found) = module.uses.iter().find(used) {
            return self.resolve(at, &found.path, depth + 1);
        }
        module.uses.iter().filter(|found| found.name == "*").find_map(|found| {
            let Some(Target::Module(from)) = self.resolve(at, &found.path, depth + 1) else { return None };
            (from != at).then(|| self.named(from, name, depth + 1)).flatten()
        })
    }
}

/// The paths in a module that may lead to another file: its `use` lines and those in its code. The flag says that a
/// path is only re-exported, not used: a `pub use` whose name does not occur in the code.
fn paths(module: &Module) -> Vec<(usize, Vec<String>, bool)> {
    let mut paths = vec![];
    for found in &module.uses {
        let occurs = module.code.iter().any(|token| token.text == found.name);
        paths.push((found.line, found.path.clone(), found.is_public && !occurs));
    }
    let code = &module.code;
    let mut at = 0;
    while at < code.len() {
        let begins = code[at].is_name()
            && code.get(at + 1).is_some_and(|token| token.is("::"))
            && (at == 0 || !(code[at - 1].is("::") || code[at - 1].is(".")));
        if !begins {
            at += 1;
            continue;
        }
        let line = code[at].line;
        let mut path = vec![code[at].text.clone()];
        while code.get(at + 1).is_some_and(|token| token.is("::"))
            && code.get(at + 2).is_some_and(Token::is_name)
        {
            path.push(code[at + 2].text.clone());
            at += 2;
        }
        paths.push((line, path, false));
        at += 1;
    }
    paths
}

/// The two paths at which the file of a child module may be.
fn child_paths(parent: &str, name: &str) -> [String; 2] {
    let (folder, file) = parent.rsplit_once('/').unwrap_or(("", parent));
    let stem = file.trim_end_matches(".rs");
    let folder =
        if ["lib", "main", "mod"].contains(&stem) { folder.to_owned() } else { format!("{folder}/{stem}") };
    [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]
}

/// The names that a file defines at its top level.
fn items(code: &[Token]) -> BTreeSet<String> {
    const WORDS: [&str; 9] =
        ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules"];
    const NOT_A_NAME: [&str; 5] = ["fn", "unsafe", "async", "extern", "mut"];
    let mut names = BTreeSet::new();
    let mut at = 0;
    while at < code.len() {
        if ["(", "[", "{"].contains(&code[at].text.as_str()) {
            at = closed(code, at);
            continue;
        }
        if WORDS.contains(&code[at].text.as_str()) {
            let name = code[at + 1..].iter().find(|token| !token.is("!"));
            let name = name.filter(|token| token.is_name() && !NOT_A_NAME.contains(&token.text.as_str()));
            names.extend(name.map(|token| token.text.clone()));
        }
        at += 1;
    }
    names
}

/// The `use` lines, one entry for each name, and the code without them.
fn uses(tokens: &[Token]) -> (Vec<Use>, Vec<Token>) {
    let (mut uses, mut code): (Vec<Use>, Vec<Token>) = (vec![], vec![]);
    let mut at = 0;
    while at < tokens.len() {
        // `use<'a>` is a bound of a returned type.
        if !tokens[at].is("use") || tokens.get(at + 1).is_some_and(|token| token.is("<")) {
            code.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = at + tokens[at..].iter().position(|token| token.is(";")).unwrap_or(tokens.len() - at - 1);
        let is_public =
            code.last().is_some_and(|token| token.is("pub") || (token.is(")") && is_visibility(&code)));
        tree(&tokens[at + 1..end], &[], is_public, &mut uses);
        at = end + 1;
    }
    (uses, code)
}

/// Whether the code ends in `pub(crate)` or the like.
fn is_visibility(code: &[Token]) -> bool {
    code.iter().rev().take(6).any(|token| token.is("pub"))
}

fn tree(tokens: &[Token], before: &[String], is_public: bool, uses: &mut Vec<Use>) {
    let mut path = before.to_vec();
    let mut name = None;
    let mut line = tokens.first().map_or(0, |token| token.line);
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        if token.is("{") {
            let end = closed(tokens, at);
            for part in parts(&tokens[at + 1..end - 1]) {
                tree(part, &path, is_public, uses);
            }
            return;
        } else if token.is("as") {
            name = tokens.get(at + 1).map(|token| token.text.clone());
            break;
        } else if token.is("*") {
            name = Some("*".to_owned());
        } else if token.is_name() && (!token.is("self") || path.is_empty()) {
            path.push(token.text.clone());
            line = token.line;
        }
        at += 1;
    }
    if let Some(last) = path.last() {
        uses.push(Use { line, name: name.unwrap_or_else(|| last.clone()), path, is_public });
    }
}

/// The parts between the commas.
fn parts(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = vec![];
    let (mut from, mut at) = (0, 0);
    while at < tokens.len() {
        if tokens[at].is(",") {
            parts.push(&tokens[from..at]);
            from = at + 1;
        }
        at = if tokens[at].is("{") { closed(tokens, at) } else { at + 1 };
    }
    parts.push(&tokens[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Files of a made-up crate, as `(path under server/src, text)`; the imports between them as `from path to`.
#[cfg(test)]
pub(crate) fn of_texts(texts: &[(&str, &str)]) -> Vec<Import> {
    let file =
        |(name, text): &(&str, &str)| File { name: format!("server/src/{name}"), text: (*text).to_owned() };
    imports(&texts.iter().map(file).collect::<Vec<_>>())
}

#[test]
fn paths_lead_to_the_file_that_defines() {
    let texts = [
        ("lib.rs", "mod low; mod top; mod flat;"),
        ("low/mod.rs", "mod deep; pub(crate) use deep::Deep; pub struct Here; pub use deep::*;"),
        ("low/deep.rs", "pub struct Deep; pub fn work() {} mod tests { } #[cfg(test)] use crate::top::Top;"),
        ("flat.rs", "mod child; pub(super) struct Flat;"),
        ("flat/child.rs", "use super::Flat; fn a() { super::super::low::deep::work() }"),
        (
            "top.rs",
            "use crate::low::{self, Deep, Here as H}; use std::fs;\nfn a() { low::work(); fs::read(); }\nstruct Top;",
        ),
    ];
    let found: Vec<String> = of_texts(&texts)
        .iter()
        .map(|import| {
            let short = |name: &str| name.trim_start_matches("server/src/").to_owned();
            format!("{}:{} {} {}", short(&import.from), import.line, import.path, short(&import.to))
        })
        .collect();
    assert_eq!(
        found,
        [
            "top.rs:1 crate::low::Deep low/deep.rs",
            "top.rs:1 crate::low::Here low/mod.rs",
            "top.rs:2 low::work low/deep.rs",
            "flat/child.rs:1 super::Flat flat.rs",
            "flat/child.rs:1 super::super::low::deep::work low/deep.rs",
        ]
    );
}
