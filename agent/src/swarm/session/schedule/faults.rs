//! Core: neighbours that send wrong chunks, refuse chunks that they announced, or fall silent. Touches only the
//! scheduler's state.

use std::time::Duration;

use common::chunk::ChunkIndex;
use common::trust::PublicKey;

use super::{Effect, Scheduler, Source};

/// The timeout of a source with open requests that sends neither bytes nor a message. A holder with a long queue
/// sends `Waiting` every second.
pub(super) const SILENCE: Duration = Duration::from_secs(6);

/// Wrong chunks from one neighbour after which it is quarantined: nothing more is requested from it.
const STRIKES_MAX: u8 = 2;

/// The back-off for a chunk that a neighbour announced and then refused: it may be going from memory to disk there.
const REFUSED: Duration = Duration::from_secs(1);

/// A neighbour that for this long has sent no chunk, and refused this many that it announced, is no longer believed.
const HOLLOW: Duration = Duration::from_secs(5);
const HOLLOW_TIMES: u32 = 32;

impl Scheduler {
    /// Whether `from` sent too many wrong chunks to be asked again.
    #[must_use]
    pub(super) fn quarantined(&self, from: &PublicKey) -> bool {
        self.strikes.get(from).is_some_and(|(strikes, _)| *strikes >= STRIKES_MAX)
    }

    /// Neighbours that sent wrong chunks, each with the last of them, for a server that may have forgotten.
    pub(in crate::swarm::session) fn accused(&self) -> impl Iterator<Item = (PublicKey, ChunkIndex)> {
        self.strikes.iter().map(|(from, (_, chunk))| (*from, *chunk))
    }

    pub(super) fn corrupt(&mut self, from: PublicKey, chunk: ChunkIndex, effects: &mut Vec<Effect>) {
        self.give_back(from, chunk);
        if from == self.seed {
            return;
        }
        let was = self.quarantined(&from);
        // The chunk is not requested from it again, whatever becomes of its other chunks.
        self.forget(from, chunk);
        let (strikes, last) = self.strikes.entry(from).or_insert((0, chunk));
        *strikes = strikes.saturating_add(1);
        *last = chunk;
        if was || !self.quarantined(&from) {
            return;
        }
        effects.push(Effect::Quarantined { from });
        if let Some(source) = self.sources.get_mut(&from) {
            source.held.iter().for_each(|chunk| self.copies[chunk.at()] -= 1);
            for chunk in std::mem::take(&mut source.asked) {
                self.give_back(from, chunk);
                effects.push(Effect::Cancel { from, chunk });
            }
        }
    }

    pub(super) fn unavailable(
        &mut self,
        from: PublicKey,
        chunk: ChunkIndex,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let Some(source) = self.sources.get_mut(&from) else {
            return;
        };
        source.moved = now;
        if !source.asked.remove(&chunk) {
            return;
        }
        if from == self.seed {
            self.leased.retain(|other| *other != chunk);
            self.give_back(from, chunk);
            return;
        }
        source.refused.push_back((now + REFUSED, chunk));
        let (since, times) = source.refuses.get_or_insert((now, 0));
        *times += 1;
        let hollow = now >= *since + HOLLOW && *times >= HOLLOW_TIMES;
        self.forget(from, chunk);
        self.give_back(from, chunk);
        if hollow {
            self.disbelieve(from);
            effects.push(Effect::Hollow { from });
        }
    }

    /// Takes it that `from` holds nothing, until it announces chunks again.
    fn disbelieve(&mut self, from: PublicKey) {
        let held: Vec<ChunkIndex> =
            self.sources.get(&from).into_iter().flat_map(|source| source.held.iter()).collect();
        held.into_iter().for_each(|chunk| self.forget(from, chunk));
        if let Some(source) = self.sources.get_mut(&from) {
            source.refused.clear();
            source.refuses = None;
        }
    }

    pub(super) fn ask_again(&mut self, now: Duration) {
        let mut again = Vec::new();
        for (from, source) in self.sources.iter_mut().filter(|(from, _)| **from != self.seed) {
            while source.refused.front().is_some_and(|(until, _)| now >= *until) {
                again.extend(source.refused.pop_front().map(|(_, chunk)| (*from, chunk)));
            }
        }
        again.into_iter().for_each(|(from, chunk)| self.have(from, &[chunk]));
    }

    /// Takes it that `from` does not hold `chunk`, until it announces it again.
    fn forget(&mut self, from: PublicKey, chunk: ChunkIndex) {
        let counted = !self.quarantined(&from);
        if let Some(source) = self.sources.get_mut(&from)
            && source.held.remove(chunk)
            && counted
        {
            self.copies[chunk.at()] -= 1;
        }
    }

    pub(super) fn give_up_the_silent(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let silent = |source: &Source| !source.asked.is_empty() && now >= source.moved + SILENCE;
        let silent: Vec<PublicKey> =
            self.sources.iter().filter(|(_, source)| silent(source)).map(|(from, _)| *from).collect();
        for from in silent {
            self.gone(from);
            effects.push(Effect::Reset { from });
        }
    }
}
