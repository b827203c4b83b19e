//! Core: texts for people. Texts from outside are made fit for a log and a terminal, by one rule for the machine's
//! programs and for the server: characters that control a terminal or hide what follows are removed. Also formats byte
//! counts, percentages and long lists. Touches nothing.

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

/// Whether `c` shows nothing itself and changes how the text around it is shown.
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

/// `count` bytes in the largest unit that fits, with one digit behind the point: `1.2 GiB`. Always rounded up.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths = tenths.div_ceil(1024);
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// `part` of `whole` in whole per cent, rounded down: 100 only when it is all of it.
#[must_use]
pub fn percent(part: u64, whole: u64) -> u64 {
    let of_hundred = u128::from(part.min(whole)) * 100 / u128::from(whole.max(1));
    u64::try_from(of_hundred).unwrap_or(100)
}

/// The first `most` of `items`, with `between` between two, and the count of the others: `a, b and 3 more`.
#[must_use]
pub fn some_of<S: AsRef<str>>(items: impl ExactSizeIterator<Item = S>, most: usize, between: &str) -> String {
    let rest = items.len().saturating_sub(most);
    let mut text = String::new();
    for (at, item) in items.take(most).enumerate() {
        text.push_str(if at == 0 { "" } else { between });
        text.push_str(item.as_ref());
    }
    if rest > 0 {
        text.push_str(&format!(" and {rest} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_the_largest_fitting_unit() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (1_288_490_188, "1.2 GiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
        assert!(bytes(u64::MAX).ends_with(" PiB"));
    }

    #[test]
    fn only_all_of_it_is_a_hundred_percent() {
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(1000, 1000), 100);
        assert_eq!(percent(2, 1), 100);
        assert_eq!(percent(0, 0), 0);
    }

    #[test]
    fn what_a_list_leaves_out_is_counted() {
        let list = |count: usize| some_of(["a", "b", "c", "d"][..count].iter(), 2, ", ");
        let told = [0, 1, 2, 3, 4].map(list);
        assert_eq!(told, ["", "a", "a, b", "a, b and 1 more", "a, b and 2 more"]);
        assert_eq!(some_of(["a", "b", "c"].iter(), 1, "; "), "a and 2 more");
    }

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
