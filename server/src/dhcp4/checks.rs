//! Packets that wait while the address for them is probed. Touches tokio's clock only.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use common::limits::DHCP_CHECKS_MAX;
use tokio::time::Instant;

use super::decide::Port;

/// How long an address is probed for, with two ARP requests: a host on a LAN answers within a millisecond, one that
/// sleeps within some hundred, and a ROM waits at least a second for its offer.
pub(super) const CHECK_TIME: Duration = Duration::from_millis(300);

/// A packet that waits for a probe.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) packet: Vec<u8>,
    pub(super) port: Port,
    pub(super) source: SocketAddrV4,
}

/// The addresses that are being probed, each with the newest packet that waits for it.
#[derive(Debug, Default)]
pub(super) struct Checks {
    waiting: BTreeMap<Ipv4Addr, Check>,
}

#[derive(Debug)]
struct Check {
    held: Held,
    due: Instant,
    again: bool,
}

impl Checks {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= DHCP_CHECKS_MAX
    }

    /// Holds `held` until `address` has been probed. Returns whether a probe must be sent now.
    pub(super) fn begin(&mut self, address: Ipv4Addr, held: Held) -> bool {
        if let Some(check) = self.waiting.get_mut(&address) {
            check.held = held;
            return false;
        }
        let due = Instant::now() + CHECK_TIME / 2;
        self.waiting.insert(address, Check { held, due, again: true });
        true
    }

    /// Takes out the packet that waits for `address`, and ends that probe.
    pub(super) fn take(&mut self, address: Ipv4Addr) -> Option<Held> {
        self.waiting.remove(&address).map(|check| check.held)
    }

    /// Returns when the next probe is due; never while there is none.
    pub(super) async fn due(&self) {
        match self.waiting.values().map(|check| check.due).min() {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Sends the second request of each probe that is due for it; returns those that nobody has answered.
    pub(super) fn pass(&mut self, ask: impl Fn(Ipv4Addr)) -> Vec<(Ipv4Addr, Held)> {
        let now = Instant::now();
        let mut free = Vec::new();
        for (address, check) in &mut self.waiting {
            if check.due <= now && check.again {
                (check.again, check.due) = (false, now + CHECK_TIME / 2);
                ask(*address);
            } else if check.due <= now {
                free.push(*address);
            }
        }
        free.into_iter().filter_map(|address| Some((address, self.take(address)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_asked_for_twice_and_its_newest_packet_goes_on() {
        let (mut checks, address) = (Checks::default(), Ipv4Addr::new(10, 0, 0, 7));
        let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let held = |byte| Held { packet: vec![byte], port: Port::Dhcp, source };
        assert!(checks.begin(address, held(1)) && !checks.begin(address, held(2)));
        let asked = std::cell::Cell::new(0);
        let mut went_on = Vec::new();
        let began = Instant::now();
        while went_on.is_empty() {
            checks.due().await;
            went_on = checks.pass(|_| asked.set(asked.get() + 1));
        }
        assert_eq!((asked.get(), went_on[0].0, went_on[0].1.packet.as_slice()), (1, address, &[2][..]));
        assert!(began.elapsed() >= CHECK_TIME && checks.take(address).is_none());
    }
}
