//! Core: chunks that the server cannot read. Owns which, and when each is looked for again; touches nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use common::chunk::ChunkIndex;

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

impl Lost {
    /// `chunk` cannot be read. True if the log is to hear it: it is news, and not one of very many.
    pub(super) fn add(&mut self, chunk: ChunkIndex, now: Duration) -> bool {
        let Entry::Vacant(place) = self.chunks.entry(chunk) else {
            return false;
        };
        place.insert((now, now));
        self.told += 1;
        self.told <= TOLD_MAX
    }

    /// `chunk` can be read again. False if it was not lost.
    pub(super) fn remove(&mut self, chunk: ChunkIndex) -> bool {
        self.chunks.remove(&chunk).is_some()
    }

    /// The chunks whose next attempt begins now, as many as may be under way at once.
    pub(super) fn due(&mut self, now: Duration) -> Vec<ChunkIndex> {
        let under_way = self.chunks.values().filter(|(_, next)| now < *next).count();
        let due = self.chunks.iter_mut().filter(|(_, (_, next))| now >= *next);
        due.take(AT_ONCE.saturating_sub(under_way))
            .map(|(chunk, (_, next))| {
                *next = now + AGAIN;
                *chunk
            })
            .collect()
    }

    /// Whether one is lost for so long that whoever lacks nothing else need not wait for it.
    pub(super) fn is_waited_for_in_vain(&self, now: Duration) -> bool {
        self.chunks.values().any(|(since, _)| now >= *since + PATIENCE)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// The first of them in the image.
    pub(super) fn first(&self) -> Option<ChunkIndex> {
        self.chunks.keys().next().copied()
    }
}
