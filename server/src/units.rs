//! Core: parses numbers with units as an admin writes them: bytes, bits per second, durations. Each kind has its table
//! of units here; the caller decides which values are allowed. Touches nothing.

/// Powers of 1,024, for memory and files.
const OF_1024: [(&str, u64); 5] = [("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];

/// In lower case: `G` is 10^9 as on a disk's label, `Gi` is 2^30.
const OF_A_DISK: [(&str, u64); 9] = [
    ("", 1),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
];

/// In lower case: powers of 1,000, for rates of lines.
const OF_A_LINE: [(&str, u64); 4] = [("", 1), ("k", 1_000), ("m", 1_000_000), ("g", 1_000_000_000)];

/// In seconds, for waiting: seconds to days.
const OF_A_WAIT: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

/// In seconds, for keeping: hours to weeks.
const OF_KEEPING: [(&str, u64); 3] = [("h", 3600), ("d", 86_400), ("w", 7 * 86_400)];

/// Parses bytes such as `512M` or `4G`: a whole number, and K, M, G or T for powers of 1,024.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text.trim());
    scaled(number, scale(unit, &OF_1024)?, 0)
}

/// Parses the size of a disk in bytes: `500G` (10^9) or `1.5Ti` (2^40), with or without a B after it.
#[must_use]
pub fn disk_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let unit = unit.trim().trim_end_matches(['b', 'B']).to_ascii_lowercase();
    scaled(number, scale(&unit, &OF_A_DISK)?, 6)
}

/// Parses bits per second: `20M` or `1.5 Gbit/s`.
#[must_use]
pub fn bits(text: &str) -> Option<u64> {
    let plain = text.trim().trim_end_matches("bit/s").trim_end_matches("bit");
    let (number, unit) = split(plain);
    let unit = unit.trim_start().to_ascii_lowercase();
    // Accepted for compatibility: `1.M`.
    let number = number.strip_suffix('.').filter(|whole| !whole.contains('.')).unwrap_or(number);
    scaled(number, scale(&unit, &OF_A_LINE)?, 3)
}

/// Parses a duration in seconds: `90s`, `15m`, `2h` or `3d`.
#[must_use]
pub fn seconds(text: &str) -> Option<i64> {
    // Accepted for compatibility: a leading plus.
    let (number, unit) = split(text.strip_prefix('+').unwrap_or(text));
    i64::try_from(scaled(number, scale(unit, &OF_A_WAIT)?, 0)?).ok()
}

/// Parses a duration in seconds: `12h`, `400d` or `6w`; above zero, and a thousand years at most.
#[must_use]
pub fn keeping_seconds(text: &str) -> Option<i64> {
    let (number, unit) = split(text.trim());
    let seconds = scaled(number, scale(unit, &OF_KEEPING)?, 0)?;
    i64::try_from(seconds).ok().filter(|seconds| (1..=366_000 * 86_400).contains(seconds))
}

/// Splits `text` into the number at its beginning and the rest.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

fn scale(unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale)
}

/// `number` times `scale`, rounded down. Decimals are computed in integers, at most `places` of them.
fn scaled(number: &str, scale: u64, places: usize) -> Option<u64> {
    let (whole, decimals) = match number.split_once('.') {
        None => (number, None),
        Some((whole, decimals)) => (whole, Some(decimals)),
    };
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let Some(decimals) = decimals else { return Some(whole) };
    let digits = u32::try_from(decimals.len()).ok().filter(|_| decimals.len() <= places)?;
    let part = decimals.parse::<u64>().ok()?.checked_mul(scale)? / 10u64.pow(digits);
    whole.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_admin_writes() {
        assert_eq!((bytes("512M"), bytes("4G"), bytes("7")), (Some(512 << 20), Some(4 << 30), Some(7)));
        for wrong in ["", "M", "4 GB", "-1", "4g", "1.5G", "99999999999999999999", "99999999999T"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!(keeping_seconds("400d"), Some(9600 * 3600));
        assert_eq!((keeping_seconds("12h"), keeping_seconds("2w")), (Some(12 * 3600), Some(336 * 3600)));
        for wrong in ["", "0d", "d", "400", "1y", "-1d", "1.5d", "99999999999999999w"] {
            assert_eq!(keeping_seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_of_disks() {
        assert_eq!((disk_bytes("500G"), disk_bytes("1.5Ti")), (Some(500_000_000_000), Some(3 << 39)));
        assert_eq!((disk_bytes("7 gib"), disk_bytes("0.000001T")), (Some(7 << 30), Some(1_000_000)));
        for wrong in ["", ".5G", "5.", "5.G", "1.2.3G", "1.1234567T", "5X", "-5G", "99999999999T"] {
            assert_eq!(disk_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates_of_lines() {
        for (text, wanted) in [
            ("20M", 20_000_000),
            ("1.5G", 1_500_000_000),
            (" 1.5 Gbit/s ", 1_500_000_000),
            ("2.Mbit", 2_000_000),
        ] {
            assert_eq!(bits(text), Some(wanted), "{text}");
        }
        for wrong in ["", "M", ".5M", "1.2345M", "1T", "-1M", "1.5.M", "1.5.", "20 M b"] {
            assert_eq!(bits(wrong), None, "{wrong}");
        }
    }
}
