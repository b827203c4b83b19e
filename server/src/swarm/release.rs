//! Core: who of an image's agents may leave the swarm. A sealed machine stays as long as somebody at its
//! site needs it, but not for ever. Touches nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use common::chunk::ChunkSet;
use common::trust::PublicKey;

/// How long machines stay for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linger {
    /// A sealed machine stays at least so long: news of who else comes may be on its way.
    pub grace: Duration,
    /// A machine that was admitted, or lost its line, holds others back for so long, but none that was sealed so long
    /// ago; a machine needs about a minute from its report to the swarm.
    pub expected: Duration,
    /// A machine that is here and gets nothing for so long holds nobody back.
    pub idle: Duration,
    /// A sealed machine goes after this, whoever needs it.
    pub longest: Duration,
}

impl Default for Linger {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(1),
            expected: Duration::from_secs(120),
            idle: Duration::from_secs(5 * 60),
            longest: Duration::from_secs(30 * 60),
        }
    }
}

/// One agent, as far as leaving goes.
#[derive(Debug, Clone)]
pub struct Presence {
    /// Where it is.
    pub site: String,
    /// Whether its control stream is up.
    pub connected: bool,
    /// What it holds.
    pub held: ChunkSet,
    /// When its disk was sealed.
    pub sealed: Option<Duration>,
    /// Whether it was told to leave.
    pub released: bool,
    /// When it was admitted, or last came or went.
    changed: Duration,
    /// When it last came to hold something, or began to fetch.
    gained: Duration,
}

/// How a machine keeps those of its site that are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It is here and lacks chunks.
    Here,
    /// It is expected.
    Expected,
}

impl Presence {
    /// A machine that was admitted and is not here yet.
    #[must_use]
    pub fn new(site: String, now: Duration) -> Self {
        let held = ChunkSet::new(0);
        Self { site, connected: false, held, sealed: None, released: false, changed: now, gained: now }
    }

    /// It is here.
    pub fn join(&mut self, now: Duration) {
        self.connected = true;
        self.changed = now;
        self.gained = now;
    }

    /// It holds more than before, or fetches from now on.
    pub fn gain(&mut self, now: Duration) {
        self.gained = now;
    }

    /// It is gone, perhaps to come back.
    pub fn leave(&mut self, now: Duration) {
        self.connected = false;
        self.changed = now;
    }

    /// Its disk is sealed. True if that is news.
    pub fn seal(&mut self, now: Duration) -> bool {
        let news = self.sealed.is_none();
        self.sealed.get_or_insert(now);
        news
    }

    /// Whether its disk is whole and it has been away for so long that it will not come back under this key.
    #[must_use]
    pub fn is_gone(&self, linger: Linger, now: Duration) -> bool {
        let away = !self.connected && now >= self.changed + linger.expected;
        !self.connected && self.released || self.sealed.is_some() && away
    }

    /// Whether it needs chunks from others.
    fn need(&self, wanted: u32, linger: Linger, now: Duration) -> Option<Need> {
        let lacks = self.sealed.is_none() && self.held.count() < wanted;
        match self.connected {
            _ if !lacks => None,
            true => (now < self.gained + linger.idle).then_some(Need::Here),
            false => (now < self.changed + linger.expected).then_some(Need::Expected),
        }
    }
}

/// Who may leave now: sealed, and nobody else at the site needs chunks of the `wanted` ones.
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
    let free = |presence: &Presence| {
        let Some(sealed) = presence.sealed else { return false };
        let needed = needy.iter().any(|(site, need)| {
            let patience = if *need == Need::Here { linger.longest } else { linger.expected };
            *site == presence.site && now < sealed + patience
        });
        presence.connected && !presence.released && now >= sealed + linger.grace && !needed
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
    fn who_is_not_sealed_is_not_released() {
        let key = KeyPair::from_secret([1; 32]).public();
        let done = presence("a", 4, None);
        assert!(releasable(&BTreeMap::from([(key, &done)]), 4, Linger::default(), at(9999)).is_empty());
    }
}
