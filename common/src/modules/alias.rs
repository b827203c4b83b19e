//! Core: matches a module's aliases with devices. Owns the reading of their patterns, which is that of `fnmatch` as
//! `modprobe` uses it. Touches nothing.

/// Whether the shell pattern `pattern` matches `text`: `*`, `?`, `[a-f]`, `[!a]`; `-` and `_` are the same
/// outside brackets. Takes time in proportion to the product of the lengths at worst.
#[must_use]
pub fn alias_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star did not match: the star then takes one byte more.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        if let Some(next) = match_one(pattern, p, text.get(t)) {
            (p, t) = (next, t + 1);
            continue;
        }
        match retry {
            Some((after_star, taken)) if taken < text.len() => {
                retry = Some((after_star, taken + 1));
                (p, t) = (after_star, taken + 1);
            }
            _ => return false,
        }
    }
}

/// The index in the pattern after its item at `p`, if that item matches `byte`.
fn match_one(pattern: &[u8], p: usize, byte: Option<&u8>) -> Option<usize> {
    let byte = *byte?;
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match_bracket(&pattern[p..], byte).map(|len| p + len),
        item => (fold(item) == fold(byte)).then_some(p + 1),
    }
}

fn fold(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

/// The length of the bracket at the start of `pattern`, if it matches `byte`. One that is never closed is a plain `[`,
/// as for `fnmatch`.
fn match_bracket(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    // A `]` right at the start is a member, not the end.
    let Some(len) = pattern.iter().skip(first + 1).position(|&item| item == b']') else {
        return (byte == b'[').then_some(1);
    };
    let end = first + 1 + len;
    let members = &pattern[first..end];
    let (mut at, mut covered) = (0, false);
    while at < members.len() {
        if members.get(at + 1) == Some(&b'-') && at + 2 < members.len() {
            covered |= (members[at]..=members[at + 2]).contains(&byte);
            at += 3;
        } else {
            covered |= members[at] == byte;
            at += 1;
        }
    }
    (covered != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn aliases_of_real_modules_match_real_devices() {
        let table = [
            // e1000, an emulated 82540EM.
            (
                "pci:v00008086d0000100Esv*sd*bc*sc*i*",
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
                true,
            ),
            (
                "pci:v00008086d0000100Fsv*sd*bc*sc*i*",
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
                false,
            ),
            // nvme and ahci are chosen by class.
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", true),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", true),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i00", false),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000002v*", "virtio:d00000001v00001AF4", false),
            ("scsi:t-0x00*", "scsi:t-0x00", true),
            ("scsi:t-0x05*", "scsi:t-0x00", false),
            // usb-storage's unusual devices use brackets.
            (
                "usb:v0525pA4A5d033[0-3]dc*dsc*dp*ic*isc*ip*in*",
                "usb:v0525pA4A5d0331dc00dsc00dp00ic08isc06ip50in00",
                true,
            ),
            (
                "usb:v0525pA4A5d033[0-3]dc*dsc*dp*ic*isc*ip*in*",
                "usb:v0525pA4A5d0334dc00dsc00dp00ic08isc06ip50in00",
                false,
            ),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*",
                "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00",
                true,
            ),
            ("acpi*:PNP0501:*", "acpi:PNP0501:", true),
            ("mdio:0000000000100010000101000100????", "mdio:00000000001000100001010001001111", true),
            ("mdio:0000000000100010000101000100????", "mdio:000000000010001000010100010011110", false),
            ("crypto-crc32c", "crypto_crc32c", true),
            ("vmbus:635161f83edfc546913ff2d2f965ed0e", "vmbus:635161f83edfc546913ff2d2f965ed0e", true),
        ];
        for (pattern, text, wanted) in table {
            assert_eq!(alias_matches(pattern, text), wanted, "{pattern} on {text}");
        }
    }

    #[test]
    fn patterns_are_read_as_fnmatch_reads_them() {
        let table = [
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*a", "aaa", true),
            ("[!a]", "b", true),
            ("[!a]", "a", false),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("[a-]", "-", true),
            ("[", "", false),
            ("**", "x", true),
        ];
        for (pattern, text, wanted) in table {
            assert_eq!(alias_matches(pattern, text), wanted, "{pattern:?} on {text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_text_without_wildcards_covers_itself_and_stars_cover_all(text in "[a-z0-9:_]{0,40}", cut in 0usize..40) {
            let cut = cut.min(text.len());
            let starred = format!("{}*{}", &text[..cut], &text[cut..]);
            prop_assert!(alias_matches(&text, &text));
            prop_assert!(alias_matches(&starred, &text));
        }

        #[test]
        fn nothing_makes_matching_panic(pattern in "[]\\[!^a*?-]{0,12}", text in "[]\\[a-c-]{0,12}") {
            let _ = alias_matches(&pattern, &text);
        }
    }
}
