//! Which chunks are written, which of them are durable, and their bytes for peers. Shared by the writer, which adds to
//! it, and the swarm, which serves from it; every lock is held for a few instructions or one copy, never over an await.
//!
//! Chunks that would let the disk boot are held back in memory until the seal (see `write`); they are served from
//! there. Owns those sets and bytes; touches `device` for reading.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::Hash;
use common::manifest::{Chunk, Manifest};
use parking_lot::{Mutex, MutexGuard};

use super::bases::Bases;
use super::device::Device;

#[derive(Debug)]
struct State {
    written: ChunkSet,
    durable: ChunkSet,
    back: BTreeMap<ChunkIndex, Arc<Vec<u8>>>,
}

/// A handle of what the disk holds of an image; clones share it.
#[derive(Debug, Clone)]
pub struct Held {
    device: Arc<dyn Device>,
    manifest: Arc<Manifest>,
    state: Arc<Mutex<State>>,
    bases: Option<Arc<Bases>>,
}

impl Held {
    /// A new one for an image of which the chunks of `already` are written and durable.
    #[must_use]
    pub fn new(device: Arc<dyn Device>, manifest: Arc<Manifest>, already: ChunkSet) -> Self {
        let state = State { written: already.clone(), durable: already, back: BTreeMap::new() };
        Self { device, manifest, state: Arc::new(Mutex::new(state)), bases: None }
    }

    /// The same, with what the disk holds of an earlier build.
    #[must_use]
    pub fn with_bases(self, bases: Option<Arc<Bases>>) -> Self {
        Self { bases, ..self }
    }

    /// What the disk holds of an earlier build, for deltas.
    #[must_use]
    pub fn bases(&self) -> Option<&Arc<Bases>> {
        self.bases.as_ref()
    }

    /// The places of these chunks are about to be overwritten.
    pub(super) fn overwriting(&self, chunks: RangeInclusive<u32>) {
        if let Some(bases) = &self.bases {
            bases.overwriting(chunks);
        }
    }

    /// `chunk` has come: it needs its bases no longer.
    pub(super) fn passed(&self, chunk: ChunkIndex) {
        if let Some(bases) = &self.bases {
            bases.passed(chunk);
        }
    }

    /// The raw bytes of `chunk`, if it is written or held back; none for zeros. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn bytes_of(&self, chunk: ChunkIndex) -> io::Result<Option<Vec<u8>>> {
        {
            let state = self.state();
            if let Some(bytes) = state.back.get(&chunk) {
                return Ok(Some(bytes.to_vec()));
            }
            if !state.written.contains(chunk) {
                return Ok(None);
            }
        }
        if self.manifest.stored(chunk).is_none() {
            return Ok(None);
        }
        let mut bytes = vec![0; self.manifest.raw_len(chunk) as usize];
        self.device.read_at(chunk.offset(), &mut bytes)?;
        Ok(Some(bytes))
    }

    /// The stored chunks whose bytes [`Held::bytes_of`] gives.
    #[must_use]
    pub fn readable(&self) -> ChunkSet {
        let state = self.state();
        let mut set = ChunkSet::new(self.manifest.len());
        for chunk in state.written.iter().chain(state.back.keys().copied()) {
            if matches!(self.manifest.get(chunk), Some(Chunk::Stored(_))) {
                set.insert(chunk);
            }
        }
        set
    }

    /// The chunks that survive a power loss. Those held back never do.
    #[must_use]
    pub fn durable(&self) -> ChunkSet {
        self.state().durable.clone()
    }

    /// The chunks that are neither written nor held back.
    #[must_use]
    pub fn missing(&self) -> Vec<ChunkIndex> {
        let state = self.state();
        let there = |chunk| state.written.contains(chunk) || state.back.contains_key(&chunk);
        self.manifest.iter().map(|(index, _)| index).filter(|&index| !there(index)).collect()
    }

    /// Removes the chunks that overlap `bytes` of the disk: they are being overwritten with something else.
    pub fn forget(&self, bytes: &Range<u64>) {
        let mut state = self.state();
        for (chunk, _) in self.manifest.iter() {
            let end = chunk.offset() + u64::from(self.manifest.raw_len(chunk));
            if chunk.offset() < bytes.end && end > bytes.start {
                state.written.remove(chunk);
                state.durable.remove(chunk);
            }
        }
    }

    /// Adds the chunks of `same`, which are on the disk after all, and synced.
    pub fn remember(&self, same: &ChunkSet) {
        let mut state = self.state();
        for chunk in same.iter() {
            state.written.insert(chunk);
            state.durable.insert(chunk);
        }
    }

    /// Removes the chunks of `bad`, which differ on the disk, and all chunks equal to them, which are fetched together.
    pub fn lose(&self, bad: &[ChunkIndex]) {
        let bytes: HashSet<Hash> =
            bad.iter().filter_map(|&chunk| self.manifest.stored(chunk)).map(|stored| stored.raw).collect();
        let mut state = self.state();
        for (chunk, entry) in self.manifest.iter() {
            if bad.contains(&chunk) || matches!(entry, Chunk::Stored(stored) if bytes.contains(&stored.raw)) {
                state.written.remove(chunk);
                state.durable.remove(chunk);
                state.back.remove(&chunk);
            }
        }
    }

    /// Whether `chunk` is written or held back.
    #[must_use]
    pub fn has(&self, chunk: ChunkIndex) -> bool {
        let state = self.state();
        state.written.contains(chunk) || state.back.contains_key(&chunk)
    }

    pub(super) fn wrote(&self, chunk: ChunkIndex) {
        self.state().written.insert(chunk);
    }

    pub(super) fn hold_back(&self, chunk: ChunkIndex, bytes: Arc<Vec<u8>>) {
        self.state().back.insert(chunk, bytes);
    }

    /// The bytes of the chunks that are held back, ascending.
    pub(super) fn back(&self) -> BTreeMap<ChunkIndex, Arc<Vec<u8>>> {
        self.state().back.clone()
    }

    /// Makes every chunk that is written durable. Only the writer calls it, right after a sync.
    pub(super) fn synced(&self) {
        let mut state = self.state();
        let State { written, durable, .. } = &mut *state;
        durable.clone_from(written);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held cannot leave half a change: each is one insert, remove or copy.
        self.state.lock()
    }
}

impl crate::swarm::HeldChunks for Held {
    fn read(&self, chunk: ChunkIndex) -> io::Result<Vec<u8>> {
        self.bytes_of(chunk)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
