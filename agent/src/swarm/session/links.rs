//! Core: which connections to dial, and the back-off between retries. Owns the state of every connection that this
//! agent dials: at most one control and one pull connection to the server, and one pull connection to each neighbour.
//! Touches nothing; time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::Multiaddr;

use common::swarm::behaviour::Protocol;
use common::swarm::splitmix::SplitMix64;
use common::trust::PublicKey;

/// The back-off after the first failure, doubled with each further one. A neighbour that has not been told of this
/// agent yet admits it a moment later.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// The longest back-off: short, so that a server that was restarted is found soon.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The timeout of a dial that neither succeeds nor fails.
const DIAL_PATIENCE: Duration = Duration::from_secs(15);

/// The number of one attempt to connect, of the connection that it makes, and of the one stream on that. Never used
/// twice in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dial(u64);

/// The key to dial, and what the connection is for.
pub(super) type Target = (PublicKey, Protocol);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be dialled at this time: at once, or after a back-off.
    Waiting(Duration),
    Dialling(Dial, Duration),
    Open(Dial),
}

#[derive(Debug)]
struct Link {
    addresses: Vec<Multiaddr>,
    state: State,
    failures: u32,
}

/// The wanted connections, at most one for each target.
#[derive(Debug)]
pub(super) struct Links {
    links: BTreeMap<Target, Link>,
    /// The number of the last dial.
    dials: u64,
    rng: SplitMix64,
}

impl Links {
    pub(super) fn new(rng_seed: u64) -> Self {
        Self { links: BTreeMap::new(), dials: 0, rng: SplitMix64::new(rng_seed) }
    }

    /// Wants a connection to `target`, to be dialled at once if it is new; otherwise only replaces its addresses.
    pub(super) fn want(&mut self, target: Target, addresses: Vec<Multiaddr>, now: Duration) {
        let fresh = Link { addresses: vec![], state: State::Waiting(now), failures: 0 };
        self.links.entry(target).or_insert(fresh).addresses = addresses;
    }

    /// Forgets `target`. The dial whose connection is to be closed, if there is one.
    pub(super) fn drop(&mut self, target: Target) -> Option<Dial> {
        match self.links.remove(&target)?.state {
            State::Waiting(_) => None,
            State::Dialling(dial, _) | State::Open(dial) => Some(dial),
        }
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        self.links.keys().copied().collect()
    }

    /// The dial of the open stream to `target`.
    pub(super) fn open(&self, target: Target) -> Option<Dial> {
        match self.links.get(&target)?.state {
            State::Open(dial) => Some(dial),
            State::Waiting(_) | State::Dialling(..) => None,
        }
    }

    /// Takes everything that is due to be dialled, and counts it as dialled at `now`.
    pub(super) fn dial(&mut self, now: Duration) -> Vec<(Dial, Target, Vec<Multiaddr>)> {
        let due = |link: &Link| matches!(link.state, State::Waiting(at) if now >= at);
        let due = self.links.iter_mut().filter(|(_, link)| due(link) && !link.addresses.is_empty());
        due.map(|(target, link)| {
            self.dials += 1;
            let dial = Dial(self.dials);
            link.state = State::Dialling(dial, now);
            (dial, *target, link.addresses.clone())
        })
        .collect()
    }

    /// Dials that have reached their timeout.
    pub(super) fn overdue(&self, now: Duration) -> Vec<Dial> {
        let overdue = |link: &Link| match link.state {
            State::Dialling(dial, since) if now >= since + DIAL_PATIENCE => Some(dial),
            _ => None,
        };
        self.links.values().filter_map(overdue).collect()
    }

    /// The target of `dial`, as long as it is wanted and its stream is not open yet.
    pub(super) fn awaited(&self, dial: Dial) -> Option<Target> {
        let awaited = |link: &Link| matches!(link.state, State::Dialling(own, _) if own == dial);
        self.links.iter().find(|(_, link)| awaited(link)).map(|(target, _)| *target)
    }

    /// Records that the stream of `dial` is open. The target, if it is still wanted.
    pub(super) fn opened(&mut self, dial: Dial) -> Option<Target> {
        let target = self.awaited(dial)?;
        self.links.get_mut(&target)?.state = State::Open(dial);
        Some(target)
    }

    /// Ends the back-off of `target`: a message came over its stream.
    pub(super) fn proved(&mut self, target: Target) {
        if let Some(link) = self.links.get_mut(&target) {
            link.failures = 0;
        }
    }

    /// The connection has ended, or the dial failed: sets the time of the retry. The target and its failures in a row,
    /// if `dial` was its present one.
    pub(super) fn failed(&mut self, dial: Dial, now: Duration) -> Option<(Target, u32)> {
        let current = |link: &Link| match link.state {
            State::Waiting(_) => false,
            State::Dialling(own, _) | State::Open(own) => own == dial,
        };
        let (target, link) = self.links.iter_mut().find(|(_, link)| current(link))?;
        let wait = FIRST_WAIT.saturating_mul(1 << link.failures.min(10)).min(LONGEST_WAIT);
        // Half of the back-off is random, so that the machines of a rack do not all retry at the same moment.
        let part = self.rng.below(1000);
        let wait = wait / 2 + wait / 2000 * u32::try_from(part).unwrap_or(0);
        link.failures = link.failures.saturating_add(1);
        link.state = State::Waiting(now + wait);
        Some((*target, link.failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::trust::KeyPair;

    #[test]
    fn a_link_is_dialled_again_and_again_with_bounded_waits() {
        let target = (KeyPair::from_secret([1; 32]).public(), Protocol::Pull);
        let mut links = Links::new(1);
        let mut now = Duration::ZERO;
        links.want(target, vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()], now);
        for round in 1..=20 {
            let dialled = links.dial(now);
            let [(dial, ..)] = dialled[..] else { panic!("round {round}: {dialled:?}") };
            assert!(links.dial(now).is_empty());
            assert_eq!(links.failed(dial, now).map(|(_, failures)| failures), Some(round));
            assert_eq!(links.failed(dial, now), None, "counted once");
            now += LONGEST_WAIT;
        }
        let (dial, ..) = links.dial(now)[0].clone();
        assert_eq!((links.opened(dial), links.open(target)), (Some(target), Some(dial)));
        assert_eq!(links.drop(target), Some(dial));
        assert_eq!(links.opened(dial), None);
    }
}
