//! Core: whom to dial, and when again. Owns the state of every connection that this agent dials: at most
//! one control and one pull connection to the server, one pull connection to each neighbour. Touches
//! nothing; time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;

use common::swarm::behaviour::Protocol;
use common::swarm::splitmix::SplitMix64;
use common::trust::PublicKey;

/// The first wait after a failure, doubled with each further one. A neighbour that has not heard of this
/// agent yet lets it in a moment later.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// The longest wait. Waits are never longer, so that a server that comes back is found soon.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A dial that neither succeeds nor fails is given up after this.
const DIAL_PATIENCE: Duration = Duration::from_secs(15);

/// Who is dialled for what.
pub(super) type Target = (PublicKey, u8);

/// The target of `protocol` at `key`.
pub(super) fn target(key: PublicKey, protocol: Protocol) -> Target {
    (key, u8::from(protocol == Protocol::Pull))
}

/// What a target is dialled for.
pub(super) fn protocol(target: Target) -> Protocol {
    if target.1 == 0 { Protocol::Control } else { Protocol::Pull }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be dialled then.
    Waiting(Duration),
    Dialling(ConnectionId, Duration),
    Open(ConnectionId),
}

#[derive(Debug)]
struct Link {
    addresses: Vec<Multiaddr>,
    state: State,
    failures: u32,
}

/// All links.
#[derive(Debug)]
pub(super) struct Links {
    links: BTreeMap<Target, Link>,
    rng: SplitMix64,
}

impl Links {
    pub(super) fn new(rng_seed: u64) -> Self {
        Self { links: BTreeMap::new(), rng: SplitMix64::new(rng_seed) }
    }

    /// Wants a link, or changes where its other end is.
    pub(super) fn want(&mut self, target: Target, addresses: Vec<Multiaddr>, now: Duration) {
        let fresh = Link { addresses: vec![], state: State::Waiting(now), failures: 0 };
        self.links.entry(target).or_insert(fresh).addresses = addresses;
    }

    /// Does not want it any more: the connection to close, if there is one.
    pub(super) fn drop(&mut self, target: Target) -> Option<ConnectionId> {
        match self.links.remove(&target)?.state {
            State::Waiting(_) => None,
            State::Dialling(connection, _) | State::Open(connection) => Some(connection),
        }
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        self.links.keys().copied().collect()
    }

    #[cfg(test)]
    pub(super) fn is_open(&self, target: Target) -> bool {
        self.links.get(&target).is_some_and(|link| matches!(link.state, State::Open(_)))
    }

    /// What is to be dialled now.
    pub(super) fn due(&self, now: Duration) -> Vec<(Target, Vec<Multiaddr>)> {
        let due = |link: &Link| matches!(link.state, State::Waiting(at) if now >= at);
        let due = self.links.iter().filter(|(_, link)| due(link) && !link.addresses.is_empty());
        due.map(|(target, link)| (*target, link.addresses.clone())).collect()
    }

    /// Dials that have neither succeeded nor failed for too long.
    pub(super) fn overdue(&self, now: Duration) -> Vec<(Target, ConnectionId)> {
        let overdue = |(target, link): (&Target, &Link)| match link.state {
            State::Dialling(connection, since) if now >= since + DIAL_PATIENCE => Some((*target, connection)),
            _ => None,
        };
        self.links.iter().filter_map(overdue).collect()
    }

    pub(super) fn dialled(&mut self, target: Target, connection: ConnectionId, now: Duration) {
        if let Some(link) = self.links.get_mut(&target) {
            link.state = State::Dialling(connection, now);
        }
    }

    /// The stream is open. False if nobody wants it any more.
    pub(super) fn opened(&mut self, target: Target, connection: ConnectionId) -> bool {
        let link = self.links.get_mut(&target);
        let Some(link) =
            link.filter(|link| matches!(link.state, State::Dialling(own, _) if own == connection))
        else {
            return false;
        };
        link.state = State::Open(connection);
        true
    }

    /// It works: something came over it.
    pub(super) fn proved(&mut self, target: Target) {
        if let Some(link) = self.links.get_mut(&target) {
            link.failures = 0;
        }
    }

    /// The connection has ended or never came to be; it is dialled again later. The target and how many
    /// times in a row that happened, if the connection was a current one.
    pub(super) fn failed(&mut self, connection: ConnectionId, now: Duration) -> Option<(Target, u32)> {
        let current = |link: &Link| match link.state {
            State::Waiting(_) => false,
            State::Dialling(own, _) | State::Open(own) => own == connection,
        };
        let (target, link) = self.links.iter_mut().find(|(_, link)| current(link))?;
        let wait = FIRST_WAIT.saturating_mul(1 << link.failures.min(10)).min(LONGEST_WAIT);
        // Half of it by chance, so that a rack does not knock as one.
        let part = self.rng.below(1000);
        let wait = wait / 2 + wait / 2000 * u32::try_from(part).unwrap_or(0);
        link.failures = link.failures.saturating_add(1);
        link.state = State::Waiting(now + wait);
        Some((*target, link.failures))
    }

    /// The connection of an open or half-open link.
    pub(super) fn connection(&self, target: Target) -> Option<ConnectionId> {
        match self.links.get(&target)?.state {
            State::Waiting(_) => None,
            State::Dialling(connection, _) | State::Open(connection) => Some(connection),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::trust::KeyPair;

    #[test]
    fn a_link_is_dialled_again_and_again_with_bounded_waits() {
        let target = target(KeyPair::from_secret([1; 32]).public(), Protocol::Pull);
        let mut links = Links::new(1);
        let mut now = Duration::ZERO;
        links.want(target, vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()], now);
        for round in 1..=20 {
            assert_eq!(links.due(now).len(), 1, "round {round}");
            let connection = ConnectionId::new_unchecked(round);
            links.dialled(target, connection, now);
            assert!(links.due(now).is_empty());
            let failures = links.failed(connection, now).map(|(_, failures)| failures);
            assert_eq!(failures.map(|count| count as usize), Some(round));
            assert_eq!(links.failed(connection, now), None, "counted once");
            now += LONGEST_WAIT;
        }
        let connection = ConnectionId::new_unchecked(99);
        links.dialled(target, connection, now);
        assert!(links.opened(target, connection) && links.is_open(target));
        assert_eq!(links.drop(target), Some(connection));
        assert!(!links.opened(target, connection));
    }
}
