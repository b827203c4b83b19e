//! Core: what is done about chunks that the server cannot read. Touches the swarm's state alone. Such a chunk is leased
//! to nobody until it can be read again: from the store (a disk that failed once), from the image's source, or from a
//! machine that has it. An agent that lacks nothing else is told that it cannot go on.

use std::time::Duration;

use common::chunk::ChunkIndex;
use common::trust::PublicKey;
use common::wire::swarm::ToAgent;

use super::super::handle::SwarmFact;
use super::super::inject::Event;
use super::{Holder, ImageSwarm, Out};

impl ImageSwarm {
    /// A chunk that is leased to `key` could not be read.
    pub(in super::super) fn failed(
        &mut self,
        key: PublicKey,
        chunk: ChunkIndex,
        cause: String,
        now: Duration,
    ) -> Vec<Out> {
        let mut out = Vec::new();
        if self.lost.add(chunk, now) {
            out.push(Out::Fact(SwarmFact::ChunkLost { image: self.image, chunk, cause }));
        }
        out.extend(self.inject(Event::Failed { agent: key, chunk }, now));
        out
    }

    /// A lost chunk can be read again; `from` is the agent that sent it, if one did.
    pub(in super::super) fn mended(
        &mut self,
        chunk: ChunkIndex,
        from: Option<PublicKey>,
        now: Duration,
    ) -> Vec<Out> {
        if !self.lost.remove(chunk) {
            return vec![];
        }
        let from = from.and_then(|key| Some(self.admission(&key)?.party()));
        let mut out = vec![Out::Fact(SwarmFact::ChunkMended { image: self.image, chunk, from })];
        out.extend(self.inject(Event::Mended(chunk), now));
        out
    }

    /// Starts the attempts that are due, and tells the agents that cannot go on.
    pub(super) fn look_for_lost(&mut self, now: Duration) -> Vec<Out> {
        let due = self.lost.due(now);
        let mut out: Vec<Out> = due.into_iter().map(|chunk| Out::Mend(chunk, self.holders(chunk))).collect();
        if self.lost.is_waited_for_in_vain(now) {
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
        let (count, first) = (self.lost.len(), self.lost.first().map_or(0, |chunk| chunk.0));
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
