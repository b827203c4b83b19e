//! A rate as people write it and as limits have it. Touches nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units;

/// The lowest limit, in bits per second. An agent takes a server that sends nothing for some seconds to be gone; at a
/// lower rate, that would happen to agents that only wait for their turn.
const LEAST: u64 = 1_000_000;

/// The part of a limit, in hundredths, that the bytes themselves may use; the rest is for what TCP, IP and Ethernet add
/// (66 of 1514 bytes).
const PAYLOAD: u64 = 95;

/// A rate in bits per second, one million at least. Written `20M`, `1.5G`; in JSON the plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Rate(u64);

/// Why a text or number is not a rate limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRate {
    /// Not a number with a unit such as `20M`; the text, cut to 40 bytes.
    #[error("`{0}` is no rate such as 20M or 1.5G, in bits per second")]
    Form(String),
    /// Below the lowest limit; in bits per second.
    #[error("{0} bits per second are below the least limit, 1M: machines would take the server for gone")]
    Thin(u64),
}

impl TryFrom<u64> for Rate {
    type Error = NoRate;
    fn try_from(bits: u64) -> Result<Self, NoRate> {
        if bits < LEAST { Err(NoRate::Thin(bits)) } else { Ok(Self(bits)) }
    }
}

impl utoipa::PartialSchema for Rate {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::Integer)
            .minimum(Some(LEAST))
            .description(Some("A rate in bits per second."))
            .into()
    }
}

impl utoipa::ToSchema for Rate {}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

impl FromStr for Rate {
    type Err = NoRate;
    fn from_str(text: &str) -> Result<Self, NoRate> {
        let bits = units::bits(text).ok_or_else(|| NoRate::Form(common::limits::cut(text, 40).to_owned()))?;
        Self::try_from(bits)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, of) = if self.0 >= 1_000_000_000 { ("Gbit/s", 1_000_000) } else { ("Mbit/s", 1_000) };
        let thousandths = self.0 / of;
        write!(f, "{}", thousandths / 1000)?;
        let rest = format!("{:03}", thousandths % 1000);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { write!(f, " {unit}") } else { write!(f, ".{rest} {unit}") }
    }
}

/// The bytes per second that a limit leaves for what is sent.
pub(super) fn payload(rate: Rate) -> u64 {
    (u128::from(rate.0) * u128::from(PAYLOAD) / 800).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_people_write_it() {
        let cases = [
            ("20M", 20_000_000, "20 Mbit/s"),
            ("20mbit", 20_000_000, "20 Mbit/s"),
            ("1.5G", 1_500_000_000, "1.5 Gbit/s"),
            ("2500k", 2_500_000, "2.5 Mbit/s"),
            ("50 Mbit/s", 50_000_000, "50 Mbit/s"),
            ("1000000", 1_000_000, "1 Mbit/s"),
        ];
        for (text, bits, shown) in cases {
            assert_eq!(text.parse(), Ok(Rate(bits)), "{text}");
            assert_eq!(Rate(bits).to_string(), shown);
        }
        for text in [
            "",
            "M",
            "20X",
            "-5M",
            "1.2345G",
            "fast",
            "99999999999999999999G",
            "18446744073.999G",
            "+5M",
            "2.+5M",
        ] {
            assert!(matches!(text.parse::<Rate>(), Err(NoRate::Form(_))), "{text}");
        }
        assert!(matches!("10k".parse::<Rate>(), Err(NoRate::Thin(10_000))));
    }
}
