//! Core: chunks that the server cannot read. Owns which, and when each is looked for again; touches the swarm. Nobody is
//! leased one before it is there again: from the store (a disk that failed once), from its source, or from a machine
//! that has it. An agent that lacks nothing else is told that it cannot go on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use common::chunk::ChunkIndex;
use common::trust::PublicKey;
use common::wire::swarm::ToAgent;

use super::super::handle::SwarmFact;
use super::super::inject::Event;
use super::{Holder, ImageSwarm, Out};

/// How long one attempt at a chunk may take before the next.
const AGAIN: Duration = Duration::from_secs(5);

/// Chunks that are looked for at once: each may be read from a disk that is failing.
const AT_ONCE: usize = 4;

/// An agent that lacks nothing but what is lost waits so long for it: longer than two attempts take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lost chunks of one image that the log hears of; all of them are in `image verify`.
const TOLD_MAX: u32 = 8;

/// The chunks that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Since when, and when each is looked for next.
    chunks: BTreeMap<ChunkIndex, (Duration, Duration)>,
    told: u32,
}

impl ImageSwarm {
    /// A leased chunk could not be read.
    pub(in super::super) fn failed(
        &mut self,
        key: PublicKey,
        chunk: ChunkIndex,
        cause: String,
        now: Duration,
    ) -> Vec<Out> {
        let mut out = Vec::new();
        if let Entry::Vacant(place) = self.lost.chunks.entry(chunk) {
            place.insert((now, now));
            self.lost.told += 1;
            if self.lost.told <= TOLD_MAX {
                out.push(Out::Fact(SwarmFact::ChunkLost { image: self.image, chunk, cause }));
            }
        }
        out.extend(self.inject(Event::Failed { agent: key, chunk }, now));
        out
    }

    /// A lost chunk can be read again; `from` had it.
    pub(in super::super) fn mended(
        &mut self,
        chunk: ChunkIndex,
        from: Option<PublicKey>,
        now: Duration,
    ) -> Vec<Out> {
        if self.lost.chunks.remove(&chunk).is_none() {
            return vec![];
        }
        let from = from.and_then(|key| Some(self.admission(&key)?.job));
        let mut out = vec![Out::Fact(SwarmFact::ChunkMended { image: self.image, chunk, from })];
        out.extend(self.inject(Event::Mended(chunk), now));
        out
    }

    /// What is to be tried now, and who is told that it waits in vain.
    pub(super) fn look_for_lost(&mut self, now: Duration) -> Vec<Out> {
        if self.lost.chunks.is_empty() {
            return vec![];
        }
        let under_way = self.lost.chunks.values().filter(|(_, next)| now < *next).count();
        let due: Vec<ChunkIndex> = self
            .lost
            .chunks
            .iter()
            .filter(|(_, (_, next))| now >= *next)
            .take(AT_ONCE.saturating_sub(under_way))
            .map(|(chunk, _)| *chunk)
            .collect();
        let mut out = Vec::new();
        for chunk in due {
            if let Some((_, next)) = self.lost.chunks.get_mut(&chunk) {
                *next = now + AGAIN;
            }
            out.push(Out::Mend(chunk, self.holders(chunk)));
        }
        let old = self.lost.chunks.values().any(|(since, _)| now >= *since + PATIENCE);
        if old {
            out.extend(self.tell_stranded());
        }
        out
    }

    fn holders(&self, chunk: ChunkIndex) -> Vec<Holder> {
        let keys = self.injector.iter().flat_map(|injector| injector.holders(chunk));
        let known = keys.filter_map(|key| Some((key, self.members.get(&key)?)));
        known.map(|(key, member)| Holder { key, addresses: member.addresses.clone() }).collect()
    }

    fn tell_stranded(&mut self) -> Vec<Out> {
        let Some(injector) = &self.injector else { return vec![] };
        let (count, first) = (self.lost.chunks.len(), self.lost.chunks.keys().next());
        let first = first.map_or(0, |chunk| chunk.0);
        let mut out = Vec::new();
        for (key, member) in &mut self.members {
            let waits = member.presence.connected && member.expelled.is_none() && !member.stranded;
            if waits && injector.is_stranded(key) {
                member.stranded = true;
                let reason = format!(
                    "the server cannot read {count} chunks of the image, chunk {first} first, and no machine has them: \
                     see `swarmboot image verify`; adding the image again from its source mends it"
                );
                out.push(Out::Tell(*key, ToAgent::Broken { reason }));
            }
        }
        out
    }
}
