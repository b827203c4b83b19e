//! A file's code as tokens with their lines: no comments, no strings, and without code under `#[cfg(test)]`. Owns this
//! small lexer of Rust, as much of it as the rules need.

/// A name, a number, `::`, or one sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Token {
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text
    }

    pub(crate) fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// All tokens, without comments and strings.
pub(crate) fn all(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = vec![];
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let end = skipped(&chars, at);
        if let Some(end) = end {
            line += chars[at..end].iter().filter(|c| **c == '\n').count();
            at = end;
            continue;
        }
        let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
        let long = chars[at..].iter().take_while(|c| is_word(c)).count();
        let pair = chars[at] == ':' && chars.get(at + 1) == Some(&':');
        let long = if pair { 2 } else { long.max(1) };
        tokens.push(Token { line, text: chars[at..at + long].iter().collect() });
        at += long;
    }
    tokens
}

/// The end of what is not code at `at`: white space, a comment, a string, a lifetime.
fn skipped(chars: &[char], at: usize) -> Option<usize> {
    let next = |by: usize| chars.get(at + by).copied().unwrap_or(' ');
    let find = |from: usize, end: &str| {
        let end: Vec<char> = end.chars().collect();
        (from..chars.len()).find(|i| chars[*i..].starts_with(&end)).map_or(chars.len(), |i| i + end.len())
    };
    match (next(0), next(1)) {
        (c, _) if c.is_whitespace() => Some(at + 1),
        ('/', '/') => Some(find(at, "\n").min(chars.len())),
        ('/', '*') => Some(find(at + 2, "*/")),
        ('"', _) => Some(text_end(chars, at + 1)),
        ('b' | 'c', '"') => Some(text_end(chars, at + 2)),
        ('b', '\'') => char_end(chars, at + 1),
        ('r', '"' | '#') | ('b' | 'c', 'r') => {
            let from = if next(0) == 'r' { at + 1 } else { at + 2 };
            let hashes = chars[from..].iter().take_while(|c| **c == '#').count();
            let is_text = chars.get(from + hashes) == Some(&'"');
            is_text.then(|| find(from + hashes + 1, &format!("\"{}", "#".repeat(hashes))))
        }
        ('\'', _) => char_end(chars, at),
        _ => None,
    }
}

fn text_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The end of a character literal, or of a lifetime with its name.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        return (at + 3..chars.len()).find(|i| chars[*i] == '\'').map(|i| i + 1);
    }
    if chars.get(at + 2) == Some(&'\'') {
        return Some(at + 3);
    }
    let name = chars[at + 1..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
    Some(at + 1 + name)
}

/// The index behind the bracket that closes the one at `at`.
pub(crate) fn closed(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// The code without what is compiled only for tests and fuzzing, and the names of the modules that are.
pub(crate) fn product(source: &str) -> (Vec<Token>, Vec<String>) {
    let tokens = all(source);
    let (mut kept, mut test_modules) = (vec![], vec![]);
    let mut at = 0;
    while at < tokens.len() {
        let is_attribute = tokens[at].is("#") && tokens.get(at + 1).is_some_and(|token| token.is("["));
        let end = if is_attribute { closed(&tokens, at + 1) } else { at + 1 };
        let inside: String = tokens[at..end].iter().map(|token| token.text.as_str()).collect();
        let is_test = ["#[cfg(test", "#[cfg(all(test", "#[cfg(any(test", "#[cfg(fuzzing"]
            .iter()
            .any(|opening| inside.starts_with(opening));
        if is_test {
            let (from, behind) = item(&tokens, end);
            if let [.., word, name, semicolon] = &tokens[from..behind]
                && word.is("mod")
                && semicolon.is(";")
            {
                test_modules.push(name.text.clone());
            }
            at = behind;
        } else {
            kept.extend_from_slice(&tokens[at..end]);
            at = end;
        }
    }
    (kept, test_modules)
}

/// The begin and the end of the item to which the attributes at `at` belong.
fn item(tokens: &[Token], mut at: usize) -> (usize, usize) {
    while tokens.get(at).is_some_and(|token| token.is("#")) {
        at = closed(tokens, at + 1);
    }
    let opening = &tokens[at..(at + 6).min(tokens.len())];
    let is_use = opening.iter().any(|token| token.is("use"));
    let is_item =
        ["fn", "mod", "impl", "struct", "enum", "const", "static", "type", "trait", "use", "macro_rules"];
    let is_part = !opening.iter().any(|token| is_item.contains(&token.text.as_str()));
    let mut end = at;
    while end < tokens.len() {
        let token = &tokens[end];
        let opens = ["(", "[", "{"].contains(&token.text.as_str());
        let ends = token.is(";") || (token.is("{") && !is_use) || (token.is(",") && is_part);
        end = if opens { closed(tokens, end) } else { end + 1 };
        if ends {
            break;
        }
    }
    (at, end)
}

#[test]
fn code_is_told_from_comments_texts_and_tests() {
    let words =
        |source: &str| product(source).0.iter().map(|token| token.text.clone()).collect::<Vec<_>>().join(" ");
    assert_eq!(words("a // b\n/* c */ \"d \\\" e\" 'f' '\\n' &'g h"), "a & h");
    assert_eq!(words("r#\"a \" b\"# br\"c\" b'd' raw"), "raw");
    assert_eq!(words("a::b(1)"), "a :: b ( 1 )");
    assert_eq!(words("#[cfg(test)]\nmod tests { fn a() {} } fn b"), "fn b");
    assert_eq!(words("#[cfg(test)] #[path = \"x\"] mod t; fn b"), "fn b");
    assert_eq!(words("#[cfg(test)] use a::{b, c}; d"), "d");
    assert_eq!(words("s { #[cfg(test)] a: B, c: D }"), "s { c : D }");
    assert_eq!(words("#[derive(A)] fn b"), "# [ derive ( A ) ] fn b");
    assert_eq!(product("#[cfg(test)]\nmod tests;\nmod real;").1, ["tests"]);
    assert_eq!(all("a\n\"b\nc\"\nd").last().unwrap().line, 4);
}
