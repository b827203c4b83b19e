//! Core: which of an image's agents may leave the swarm. A sealed machine stays as long as another at its site needs
//! chunks, up to the limits of [`Linger`]. Touches nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use common::chunk::ChunkSet;
use common::trust::PublicKey;

/// How long sealed machines stay to serve others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linger {
    /// A sealed machine stays at least so long: the admission of another one may be under way.
    pub grace: Duration,
    /// An admitted machine that is not connected keeps sealed ones for so long since its admission or disconnection,
    /// but none that was sealed longer ago than this. A machine needs about a minute from its report to the swarm.
    pub expected: Duration,
    /// A connected machine that has gained no chunk for so long keeps nobody.
    pub idle: Duration,
    /// A sealed machine may leave after this, even if others still need chunks.
    pub longest: Duration,
    /// A relay that holds everything serves so many machines of its site alone: while no more need chunks, the sealed
    /// ones may leave. A relay has one disk and one network card, as each of them has.
    pub by_relay: usize,
}

impl Default for Linger {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(1),
            expected: Duration::from_secs(120),
            idle: Duration::from_secs(5 * 60),
            longest: Duration::from_secs(30 * 60),
            by_relay: 8,
        }
    }
}

/// What decides whether one agent may leave, and whether others have to stay for it.
#[derive(Debug, Clone)]
pub struct Presence {
    /// Its site: only agents of one site keep each other.
    pub site: String,
    /// Whether its control stream is open.
    pub connected: bool,
    /// The chunks that it holds; of length zero until its hello.
    pub held: ChunkSet,
    /// When its disk was sealed; `None` before that.
    pub sealed: Option<Duration>,
    /// Whether it was sent its release.
    pub released: bool,
    /// Whether it is a relay: it is never released, and nobody waits for it.
    pub is_relay: bool,
    /// When it was admitted, or last connected or disconnected.
    changed: Duration,
    /// When it last got a chunk, connected, or was told to start.
    gained: Duration,
}

/// Why a machine keeps the sealed ones of its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It is connected and lacks chunks.
    Here,
    /// It lacks chunks and is not connected, but may connect soon.
    Expected,
}

impl Presence {
    /// A machine that was admitted and has not connected yet.
    #[must_use]
    pub fn new(site: String, now: Duration) -> Self {
        let held = ChunkSet::new(0);
        let (connected, released, is_relay) = (false, false, false);
        Self { site, connected, held, sealed: None, released, is_relay, changed: now, gained: now }
    }

    /// A relay that was admitted and has not connected yet.
    #[must_use]
    pub fn of_relay(site: String, now: Duration) -> Self {
        Self { is_relay: true, ..Self::new(site, now) }
    }

    /// Its control stream is open.
    pub fn join(&mut self, now: Duration) {
        self.connected = true;
        self.changed = now;
        self.gained = now;
    }

    /// It got a chunk, or may fetch from now on.
    pub fn gain(&mut self, now: Duration) {
        self.gained = now;
    }

    /// Its control stream has ended; it may connect again.
    pub fn leave(&mut self, now: Duration) {
        self.connected = false;
        self.changed = now;
    }

    /// Its disk is sealed. True if that was not known before.
    pub fn seal(&mut self, now: Duration) -> bool {
        let news = self.sealed.is_none();
        self.sealed.get_or_insert(now);
        news
    }

    /// Whether it will not come back under this key: it was released and has disconnected, or its disk is sealed and it
    /// has been disconnected for longer than `linger.expected`.
    #[must_use]
    pub fn is_gone(&self, linger: Linger, now: Duration) -> bool {
        let away = !self.connected && now >= self.changed + linger.expected;
        !self.connected && self.released || self.sealed.is_some() && away
    }

    /// Why it needs chunks from others; `None` when it has all `wanted`, or has taken too long.
    fn need(&self, wanted: u32, linger: Linger, now: Duration) -> Option<Need> {
        let lacks = !self.is_relay && self.sealed.is_none() && self.held.count() < wanted;
        match self.connected {
            _ if !lacks => None,
            true => (now < self.gained + linger.idle).then_some(Need::Here),
            false => (now < self.changed + linger.expected).then_some(Need::Expected),
        }
    }
}

/// The agents that may leave now: connected, sealed, and nobody at their site needs any of the `wanted` chunks.
#[must_use]
pub fn releasable(
    seats: &BTreeMap<PublicKey, &Presence>,
    wanted: u32,
    linger: Linger,
    now: Duration,
) -> Vec<PublicKey> {
    let needy: Vec<(&str, Need)> = seats
        .values()
        .filter_map(|presence| Some((presence.site.as_str(), presence.need(wanted, linger, now)?)))
        .collect();
    let is_full = |presence: &&&Presence| {
        presence.is_relay && presence.connected && wanted > 0 && presence.held.count() >= wanted
    };
    let is_left_to_relays = |site: &str| {
        let relays = seats.values().filter(is_full).filter(|relay| relay.site == site).count();
        let needy = needy.iter().filter(|(at, need)| *at == site && *need == Need::Here).count();
        relays > 0 && needy <= relays * linger.by_relay
    };
    let free = |presence: &Presence| {
        let Some(sealed) = presence.sealed else { return false };
        let needed = needy.iter().any(|(site, need)| {
            let patience = if *need == Need::Here { linger.longest } else { linger.expected };
            *site == presence.site && now < sealed + patience
        });
        let stays = needed && !is_left_to_relays(&presence.site);
        presence.connected && !presence.released && now >= sealed + linger.grace && !stays
    };
    seats.iter().filter(|(_, presence)| free(presence)).map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use common::chunk::ChunkIndex;
    use common::trust::KeyPair;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn presence(site: &str, held: u32, sealed: Option<u64>) -> Presence {
        let mut presence = Presence::new(site.to_owned(), at(0));
        presence.join(at(0));
        presence.held = ChunkSet::new(4);
        (0..held).for_each(|chunk| {
            presence.held.insert(ChunkIndex(chunk));
        });
        presence.sealed = sealed.map(at);
        presence
    }

    fn may_go(other: &Presence, now: u64) -> bool {
        let keys = [1, 2].map(|number| KeyPair::from_secret([number; 32]).public());
        let sealed = presence("a", 4, Some(10));
        let seats = BTreeMap::from([(keys[0], &sealed), (keys[1], other)]);
        releasable(&seats, 4, Linger::default(), at(now)).contains(&keys[0])
    }

    #[test]
    fn a_sealed_machine_stays_while_it_is_needed_and_not_for_ever() {
        let gaining = |now| Presence { gained: now, ..presence("a", 3, None) };
        let admitted = |now| Presence::new("a".to_owned(), now);
        let absent = Presence { connected: false, ..presence("a", 0, None) };
        let cases = [
            ("nobody needs it", presence("a", 4, None), 11, true),
            ("the grace is not over", presence("a", 4, None), 10, false),
            ("one lacks chunks", presence("a", 3, None), 11, false),
            ("one lacks chunks elsewhere", presence("b", 3, None), 11, true),
            ("one lacks chunks, for too long", gaining(at(30 * 60)), 10 + 30 * 60, true),
            ("one lacks chunks and gets some", gaining(at(29 * 60)), 9 + 30 * 60, false),
            ("one lacks chunks and gets none", presence("a", 3, None), 300, true),
            ("one was admitted again and again and never came", admitted(at(125)), 129, false),
            ("one was admitted again and again, for too long", admitted(at(125)), 130, true),
            ("one is expected", absent.clone(), 119, false),
            ("one was expected for too long", absent, 120, true),
        ];
        for (what, other, now, goes) in cases {
            assert_eq!(may_go(&other, now), goes, "{what}");
        }
    }

    #[test]
    fn a_relay_that_holds_everything_lets_machines_leave_earlier() {
        let key = |number: u8| KeyPair::from_secret([number; 32]).public();
        let relay = |held| Presence { is_relay: true, ..presence("a", held, None) };
        let goes = |relay: &Presence, needy: u8| {
            let (sealed, lacking) = (presence("a", 4, Some(10)), presence("a", 3, None));
            let others = (0..needy).map(|number| (key(10 + number), &lacking));
            let seats: BTreeMap<_, _> =
                [(key(1), &sealed), (key(2), relay)].into_iter().chain(others).collect();
            let out = releasable(&seats, 4, Linger::default(), at(11));
            assert!(!out.contains(&key(2)), "a relay is not released");
            out.contains(&key(1))
        };
        assert!(goes(&relay(3), 0), "nobody waits for a relay");
        assert!(!goes(&relay(3), 1), "a relay that lacks chunks stands for nobody");
        assert!(goes(&relay(4), 1) && goes(&relay(4), 8), "it serves those that are left");
        assert!(!goes(&relay(4), 9), "there are too many of them for it alone");
        assert!(!goes(&Presence { connected: false, ..relay(4) }, 1), "it is not there");
        assert!(!goes(&Presence { site: "b".to_owned(), ..relay(4) }, 1), "it is elsewhere");
    }

    #[test]
    fn who_is_not_sealed_is_not_released() {
        let key = KeyPair::from_secret([1; 32]).public();
        let done = presence("a", 4, None);
        assert!(releasable(&BTreeMap::from([(key, &done)]), 4, Linger::default(), at(9999)).is_empty());
    }
}
