//! Spans of time as they are typed: `90s`, `15m`, `2h`, `3d`. Touches nothing.

use super::fault::Fault;

/// The longest life of an order: what is longer is meant to be `never`.
const LIFETIME_MAX: i64 = 10 * 366 * 86_400;

/// The seconds of a span such as `3d`; none when it is none, or too long to count.
#[must_use]
pub fn seconds(text: &str) -> Option<i64> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let count: i64 = text[..text.len() - 1].parse().ok()?;
    count.checked_mul(unit).filter(|seconds| *seconds >= 0)
}

/// How long an order lives, in seconds; none for `never` and `0`.
///
/// # Errors
/// When it is no span, or longer than ten years.
pub fn lifetime(text: &str) -> Result<Option<i64>, Fault> {
    let seconds = match text.trim() {
        "never" | "0" => return Ok(None),
        text => seconds(text).filter(|seconds| *seconds <= LIFETIME_MAX),
    };
    match seconds {
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Fault::usage(format!("`{}` is no time for an order to live", text.escape_debug()))
            .hint("write 12h, 7d or never")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_has_an_end_or_none() {
        let table = [("7d", Some(604_800)), ("90s", Some(90)), ("never", None), ("0", None), ("0s", None)];
        for (text, wanted) in table {
            assert_eq!(lifetime(text).unwrap(), wanted, "{text}");
        }
        for wrong in ["", "d", "-1d", "7", "7w", "4000d", "99999999999999999999d", "é"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
