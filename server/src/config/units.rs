//! Core: lengths of time and numbers of bytes as an admin writes them. Touches `jiff`'s types only.

use jiff::SignedDuration;

/// The bytes of `512M` or `4G`: a whole number, and K, M, G or T for powers of 1,024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, scale) = split(text)?;
    let shift = match scale {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// The time of `400d` or `12h`: a whole number above zero, and h, d or w.
pub(super) fn time(text: &str) -> Option<SignedDuration> {
    let (number, unit) = split(text)?;
    let hours = match unit {
        "h" => 1,
        "d" => 24,
        "w" => 7 * 24,
        _ => return None,
    };
    let hours = number.checked_mul(hours).filter(|hours| (1..=24 * 366 * 1000).contains(hours))?;
    Some(SignedDuration::from_hours(i64::try_from(hours).ok()?))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_admin_writes() {
        assert_eq!((bytes("512M"), bytes("4G"), bytes("7")), (Some(512 << 20), Some(4 << 30), Some(7)));
        for wrong in ["", "M", "4 GB", "-1", "4g", "99999999999999999999", "99999999999T"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!(time("400d"), Some(SignedDuration::from_hours(9600)));
        assert_eq!(
            (time("12h"), time("2w")),
            (Some(SignedDuration::from_hours(12)), Some(SignedDuration::from_hours(336)))
        );
        for wrong in ["", "0d", "d", "400", "1y", "-1d", "99999999999999999w"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }
}
