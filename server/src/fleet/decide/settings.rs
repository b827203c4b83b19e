//! Core, part of the fleet: the settings for the whole fleet, and what is derived from them alone: the site of an
//! address, and the token with which an OS calls home. Touches `common`, `fleet::own`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use common::id::JobId;
use ipnet::Ipv4Net;
use jiff::SignedDuration;

use super::super::own::Own;

/// A subnet whose machines are at one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRule {
    /// If several subnets contain an address, the one with the longest prefix decides its site.
    pub subnet: Ipv4Net,
    /// The name of that site.
    pub site: String,
}

/// Settings for the whole fleet, fixed while the server runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether unknown machines get the loader, to report their hardware.
    pub discover: bool,
    /// Seconds after which a waiting machine reports again.
    pub poll_seconds: u32,
    /// How long an installed OS may take to call home.
    pub confirm_within: SignedDuration,
    /// How long an order waits for a machine that does not report; `None` is for ever.
    pub order_expires: Option<SignedDuration>,
    /// How long events are kept; `None` is for ever.
    pub keep_events: Option<SignedDuration>,
    /// How many bytes the records may take before their oldest events are deleted; `None` is any number.
    pub keep_bytes: Option<u64>,
    /// Free bytes on the records' disk below which machines that nobody let in are not recorded.
    pub reserve_bytes: u64,
    /// Named sites; a machine in none of them is at a site named after its /24.
    pub sites: Vec<SiteRule>,
    /// The secret key that call-home tokens are derived from.
    pub token_key: [u8; 32],
    /// The marks of the machine that the server runs on.
    pub own: Arc<Own>,
    /// Where machines reach the server, such as `http://10.0.0.1:8069`.
    pub url: String,
}

/// The site of an address by these rules: that of a named subnet, else its /24.
#[must_use]
pub fn site_of(rules: &[SiteRule], address: Ipv4Addr) -> String {
    let inside = rules.iter().filter(|rule| rule.subnet.contains(&address));
    // The longest prefix is the most specific.
    let named = inside.max_by_key(|rule| rule.subnet.prefix_len());
    let [a, b, c, _] = address.octets();
    named.map_or_else(|| format!("{a}.{b}.{c}.0/24"), |rule| rule.site.clone())
}

impl Settings {
    /// The site of an address: that of a named subnet, else its /24.
    #[must_use]
    pub fn site_of(&self, address: Ipv4Addr) -> String {
        site_of(&self.sites, address)
    }

    /// The token with which the OS of this attempt calls home. Derived, so that it is not recorded and a restarted
    /// server still recognises it.
    #[must_use]
    pub fn token(&self, job: JobId, attempt: u32) -> String {
        let key = blake3::derive_key("swarmboot 2026 call-home token 1", &self.token_key);
        let mark = blake3::keyed_hash(&key, format!("{job} {attempt}").as_bytes());
        format!("{job}-{}", hex::encode(&mark.as_bytes()[..16]))
    }
}
