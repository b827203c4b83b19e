//! Core: bounds on handshakes, which are connections whose key is not known yet. Owns how many are under way, in all
//! and from one address; touches `limits`, `manners`. Time is an argument.
//!
//! A handshake costs both ends the same, except for a host that opens connections and stays silent: without a bound for
//! each address, one host keeps all new nodes out of the swarm.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use super::manners::Budget;
use crate::limits::{HANDSHAKE_EVERY, HANDSHAKES_BURST, HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX};

/// The most addresses whose recent handshakes are remembered.
const REMEMBERED_MAX: usize = 4096;

#[derive(Debug)]
struct Caller {
    under_way: usize,
    budget: Budget,
}

/// The handshakes under way, by the number of their connection, and the rate of each address.
#[derive(Debug)]
pub(super) struct Handshakes<Id> {
    under_way: HashMap<Id, Option<IpAddr>>,
    callers: HashMap<Option<IpAddr>, Caller>,
}

impl<Id: Eq + Hash + Copy> Handshakes<Id> {
    pub(super) fn new() -> Self {
        Self { under_way: HashMap::new(), callers: HashMap::new() }
    }

    /// Counts a connection that was opened from `address`. False if it is one too many, and is to be refused.
    pub(super) fn begin(&mut self, id: Id, address: Option<IpAddr>, now: Duration) -> bool {
        let from = address.map(network);
        if self.callers.len() >= REMEMBERED_MAX {
            self.callers.retain(|_, caller| caller.under_way > 0 || !caller.budget.is_full(now));
        }
        if self.under_way.len() >= HANDSHAKES_MAX || self.callers.len() >= REMEMBERED_MAX {
            return false;
        }
        let fresh = || Caller { under_way: 0, budget: Budget::new(HANDSHAKES_BURST, HANDSHAKE_EVERY) };
        let caller = self.callers.entry(from).or_insert_with(fresh);
        if caller.under_way >= HANDSHAKES_PER_ADDRESS_MAX || !caller.budget.allows(now) {
            return false;
        }
        caller.under_way += 1;
        self.under_way.insert(id, from);
        true
    }

    /// The handshake has ended, with or without success.
    pub(super) fn over(&mut self, id: Id) {
        if let Some(from) = self.under_way.remove(&id)
            && let Some(caller) = self.callers.get_mut(&from)
        {
            caller.under_way = caller.under_way.saturating_sub(1);
        }
    }
}

/// The unit of counting: an IPv4 address, or a /64, since an IPv6 host has a whole one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn one_host_does_not_keep_the_others_out() {
        let mut hands = Handshakes::new();
        let opened = (0..5000).filter(|id| hands.begin(*id, ip("10.0.0.9"), NOW)).count();
        assert_eq!(opened, HANDSHAKES_PER_ADDRESS_MAX);
        assert!(hands.begin(9000, ip("10.0.0.1"), NOW), "another is served");
        hands.over(0);
        assert!(hands.begin(9001, ip("10.0.0.9"), NOW), "one ended");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one() {
        let mut hands = Handshakes::new();
        let address = |id: u32| ip(&format!("2001:db8::{id:x}"));
        let opened = (0..5000).filter(|id| hands.begin(*id, address(*id), NOW)).count();
        assert_eq!(opened, HANDSHAKES_PER_ADDRESS_MAX);
        assert!(hands.begin(9000, ip("2001:db8:0:1::1"), NOW));
    }

    #[test]
    fn handshakes_that_end_at_once_are_bounded_as_well() {
        let mut hands = Handshakes::new();
        let opened =
            (0..5000).filter(|id| hands.begin(*id, ip("10.0.0.9"), NOW).then(|| hands.over(*id)).is_some());
        assert_eq!(opened.count(), HANDSHAKES_BURST as usize);
        assert!(hands.begin(9000, ip("10.0.0.9"), NOW + HANDSHAKE_EVERY));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut hands = Handshakes::new();
        for id in 0..20_000u32 {
            let now = NOW + Duration::from_millis(u64::from(id));
            if hands.begin(id, Some(IpAddr::V4(id.into())), now) {
                hands.over(id);
            }
        }
        assert!(hands.callers.len() <= REMEMBERED_MAX && hands.under_way.is_empty());
    }
}
