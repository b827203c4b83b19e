//! Core: the networks whose machines are served. Touches nothing.
//!
//! A UDP answer to an unknown address can be aimed at anybody, so TFTP answers only these networks: the interface's
//! own, the subnets of the configured sites, and those that machines were lately seen to netboot from: behind a relay,
//! or with addresses of another network on the same link.

use std::net::Ipv4Addr;

use common::limits::DHCP_NETWORKS_MAX;
use ipnet::Ipv4Net;

/// The prefix length that is assumed of a network where an address was seen: nobody tells a relay's prefix, and a
/// branch office seldom has more than this.
const SEEN_PREFIX: u8 = 16;

/// The networks that are always served, and up to [`DHCP_NETWORKS_MAX`] that machines were seen in.
#[derive(Debug, Clone)]
pub(super) struct Networks {
    fixed: Vec<Ipv4Net>,
    seen: Vec<Ipv4Net>,
}

impl Networks {
    /// Starts with the networks that are always served.
    pub(super) fn new(fixed: Vec<Ipv4Net>) -> Self {
        Self { fixed, seen: Vec::new() }
    }

    /// Notes that a machine netboots from `address`, or behind a relay with it; returns whether that network is new.
    pub(super) fn note(&mut self, address: Ipv4Addr) -> bool {
        let nowhere = address.is_unspecified() || address.is_loopback() || address.is_multicast();
        if nowhere || address.is_broadcast() || self.fixed.iter().any(|network| network.contains(&address)) {
            return false;
        }
        let Ok(network) = Ipv4Net::new(address, SEEN_PREFIX).map(|network| network.trunc()) else {
            return false;
        };
        let known = self.seen.iter().position(|other| *other == network);
        let new = known.is_none();
        if let Some(at) = known {
            self.seen.remove(at);
        } else if self.seen.len() >= DHCP_NETWORKS_MAX {
            self.seen.remove(0);
        }
        self.seen.push(network);
        new
    }

    /// Those that are always served, then those that were seen, the latest last.
    pub(super) fn all(&self) -> Vec<Ipv4Net> {
        self.fixed.iter().chain(&self.seen).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_served_where_they_were_seen_and_the_list_is_bounded() {
        let own: Ipv4Net = "10.0.0.0/24".parse().unwrap();
        let mut networks = Networks::new(vec![own]);
        let ip = |a, b| Ipv4Addr::new(a, b, 7, 1);
        assert!(!networks.note(Ipv4Addr::new(10, 0, 0, 9)), "it is served anyway");
        for nowhere in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, ip(224, 0)] {
            assert!(!networks.note(nowhere), "{nowhere}");
        }
        assert!(networks.note(ip(172, 16)) && !networks.note(ip(172, 16)));
        assert_eq!(networks.all(), [own, "172.16.0.0/16".parse().unwrap()]);
        for n in 0..=255 {
            networks.note(ip(10, n));
            networks.note(ip(172, 16));
        }
        let all = networks.all();
        assert_eq!(all.len(), 1 + DHCP_NETWORKS_MAX);
        assert!(all.contains(&"172.16.0.0/16".parse().unwrap()), "who netboots now stays");
    }
}
