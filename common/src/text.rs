//! Core: texts of strangers, made fit for a log and a terminal. One rule for the machine's programs and for
//! the server's door: what steers a terminal or hides what follows is no part of a text. Touches nothing.

/// The characters of the Unicode general category Cf (format), with the line and paragraph separators (Zl, Zp): they
/// show nothing themselves and turn the direction of what follows, split lines or hide differences between two names.
const FORMAT: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// Whether `c` shows nothing and changes how the text around it is shown.
#[must_use]
pub fn is_format(c: char) -> bool {
    let after = FORMAT.partition_point(|(first, _)| *first <= c);
    after.checked_sub(1).and_then(|at| FORMAT.get(at)).is_some_and(|(_, last)| c <= *last)
}

/// `text` without format characters, and with a space for each control character.
#[must_use]
pub fn harmless(text: &str) -> String {
    text.chars().filter(|c| !is_format(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether `c` may stand in a machine's name: letters, digits, dots, dashes and underscores of ASCII, as in a
/// hostname. Two names that look alike are then alike.
#[must_use]
pub fn fits_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

/// `text` as a machine's name: a dash for each run of other characters, none at its ends. None when nothing is left.
#[must_use]
pub fn plain_name(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split(|c| !fits_name(c)).filter(|part| !part.is_empty()).collect();
    let name = parts.join("-");
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_dropped() {
        assert_eq!(harmless("disk \u{202e}gpj.exe\u{202c}"), "disk gpj.exe");
        assert_eq!(harmless("a\u{200b}b\u{feff}c\u{2028}d\u{2029}e\u{ad}f"), "abcdef");
        assert_eq!(harmless("\u{1b}[2J\r\n"), " [2J  ");
        assert_eq!(harmless("Größe 5 € 日本 e\u{301}"), "Größe 5 € 日本 e\u{301}");
        assert!(FORMAT.windows(2).all(|pair| pair[0].1 < pair[1].0), "sorted, so that it can be searched");
        for (first, last) in FORMAT {
            assert!(is_format(*first) && is_format(*last));
        }
    }

    #[test]
    fn names_that_look_alike_are_alike() {
        assert_eq!(plain_name("rack1-05").as_deref(), Some("rack1-05"));
        assert_eq!(plain_name(" rack1 05 ").as_deref(), Some("rack1-05"));
        assert_eq!(plain_name("rack1\u{200b}-05").as_deref(), Some("rack1--05"));
        assert_eq!(plain_name("r\u{430}ck").as_deref(), Some("r-ck"), "a Cyrillic a");
        assert_eq!(plain_name("\u{202e}"), None);
    }
}
