//! Core: the scheduler: which chunk to request next, and from whom. Owns what the neighbours are known to hold and the
//! state of every chunk; touches `common`. Time (since the session began) and a random seed are arguments.
//!
//! Every chunk that has to be fetched is in exactly one of *missing*, *in flight* and *verified*.
//!
//! The order: leased chunks first, because no other agent here may take them from the server; then rarest first among
//! those that neighbours hold, ties at random (fetching in order of place took three times as long in a model). Only
//! leased chunks are requested from the server. Near the end, when no missing chunk can be requested, one whose source
//! is slow is requested once more elsewhere: BitTorrent clients without such an endgame hang at 99.9 %. A neighbour
//! that sent two wrong chunks is quarantined; one that sends nothing for too long is disconnected.

// The choice of the next request, and neighbours that are asked less or no more.
mod choose;
mod faults;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::swarm::splitmix::SplitMix64;
use common::trust::PublicKey;

/// The least and the most open requests at one neighbour: enough to keep a gigabit link busy over a LAN's round trip,
/// few enough that a slow neighbour does not hold up many chunks.
const PER_PEER: std::ops::RangeInclusive<usize> = 2..=4;

/// Between those bounds, as many chunks are requested of a neighbour as it sends in this time.
const AHEAD: Duration = Duration::from_millis(200);

/// An event for the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A pull stream to a neighbour (or to the server) is open.
    Up {
        from: PublicKey,
        /// What it holds; ignored for the server, of which only leased chunks are requested.
        held: ChunkSet,
    },
    /// A neighbour holds more chunks.
    Have {
        from: PublicKey,
        /// The chunks that are new.
        chunks: Vec<ChunkIndex>,
    },
    /// The stream of `from` has ended.
    Gone { from: PublicKey },
    /// The server lets this agent, and no other of its site, take these chunks from it.
    Leased(Vec<ChunkIndex>),
    /// The leases of these chunks are over.
    Revoked(Vec<ChunkIndex>),
    /// Bytes came, or the message that it is alive.
    Moved { from: PublicKey },
    /// A chunk for which [`Scheduler::arrived`] gave true has passed its check.
    Verified { chunk: ChunkIndex },
    /// A chunk for which [`Scheduler::arrived`] gave true has failed its check.
    Corrupt { from: PublicKey, chunk: ChunkIndex },
    /// A chunk for which [`Scheduler::arrived`] gave true is missing again, by nobody's fault.
    Undecoded { from: PublicKey, chunk: ChunkIndex },
    /// `from` will not send this chunk.
    Unavailable { from: PublicKey, chunk: ChunkIndex },
    /// These chunks are on the disk.
    Found(Vec<ChunkIndex>),
    /// These neighbours, and no others, send slowly: only chunks that nobody else holds are requested from them.
    Spare(BTreeSet<PublicKey>),
    /// Time has passed; sent at every tick of the session.
    Tick,
}

/// An effect that the session is to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell `from` that `chunk` is not wanted any more.
    Cancel { from: PublicKey, chunk: ChunkIndex },
    /// Close the stream to `from` and dial it again: it sent nothing for too long.
    Reset { from: PublicKey },
    /// Tell the log that `from` does not send what it says it holds. From now on only chunks that it announces anew are
    /// requested from it.
    Hollow { from: PublicKey },
    /// Tell the log that `from` sent two wrong chunks and that nothing more is requested from it.
    Quarantined { from: PublicKey },
}

/// A request to send: ask `from` for `chunk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) from: PublicKey,
    pub(super) chunk: ChunkIndex,
}

#[derive(Debug)]
struct Source {
    held: ChunkSet,
    /// Requested, and not here yet.
    asked: BTreeSet<ChunkIndex>,
    /// Announced, but refused when requested, each with the time from which it may be requested again.
    refused: VecDeque<(Duration, ChunkIndex)>,
    /// Since when it has only refused, and how often.
    refuses: Option<(Duration, u32)>,
    moved: Duration,
    arrived: Duration,
    /// The smoothed time that a chunk takes from here; none before the first.
    pace: Option<Duration>,
}

impl Source {
    fn window(&self) -> usize {
        let ahead = self.pace.map_or(0, |pace| AHEAD.as_micros() / pace.as_micros().max(1));
        usize::try_from(ahead).unwrap_or(usize::MAX).clamp(*PER_PEER.start(), *PER_PEER.end())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flight {
    from: PublicKey,
    since: Duration,
    /// The chunk is here and being checked.
    checking: bool,
}

/// The state of every chunk, missing, in flight or verified, and which neighbour holds which.
#[derive(Debug)]
pub(super) struct Scheduler {
    seed: PublicKey,
    parallel: usize,
    wanted: u32,
    missing: ChunkSet,
    /// At most two sources each, in the order in which they were asked.
    flights: BTreeMap<ChunkIndex, Vec<Flight>>,
    in_flight: usize,
    verified: ChunkSet,
    sources: BTreeMap<PublicKey, Source>,
    /// How many neighbours hold each chunk.
    copies: Vec<u16>,
    leased: VecDeque<ChunkIndex>,
    /// How many wrong chunks each neighbour sent, and the last of them; the server is never counted here.
    strikes: BTreeMap<PublicKey, (u8, ChunkIndex)>,
    spared: BTreeSet<PublicKey>,
    usual: Option<Duration>,
    rng: SplitMix64,
}

impl Scheduler {
    /// A scheduler for the chunks of `wanted` (its length is the image's count of chunks), with at most `parallel`
    /// requests at once; only `seed` gives leases. Agents with different `rng_seed` break ties differently.
    #[must_use]
    pub(super) fn new(seed: PublicKey, wanted: &ChunkSet, parallel: usize, rng_seed: u64) -> Self {
        Self {
            seed,
            parallel: parallel.max(1),
            wanted: wanted.count(),
            missing: wanted.clone(),
            flights: BTreeMap::new(),
            in_flight: 0,
            verified: ChunkSet::new(wanted.len()),
            sources: BTreeMap::new(),
            copies: vec![0; wanted.len() as usize],
            leased: VecDeque::new(),
            strikes: BTreeMap::new(),
            spared: BTreeSet::new(),
            usual: None,
            rng: SplitMix64::new(rng_seed),
        }
    }

    /// Whether every wanted chunk is verified.
    #[must_use]
    pub(super) fn complete(&self) -> bool {
        self.verified.count() == self.wanted
    }

    /// The chunks that are verified, or were found on the disk.
    #[must_use]
    pub(super) fn held(&self) -> &ChunkSet {
        &self.verified
    }

    /// Open requests, counting a chunk requested twice as two, and chunks being checked.
    #[must_use]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes in what happened, and returns what is to be done.
    pub(super) fn handle(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Up { from, held } => self.up(from, held, now),
            Event::Have { from, chunks } => self.have(from, &chunks),
            Event::Gone { from } => self.gone(from),
            Event::Leased(chunks) => self.lease(&chunks),
            Event::Revoked(chunks) => self.leased.retain(|chunk| !chunks.contains(chunk)),
            Event::Moved { from } => {
                if let Some(source) = self.sources.get_mut(&from) {
                    source.moved = now;
                }
            }
            Event::Verified { chunk } => self.have_it(chunk, &mut effects),
            Event::Found(chunks) => chunks.into_iter().for_each(|chunk| self.have_it(chunk, &mut effects)),
            Event::Spare(spared) => {
                self.spared = spared;
                self.take_back(&mut effects);
            }
            Event::Corrupt { from, chunk } => self.corrupt(from, chunk, &mut effects),
            Event::Undecoded { from, chunk } => self.give_back(from, chunk),
            Event::Unavailable { from, chunk } => self.unavailable(from, chunk, now, &mut effects),
            Event::Tick => {
                self.take_back(&mut effects);
                self.ask_again(now);
                self.give_up_the_silent(now, &mut effects);
            }
        }
        debug_assert_eq!(
            self.missing.count() as usize + self.flights.len() + self.verified.count() as usize,
            self.wanted as usize,
            "every chunk is in exactly one state"
        );
        effects
    }

    /// The bytes of `chunk` are here from `from`. True if they are to be checked; the result is then to be told as
    /// [`Event::Verified`] or [`Event::Corrupt`].
    pub(super) fn arrived(&mut self, from: PublicKey, chunk: ChunkIndex, now: Duration) -> bool {
        let Some(source) = self.sources.get_mut(&from) else {
            return false;
        };
        source.moved = now;
        if !source.asked.remove(&chunk) {
            return self.welcome(from, chunk, now);
        }
        let Some(flight) =
            self.flights.get_mut(&chunk).and_then(|list| list.iter_mut().find(|flight| flight.from == from))
        else {
            return false;
        };
        flight.checking = true;
        let took = now.saturating_sub(flight.since);
        let pace = now.saturating_sub(flight.since.max(source.arrived));
        source.arrived = now;
        source.refuses = None;
        source.pace = Some(smooth(source.pace, pace));
        self.usual = Some(smooth(self.usual, took));
        true
    }

    /// The next request to send, if one may be sent now. To be called until it gives none.
    pub(super) fn next_request(&mut self, now: Duration) -> Option<Request> {
        if self.in_flight >= self.parallel {
            return None;
        }
        let request = self.leased_request().or_else(|| self.rarest()).or_else(|| self.endgame(now))?;
        let source = self.sources.get_mut(&request.from)?;
        if source.asked.is_empty() {
            source.moved = now;
        }
        source.asked.insert(request.chunk);
        self.missing.remove(request.chunk);
        let flight = Flight { from: request.from, since: now, checking: false };
        self.flights.entry(request.chunk).or_default().push(flight);
        self.in_flight += 1;
        Some(request)
    }

    fn up(&mut self, from: PublicKey, held: ChunkSet, now: Duration) {
        self.gone(from);
        let fits = held.len() == self.missing.len() && from != self.seed;
        let held = if fits { held } else { ChunkSet::new(self.missing.len()) };
        if !self.quarantined(&from) {
            held.iter().for_each(|chunk| self.copies[chunk.at()] += 1);
        }
        let asked = BTreeSet::new();
        let refused = VecDeque::new();
        let source = Source { held, asked, refused, refuses: None, moved: now, arrived: now, pace: None };
        self.sources.insert(from, source);
    }

    fn have(&mut self, from: PublicKey, chunks: &[ChunkIndex]) {
        let counts = !self.quarantined(&from);
        let Some(source) = self.sources.get_mut(&from).filter(|_| from != self.seed) else {
            return;
        };
        for &chunk in chunks {
            if source.held.insert(chunk) && counts {
                self.copies[chunk.at()] += 1;
            }
        }
    }

    fn gone(&mut self, from: PublicKey) {
        let counted = !self.quarantined(&from);
        let Some(source) = self.sources.remove(&from) else {
            return;
        };
        if counted {
            source.held.iter().for_each(|chunk| self.copies[chunk.at()] -= 1);
        }
        source.asked.into_iter().for_each(|chunk| self.give_back(from, chunk));
    }

    fn lease(&mut self, chunks: &[ChunkIndex]) {
        for &chunk in chunks {
            let open = self.missing.contains(chunk) || self.flights.contains_key(&chunk);
            if open && !self.leased.contains(&chunk) {
                self.leased.push_back(chunk);
            }
        }
    }

    /// Ends the request of `chunk` at `from`; the chunk is missing again unless it has another source.
    fn give_back(&mut self, from: PublicKey, chunk: ChunkIndex) {
        let Some(list) = self.flights.get_mut(&chunk) else {
            return;
        };
        let before = list.len();
        list.retain(|flight| flight.from != from);
        self.in_flight -= before - list.len();
        if list.is_empty() {
            self.flights.remove(&chunk);
            self.missing.insert(chunk);
        }
    }

    fn have_it(&mut self, chunk: ChunkIndex, effects: &mut Vec<Effect>) {
        let flights = self.flights.remove(&chunk).unwrap_or_default();
        self.in_flight -= flights.len();
        let was_open = self.missing.remove(chunk) || !flights.is_empty();
        if was_open {
            self.verified.insert(chunk);
        }
        for from in flights.into_iter().filter(|flight| !flight.checking).map(|flight| flight.from) {
            if self.sources.get_mut(&from).is_some_and(|source| source.asked.remove(&chunk)) {
                effects.push(Effect::Cancel { from, chunk });
            }
        }
        self.leased.retain(|other| *other != chunk);
    }

    /// Whether to check a chunk that came although its request was taken back: it may have been on its way already.
    fn welcome(&mut self, from: PublicKey, chunk: ChunkIndex, now: Duration) -> bool {
        let sources = self.flights.get(&chunk).map_or(0, Vec::len);
        let room = sources < 2 && self.in_flight < self.parallel;
        let open = self.missing.contains(chunk) || sources > 0;
        if !open || !room || !self.spared.contains(&from) || self.quarantined(&from) {
            return false;
        }
        self.missing.remove(chunk);
        self.flights.entry(chunk).or_default().push(Flight { from, since: now, checking: true });
        self.in_flight += 1;
        true
    }

    /// Cancels requests at spared neighbours for chunks that others hold by now. One that is on its way already is
    /// accepted when it comes.
    fn take_back(&mut self, effects: &mut Vec<Effect>) {
        for from in self.spared.clone() {
            let Some(source) = self.sources.get(&from) else { continue };
            let taken: Vec<ChunkIndex> =
                source.asked.iter().copied().filter(|chunk| self.others_hold(*chunk)).collect();
            for chunk in taken {
                if let Some(source) = self.sources.get_mut(&from) {
                    source.asked.remove(&chunk);
                }
                self.give_back(from, chunk);
                effects.push(Effect::Cancel { from, chunk });
            }
        }
    }
}

fn smooth(old: Option<Duration>, new: Duration) -> Duration {
    old.map_or(new, |old| (old * 7 + new) / 8)
}

#[cfg(test)]
mod tests;
