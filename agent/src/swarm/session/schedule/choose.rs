//! Core: the choice of the next request. Reads the scheduler's state; changes nothing in it but the random numbers.

use std::time::Duration;

use common::chunk::ChunkIndex;
use common::trust::PublicKey;

use super::{Request, Scheduler, Source};

/// A chunk may be requested a second time when its source was silent for this long...
const ENDGAME_SILENCE: Duration = Duration::from_secs(2);

/// ...or when its request is this many times older than usual here, and at least `ENDGAME_SILENCE` old.
const ENDGAME_SLOWNESS: u32 = 3;

impl Scheduler {
    pub(super) fn leased_request(&self) -> Option<Request> {
        self.sources.get(&self.seed)?;
        let chunk = self.leased.iter().copied().find(|chunk| self.missing.contains(*chunk))?;
        Some(Request { from: self.seed, chunk })
    }

    /// Neighbours that may be sent one more request.
    fn free(&self) -> impl Iterator<Item = (&PublicKey, &Source)> {
        self.sources.iter().filter(|(from, source)| {
            **from != self.seed && source.asked.len() < source.window() && !self.quarantined(from)
        })
    }

    /// Neighbours that are neither spared nor quarantined, and not the server.
    fn willing(&self) -> impl Iterator<Item = &Source> {
        let willing =
            |from: &PublicKey| *from != self.seed && !self.spared.contains(from) && !self.quarantined(from);
        self.sources.iter().filter(move |(from, _)| willing(from)).map(|(_, source)| source)
    }

    /// Whether a neighbour that is not spared holds `chunk`.
    pub(super) fn others_hold(&self, chunk: ChunkIndex) -> bool {
        self.willing().any(|source| source.held.contains(chunk))
    }

    pub(super) fn rarest(&mut self) -> Option<Request> {
        if self.missing.is_empty() {
            return None;
        }
        let (spared, free): (Vec<_>, Vec<_>) = self.free().partition(|(from, _)| self.spared.contains(from));
        if spared.is_empty() && free.is_empty() {
            return None;
        }
        let any = |list: &[(&PublicKey, &Source)], at: usize| {
            list.iter().fold(0, |any, (_, source)| any | source.held.words()[at])
        };
        let missing = self.missing.words();
        let start = self.rng.clone().below(missing.len());
        let mut best: Option<(u16, ChunkIndex)> = None;
        for at in (start..missing.len()).chain(0..start) {
            let mut offered = any(&free, at);
            if !spared.is_empty() {
                let elsewhere = self.willing().fold(0, |held, source| held | source.held.words()[at]);
                offered |= any(&spared, at) & !elsewhere;
            }
            let mut word = missing[at] & offered;
            while word != 0 {
                // Both fit: a word has 64 bits, an image at most 2^24 chunks.
                let index = u32::try_from(at).ok()? * 64 + word.trailing_zeros();
                word &= word - 1;
                let chunk = ChunkIndex(index);
                let copies = self.copies[chunk.at()];
                if best.is_none_or(|(least, _)| copies < least) {
                    best = Some((copies, chunk));
                }
            }
            if best.is_some_and(|(least, _)| least <= 1) {
                break;
            }
        }
        self.rng.next_u64();
        let (_, chunk) = best?;
        let from = self.holder(chunk, None)?;
        Some(Request { from, chunk })
    }

    /// The holder of `chunk` with the fewest open requests, ties at random; never `but`, and a spared one only if no
    /// other holds the chunk.
    fn holder(&mut self, chunk: ChunkIndex, but: Option<PublicKey>) -> Option<PublicKey> {
        let spare = !self.spared.is_empty() && self.others_hold(chunk);
        let fitting = self.free().filter(|(from, source)| {
            source.held.contains(chunk) && but != Some(**from) && !(spare && self.spared.contains(from))
        });
        let ranked: Vec<_> = fitting.map(|(from, source)| (source.asked.len(), *from)).collect();
        let best = ranked.iter().map(|(rank, _)| *rank).min()?;
        let equal: Vec<PublicKey> =
            ranked.into_iter().filter(|(rank, _)| *rank == best).map(|(_, from)| from).collect();
        equal.get(self.rng.below(equal.len())).copied()
    }

    /// A second source for a chunk whose first is slow; called only when no missing chunk can be requested.
    pub(super) fn endgame(&mut self, now: Duration) -> Option<Request> {
        let patience = self.usual.map_or(ENDGAME_SILENCE, |usual| usual * ENDGAME_SLOWNESS);
        let slow: Vec<(ChunkIndex, PublicKey)> = self
            .flights
            .iter()
            .filter_map(|(chunk, list)| {
                let [flight] = list.as_slice() else { return None };
                let moved = self.sources.get(&flight.from).map_or(flight.since, |source| source.moved);
                let late = now >= flight.since + patience.max(ENDGAME_SILENCE);
                let silent = now >= flight.since.max(moved) + ENDGAME_SILENCE;
                (!flight.checking && (late || silent)).then_some((*chunk, flight.from))
            })
            .collect();
        for (chunk, first) in slow {
            if first != self.seed && self.leased.contains(&chunk) && self.sources.contains_key(&self.seed) {
                return Some(Request { from: self.seed, chunk });
            }
            if let Some(from) = self.holder(chunk, Some(first)) {
                return Some(Request { from, chunk });
            }
        }
        None
    }
}
