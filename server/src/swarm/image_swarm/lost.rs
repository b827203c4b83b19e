//! Core: the chunks that the server cannot read. Owns the list, and when each is tried again; touches nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use common::chunk::ChunkIndex;

/// The interval between two attempts to repair one chunk.
const AGAIN: Duration = Duration::from_secs(5);

/// Attempts under way at once: each may read from a disk that is failing.
const AT_ONCE: usize = 4;

/// How long an agent that lacks only lost chunks waits before it is told to stop: longer than two attempts take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lost chunks of one image that are logged; `image verify` lists all of them.
const TOLD_MAX: u32 = 8;

/// The chunks of one image that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Of each, since when it is lost, and when the next attempt is due.
    chunks: BTreeMap<ChunkIndex, (Duration, Duration)>,
    told: u32,
}

impl Lost {
    /// `chunk` cannot be read. True if that is to be logged: it was not known, and fewer than `TOLD_MAX` were logged.
    pub(super) fn add(&mut self, chunk: ChunkIndex, now: Duration) -> bool {
        let Entry::Vacant(place) = self.chunks.entry(chunk) else {
            return false;
        };
        place.insert((now, now));
        self.told += 1;
        self.told <= TOLD_MAX
    }

    /// `chunk` can be read again. False if it was not listed as lost.
    pub(super) fn remove(&mut self, chunk: ChunkIndex) -> bool {
        self.chunks.remove(&chunk).is_some()
    }

    /// The chunks whose next attempt begins now, at most as many as may be under way at once.
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

    /// Whether a chunk has been lost for so long that agents which lack only lost chunks are told to stop.
    pub(super) fn is_waited_for_in_vain(&self, now: Duration) -> bool {
        self.chunks.values().any(|(since, _)| now >= *since + PATIENCE)
    }

    /// How many chunks are lost.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// The lost chunk that comes first in the image; `None` when none is lost.
    pub(super) fn first(&self) -> Option<ChunkIndex> {
        self.chunks.keys().next().copied()
    }
}
