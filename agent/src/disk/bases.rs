//! The chunks of an old image on the target disk, over which deltas of the new one are decoded while that disk is
//! overwritten. Owns which of them are still there, and the copies in memory of those that were overwritten; touches
//! `device` for reading.
//!
//! Every base is checked by its hash whenever it is read: a disk that was changed meanwhile costs a chunk in its
//! ordinary form. Before the writer writes over a base that some missing chunk still needs, it is copied, compressed,
//! within a bound; past that it is given up, and its chunks are fetched whole.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use common::chunk::{ChunkIndex, ChunkSet};
use common::deltas::{DeltaSet, DeltaTable};
use common::id::Hash;
use common::limits::{CHUNK_BYTES, CHUNKS_MAX};
use common::manifest::{Chunk, Encoding, Manifest, StoredChunk};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::device::Device;
use super::resume::held_already;
use crate::swarm::DeltaBases;

/// The level at which copies are compressed: the writer waits for it. 400 MB/s, and a third of the bytes.
const COPY_LEVEL: i32 = 1;

/// What becomes of one base.
#[derive(Debug, Clone)]
enum Place {
    /// On the disk, where the old image has it.
    Disk,
    /// Overwritten, and copied before as a zstd frame.
    Copied(Arc<Vec<u8>>),
    /// Overwritten, changed, or no longer needed.
    Gone,
}

#[derive(Debug)]
struct State {
    places: Vec<Place>,
    /// The chunks that are missing and whose deltas were not refused.
    open: ChunkSet,
    copied_bytes: u64,
}

/// The bases of one image's deltas on one disk.
#[derive(Debug)]
pub struct Bases {
    device: Arc<dyn Device>,
    set: DeltaSet,
    /// The base at each place of the disk.
    at: HashMap<ChunkIndex, usize>,
    /// The chunks that need each base.
    users: Vec<Vec<ChunkIndex>>,
    copies_max: u64,
    state: Mutex<State>,
    decoding: Mutex<()>,
}

impl Bases {
    /// The bases of `table` that `device` holds, of the old image of which most chunks are there; `None` when it holds
    /// none. Chunks of `held` are no longer missing; places of `skip`, of the new image, are about to be cleared. Copies
    /// take `copies_max` bytes at the most. `random` chooses the places that are tried first. Blocks.
    #[must_use]
    pub fn find(
        device: &Arc<dyn Device>,
        table: DeltaTable,
        manifest: &Manifest,
        (held, skip): (&ChunkSet, &ChunkSet),
        copies_max: u64,
        random: u64,
        cancel: &CancellationToken,
    ) -> Option<Self> {
        let found = table.sets.into_iter().filter_map(|set| {
            let there = on_disk(&**device, &set, manifest, skip, random, cancel)?;
            Some(Self::new(Arc::clone(device), set, manifest, held, &there, copies_max))
        });
        found.filter(|bases| !bases.chunks().is_empty()).max_by_key(|bases| bases.chunks().count())
    }

    fn new(
        device: Arc<dyn Device>,
        set: DeltaSet,
        manifest: &Manifest,
        held: &ChunkSet,
        there: &ChunkSet,
        copies_max: u64,
    ) -> Self {
        let place = |at: ChunkIndex| if there.contains(at) { Place::Disk } else { Place::Gone };
        let places = set.bases.iter().map(|base| place(base.place)).collect();
        let mut open = ChunkSet::new(manifest.len());
        let mut users = vec![vec![]; set.bases.len()];
        for (chunk, delta) in &set.deltas {
            if !held.contains(*chunk) && manifest.stored(*chunk).is_some() {
                open.insert(*chunk);
                delta.bases.iter().for_each(|base| users[*base as usize].push(*chunk));
            }
        }
        let at = set.bases.iter().enumerate().map(|(number, base)| (base.place, number)).collect();
        let state = Mutex::new(State { places, open, copied_bytes: 0 });
        Self { device, set, at, users, copies_max, state, decoding: Mutex::default() }
    }

    /// These places of the disk are about to be overwritten: copies what is still needed there. Only the one writer
    /// calls it.
    pub(super) fn overwriting(&self, places: RangeInclusive<u32>) {
        for number in places.filter_map(|place| self.at.get(&ChunkIndex(place)).copied()) {
            let needed = {
                let state = self.state.lock();
                if !matches!(state.places[number], Place::Disk) {
                    continue;
                }
                self.is_needed(&state, number)
            };
            let copy = if needed { self.copy(number) } else { None };
            let mut state = self.state.lock();
            let kept = copy.filter(|copy| state.copied_bytes + copy.len() as u64 <= self.copies_max);
            state.places[number] = match kept {
                Some(copy) => {
                    state.copied_bytes += copy.len() as u64;
                    Place::Copied(Arc::new(copy))
                }
                None => Place::Gone,
            };
        }
    }

    /// `chunk` is here, and needs its bases no longer.
    pub(super) fn passed(&self, chunk: ChunkIndex) {
        let Some(delta) = self.set.deltas.get(&chunk) else { return };
        let mut state = self.state.lock();
        state.open.remove(chunk);
        for number in delta.bases.iter().map(|base| *base as usize) {
            if let Place::Copied(copy) = &state.places[number]
                && !self.is_needed(&state, number)
            {
                state.copied_bytes -= copy.len() as u64;
                state.places[number] = Place::Gone;
            }
        }
    }

    fn is_needed(&self, state: &State, number: usize) -> bool {
        self.users[number].iter().any(|chunk| state.open.contains(*chunk))
    }

    fn copy(&self, number: usize) -> Option<Vec<u8>> {
        let raw = self.read(number)?;
        zstd::bulk::compress(&raw, COPY_LEVEL).ok()
    }

    /// The base's bytes from the disk; `None` when it has others there, or cannot be read.
    fn read(&self, number: usize) -> Option<Vec<u8>> {
        let base = self.set.bases[number];
        let mut raw = vec![0; CHUNK_BYTES as usize];
        self.device.read_at(base.place.offset(), &mut raw).ok()?;
        (Hash::of(&raw) == base.raw).then_some(raw)
    }
}

impl DeltaBases for Bases {
    fn chunks(&self) -> ChunkSet {
        let mut chunks = ChunkSet::new(self.state.lock().open.len());
        let usable = self.set.deltas.keys().filter(|chunk| self.usable(**chunk).is_some());
        usable.for_each(|chunk| {
            chunks.insert(*chunk);
        });
        chunks
    }

    fn usable(&self, chunk: ChunkIndex) -> Option<Hash> {
        let delta = self.set.deltas.get(&chunk)?;
        let state = self.state.lock();
        let there = |base: &u32| !matches!(state.places[*base as usize], Place::Gone);
        (state.open.contains(chunk) && delta.bases.iter().all(there)).then_some(delta.wire)
    }

    fn set(&self) -> &DeltaSet {
        &self.set
    }

    fn base(&self, number: u32) -> Result<Vec<u8>, String> {
        let number = number as usize;
        let place = || self.state.lock().places[number].clone();
        let of_copy = |copy: &[u8]| {
            let raw = zstd::bulk::decompress(copy, CHUNK_BYTES as usize);
            raw.map_err(|error| format!("a copy of the earlier build's chunk is damaged: {error}"))
        };
        match place() {
            Place::Copied(copy) => return of_copy(&copy),
            Place::Gone => return Err("the earlier build on the disk is overwritten".to_owned()),
            Place::Disk => {}
        }
        if let Some(raw) = self.read(number) {
            return Ok(raw);
        }
        // The writer may have overwritten it since; then there is a copy.
        if let Place::Copied(copy) = place() {
            return of_copy(&copy);
        }
        self.state.lock().places[number] = Place::Gone;
        Err(format!("the earlier build on the disk is changed at MiB {}", self.set.bases[number].place.0))
    }

    fn decoding(&self) -> &Mutex<()> {
        &self.decoding
    }

    fn refuse(&self, chunk: ChunkIndex) {
        self.passed(chunk);
    }
}

/// The places at which `device` has the bases of `set`; `None` when a sample finds none of them.
fn on_disk(
    device: &dyn Device,
    set: &DeltaSet,
    manifest: &Manifest,
    skip: &ChunkSet,
    random: u64,
    cancel: &CancellationToken,
) -> Option<ChunkSet> {
    let (end, image_end) = (device.size(), manifest.size());
    // What lies behind the image may be cleared: right behind it, and near the disk's end.
    let stays = |place: ChunkIndex| {
        let behind = place.offset() >= image_end + (2 << 20) && place.offset() + (16 << 20) <= end;
        !skip.contains(place) && (place.offset() + u64::from(CHUNK_BYTES) <= image_end || behind)
    };
    let raws: HashMap<ChunkIndex, Hash> =
        set.bases.iter().filter(|base| stays(base.place)).map(|base| (base.place, base.raw)).collect();
    let last = raws.keys().max()?.0;
    // As a manifest that has only the bases, so that they are looked for as an image's chunks are.
    let entry = |at: u32| match raws.get(&ChunkIndex(at)) {
        Some(&raw) => {
            Chunk::Stored(StoredChunk { raw, wire: raw, wire_len: CHUNK_BYTES, encoding: Encoding::Raw })
        }
        None => Chunk::Zero,
    };
    let len = (last + 1).min(CHUNKS_MAX);
    let bases = Manifest::new(u64::from(len) << 20, 512, (0..len).map(entry).collect()).ok()?;
    let mut others = ChunkSet::new(len);
    let known: HashSet<ChunkIndex> = raws.keys().copied().collect();
    (0..len).map(ChunkIndex).filter(|at| !known.contains(at)).for_each(|at| {
        others.insert(at);
    });
    let found = held_already(device, &bases, &others, random, cancel, &|_| {}).same;
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests;
