//! Rate limits of the server's own line and of the line into each site, which leave bandwidth to other traffic. Owns
//! the limits, which can be changed while chunks are being sent; touches nothing.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use async_speed_limit::Limiter;
use serde::{Deserialize, Serialize};

use crate::units;

/// The part of a limit that chunks may use; the rest is for what TCP, IP and Ethernet add (66 of 1514 bytes).
const PAYLOAD: f64 = 0.95;

/// The lowest limit, in bits per second. An agent takes a server that sends nothing for some seconds to be gone; at a
/// lower rate, that would happen to agents that only wait for their turn.
const LEAST: u64 = 1_000_000;

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

/// The rate limits in force; also what the configuration sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineLimits {
    /// For everything that the server sends into the swarm; `None` is unlimited.
    pub server: Option<Rate>,
    /// For what the server sends into a site, by the site's name; a site that is not listed is unlimited.
    pub sites: BTreeMap<String, Rate>,
}

/// A change of one limit, as the API receives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitOrder {
    /// The site whose limit changes; `None` for the server's own line.
    pub site: Option<String>,
    /// The new limit; `None` removes it.
    pub rate: Option<Rate>,
}

/// The rate limiters, with the limits that they enforce.
#[derive(Debug)]
pub(super) struct Limits {
    now: LineLimits,
    server: Limiter,
    sites: BTreeMap<String, Limiter>,
}

impl Limits {
    pub(super) fn new(limits: LineLimits) -> Self {
        let server = Limiter::new(payload(limits.server));
        let sites =
            limits.sites.iter().map(|(site, rate)| (site.clone(), Limiter::new(payload(Some(*rate)))));
        Self { server, sites: sites.collect(), now: limits }
    }

    /// The limits in force.
    pub(super) fn shown(&self) -> &LineLimits {
        &self.now
    }

    /// Sets or removes a limit; transfers under way follow it at once.
    pub(super) fn set(&mut self, order: LimitOrder) {
        let LimitOrder { site, rate } = order;
        let Some(site) = site else {
            self.now.server = rate;
            self.server.set_speed_limit(payload(rate));
            return;
        };
        match rate {
            Some(rate) => self.now.sites.insert(site.clone(), rate),
            None => self.now.sites.remove(&site),
        };
        self.of_site(&site).set_speed_limit(payload(rate));
    }

    /// The limiters that everything sent to `site` has to pass.
    pub(super) fn lines(&mut self, site: &str) -> Vec<Limiter> {
        vec![self.server.clone(), self.of_site(site)]
    }

    /// Drops the limiters of sites that are neither in `sites` nor limited.
    pub(super) fn keep(&mut self, sites: &HashSet<&str>) {
        self.sites.retain(|site, _| sites.contains(site.as_str()) || self.now.sites.contains_key(site));
    }

    fn of_site(&mut self, site: &str) -> Limiter {
        self.sites.entry(site.to_owned()).or_insert_with(|| Limiter::new(f64::INFINITY)).clone()
    }
}

/// The bytes of chunks per second that `rate` allows.
#[allow(clippy::cast_precision_loss)] // Rates are far below 2^52.
fn payload(rate: Option<Rate>) -> f64 {
    rate.map_or(f64::INFINITY, |rate| rate.0 as f64 / 8.0 * PAYLOAD)
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

    #[test]
    fn a_limit_reaches_what_is_being_sent_already() {
        let mut limits = Limits::new(LineLimits::default());
        let lines = limits.lines("a");
        assert!(lines.iter().all(|line| line.speed_limit().is_infinite()));
        let set = |limits: &mut Limits, site: Option<&str>, rate: Option<u64>| {
            limits.set(LimitOrder { site: site.map(str::to_owned), rate: rate.map(Rate) });
        };
        set(&mut limits, Some("a"), Some(8_000_000));
        set(&mut limits, Some("b"), Some(16_000_000));
        assert!(lines[0].speed_limit().is_infinite());
        assert!((lines[1].speed_limit() - 950_000.0).abs() < 1.0);
        set(&mut limits, None, Some(80_000_000));
        assert!((lines[0].speed_limit() - 9_500_000.0).abs() < 1.0);
        set(&mut limits, Some("a"), None);
        assert!(lines[1].speed_limit().is_infinite());
        assert_eq!(limits.shown().sites.keys().collect::<Vec<_>>(), ["b"]);
    }
}
