//! Core: who holds which chunks, for those who draw it: whole to whoever asks first, and then what changed since their last
//! answer. Owns how the swarm looked when somebody asked lately, bounded in number, bytes and age, and shared by all who
//! ask: none of them is remembered. Touches nothing.
//!
//! A mark is the hash of what an answer said. So a difference is only ever made from just that, whatever became of the
//! server, the swarm or its members meanwhile; where it is not kept any more, the answer is whole.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::ImageId;
use common::trust::PublicKey;

use crate::api::shapes::maps::{NodeMap, SwarmMaps};

/// Who asks so soon after somebody else gets the same answer.
const FRESH: Duration = Duration::from_secs(1);
/// Looks older than this are forgotten: whoever asks so rarely is answered whole.
const KEPT: Duration = Duration::from_secs(60);
/// So many looks are kept, and so many bytes of them; the newest in any case.
const KEPT_MAX: usize = 16;
const BYTES_MAX: usize = 16 << 20;

/// How the swarm looked lately.
#[derive(Debug, Default)]
pub(super) struct Maps {
    /// The number of each member, the same as long as it is one.
    numbers: BTreeMap<PublicKey, u32>,
    /// The number of the next one.
    next: u32,
    /// The oldest first.
    looks: VecDeque<Look>,
}

/// How it looked at one time.
#[derive(Debug)]
pub(super) struct Look {
    at: Duration,
    mark: String,
    places: u32,
    wanted: Option<ChunkSet>,
    nodes: BTreeMap<u32, Node>,
}

/// One member then.
#[derive(Debug)]
pub(super) struct Node {
    /// Its key in the live stream.
    pub k: String,
    /// The chunks that it holds.
    pub held: ChunkSet,
    /// Its uplink in bytes a second, to [`two_digits`]; 0 when unknown.
    pub uplink: u64,
    /// The numbers of those that it may fetch from.
    pub neighbours: Vec<u32>,
}

impl Maps {
    /// Whether it is time for another look.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.looks.back().is_none_or(|last| now >= last.at + FRESH)
    }

    /// Gives a number to each member that has none; those of others are gone.
    pub(super) fn number<T>(&mut self, members: &BTreeMap<PublicKey, T>) {
        self.numbers.retain(|key, _| members.contains_key(key));
        for key in members.keys() {
            self.numbers.entry(*key).or_insert_with(|| {
                self.next += 1;
                self.next
            });
        }
    }

    /// The number of a member.
    pub(super) fn number_of(&self, key: &PublicKey) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// How it looks since the last look; only what changed, if `since` is the mark of an answer that is kept. `None`
    /// before the first look.
    pub(super) fn answer(&self, since: Option<&str>, image: ImageId) -> Option<SwarmMaps> {
        let look = self.looks.back()?;
        let then = since.and_then(|mark| self.looks.iter().find(|look| look.mark == mark));
        Some(match then.filter(|then| then.wanted == look.wanted) {
            Some(then) => look.since(then, image),
            None => look.whole(image),
        })
    }

    /// Keeps a look, and of the earlier ones as many as there is room for.
    pub(super) fn keep(&mut self, look: Look) {
        // Nothing changed: it is the same look, and newer.
        self.looks.retain(|other| other.mark != look.mark);
        self.looks.push_back(look);
        let mut bytes: usize = self.looks.iter().map(Look::bytes).sum();
        while self.looks.len() > 1 && (self.looks.len() > KEPT_MAX || bytes > BYTES_MAX) {
            bytes -= self.looks.pop_front().map_or(0, |oldest| oldest.bytes());
        }
    }

    /// Forgets looks that are too old.
    pub(super) fn forget(&mut self, now: Duration) {
        self.looks.retain(|look| now < look.at + KEPT);
    }
}

impl Look {
    /// How it looks now: the chunks that are wanted, once that is known, and the members by their numbers.
    pub(super) fn new(at: Duration, wanted: Option<ChunkSet>, nodes: BTreeMap<u32, Node>) -> Self {
        let places = wanted.as_ref().map_or(0, ChunkSet::len);
        let look = Self { at, mark: String::new(), places, wanted, nodes };
        Self { mark: look.named(), ..look }
    }

    /// About how many bytes it takes.
    fn bytes(&self) -> usize {
        let node = |node: &Node| 200 + node.k.len() + node.held.words().len() * 8 + node.neighbours.len() * 4;
        self.nodes.values().map(node).sum()
    }

    /// Its mark.
    fn named(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut number = |number: u64| {
            hasher.update(&number.to_le_bytes());
        };
        for set in [self.wanted.as_ref()].into_iter().chain(self.nodes.values().map(|node| Some(&node.held)))
        {
            number(set.map_or(u64::MAX, |set| set.len().into()));
            set.iter().flat_map(|set| set.words()).for_each(|word| number(*word));
        }
        for (of, node) in &self.nodes {
            [u64::from(*of), node.uplink, node.k.len() as u64].into_iter().for_each(&mut number);
            node.k.bytes().for_each(|byte| number(byte.into()));
            number(node.neighbours.len() as u64);
            node.neighbours.iter().for_each(|other| number((*other).into()));
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    fn whole(&self, image: ImageId) -> SwarmMaps {
        SwarmMaps {
            image,
            mark: self.mark.clone(),
            since: None,
            places: self.places,
            wanted: self.wanted.as_ref().map(ChunkSet::bits),
            nodes: self.nodes.iter().map(|(number, node)| (*number, node.whole())).collect(),
            gone: vec![],
        }
    }

    /// What is other than `then`.
    fn since(&self, then: &Self, image: ImageId) -> SwarmMaps {
        let nodes = self.nodes.iter().map(|(number, node)| {
            let before = then.nodes.get(number);
            (*number, before.map_or_else(|| node.whole(), |before| node.since(before)))
        });
        SwarmMaps {
            image,
            mark: self.mark.clone(),
            since: Some(then.mark.clone()),
            places: self.places,
            wanted: None,
            nodes: nodes.filter(|(_, news)| *news != NodeMap::default()).collect(),
            gone: then.nodes.keys().filter(|number| !self.nodes.contains_key(number)).copied().collect(),
        }
    }
}

impl Node {
    fn whole(&self) -> NodeMap {
        NodeMap {
            k: Some(self.k.clone()),
            map: Some(self.held.bits()),
            got: vec![],
            uplink: Some(self.uplink),
            neighbours: Some(self.neighbours.clone()),
        }
    }

    fn since(&self, then: &Self) -> NodeMap {
        let got = gained(&then.held, &self.held);
        NodeMap {
            k: (self.k != then.k).then(|| self.k.clone()),
            map: got.is_none().then(|| self.held.bits()),
            got: got.unwrap_or_default(),
            uplink: (self.uplink != then.uplink).then_some(self.uplink),
            neighbours: (self.neighbours != then.neighbours).then(|| self.neighbours.clone()),
        }
    }
}

/// The chunks of `now` that `then` lacks; `None` where a map says it better: it lost some, or has many more.
fn gained(then: &ChunkSet, now: &ChunkSet) -> Option<Vec<u32>> {
    if then == now {
        return Some(vec![]);
    }
    let lost = then.words().iter().zip(now.words()).any(|(then, now)| then & !now != 0);
    let digits = now.len().checked_ilog10().unwrap_or(0) as usize + 2;
    let more = now.count().saturating_sub(then.count()) as usize;
    if then.len() != now.len() || lost || more * digits > now.words().len() * 11 {
        return None;
    }
    Some(now.iter().filter(|chunk| !then.contains(*chunk)).map(|ChunkIndex(number)| number).collect())
}

/// `number` to two digits: what is measured all the time would be told anew all the time.
pub(super) fn two_digits(number: u64) -> u64 {
    let unit = 10u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    number / unit * unit
}

#[cfg(test)]
mod tests;
