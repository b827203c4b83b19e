//! The deltas of an image over older images of the store: made after it was added, with a table that agents fetch.
//! Touches the blobs, and threads of its own. The frames lie among the chunks, under their hash; the table under the
//! image's id. Both are there for as long as the image is, also when the old image is removed: machines have it on
//! their disks. Without them nothing is missing but their saving, so no failure here fails an add.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use common::chunk::ChunkIndex;
use common::deltas::{Base, Delta, DeltaSet, DeltaTable, encode};
use common::id::{Hash, ImageId};
use common::limits::{CHUNK_BYTES, DELTA_IMAGE_CHUNKS_MAX, DELTA_SETS_MAX, DELTA_TABLE_BYTES_MAX};
use common::manifest::Manifest;
use parking_lot::Mutex;

use super::super::anchors::{Anchors, Index};
use super::super::error::ImageError;
use super::super::import::LEVEL;
use super::super::info::Update;
use super::super::keys::{chunk_key, table_key};
use super::Images;
use super::table::Stored;

/// The most old images that are looked through for one new one: those that were added last.
const CANDIDATES: usize = 4;

/// Chunks of the new image by which an old one is judged.
const SAMPLE: usize = 64;

/// An old image with less than this part of the sample's anchors, in per cent, is another kind of image.
const SHARED_PERCENT_MIN: usize = 10;

/// A frame that saves less than this part, in per cent, is not worth the reading of its bases.
const SAVED_PERCENT_MIN: usize = 10;

/// An old image that deltas may build on.
struct Old {
    id: ImageId,
    manifest: Arc<Manifest>,
    index: Index,
    shared: usize,
}

impl Images {
    /// The bytes of the image's table of deltas, and their hash, by which a plan names it; `None` when it has none.
    #[must_use]
    pub fn delta_table(&self, id: ImageId) -> Option<(Bytes, Hash)> {
        self.stored_table(id).map(|stored| (stored.bytes.clone(), stored.hash))
    }

    /// The frame `wire` of the delta of `chunk`; `None` when the image has no such delta, or it is damaged.
    #[must_use]
    pub fn delta_frame(&self, id: ImageId, chunk: ChunkIndex, wire: Hash) -> Option<Vec<u8>> {
        let stored = self.stored_table(id)?;
        let known = |set: &DeltaSet| set.deltas.get(&chunk).is_some_and(|delta| delta.wire == wire);
        stored.table.sets.iter().find(|set| known(set))?;
        let read = self.0.blobs.get(&chunk_key(&wire));
        let whole = read.ok().flatten().filter(|bytes| Hash::of(bytes) == wire);
        if whole.is_none() {
            tracing::warn!(image = %id.0.short(), chunk = chunk.0, "a delta is damaged: the chunk is sent whole; `swarmboot image verify` makes it anew or drops it");
        }
        whole
    }

    /// What the image costs a site whose machines hold another image of the store, for those where that is less.
    #[must_use]
    pub fn updates(&self, id: ImageId) -> Vec<Update> {
        let Ok(new) = self.manifest(id) else { return vec![] };
        let table = self.stored_table(id);
        let sets = table.as_ref().map(|stored| stored.table.sets.as_slice()).unwrap_or_default();
        let cost = |old: ImageId| {
            let manifest = self.manifest(old).ok()?;
            let set = sets.iter().find(|set| set.from == old);
            let of = |(first, places): (ChunkIndex, Vec<ChunkIndex>)| {
                let chunk = new.stored(first)?;
                let there = |at: &ChunkIndex| manifest.stored(*at).is_some_and(|old| old.raw == chunk.raw);
                if places.iter().all(there) {
                    return Some(0);
                }
                let delta = set.and_then(|set| set.deltas.get(&first));
                Some(u64::from(delta.map_or(chunk.wire_len, |delta| delta.wire_len)))
            };
            Some(new.places().into_iter().filter_map(of).sum::<u64>())
        };
        let whole = new.wire_bytes();
        let others = self.list().into_iter().filter(|image| image.id != id);
        let costs = others.filter_map(|image| Some(Update { from: image.name, wire_bytes: cost(image.id)? }));
        costs.filter(|update| update.wire_bytes < whole).collect()
    }

    pub(super) fn stored_table(&self, id: ImageId) -> Option<Arc<Stored>> {
        self.read_table(id).ok().flatten()
    }

    fn read_table(&self, id: ImageId) -> io::Result<Option<Arc<Stored>>> {
        if let Some(known) = self.0.tables.lock().get(&id) {
            return Ok(known.clone());
        }
        let stored =
            self.0.blobs.get(&table_key(id))?.and_then(|bytes| match DeltaTable::from_bytes(&bytes) {
                Ok(table) => {
                    Some(Arc::new(Stored { table, hash: Hash::of(&bytes), bytes: Bytes::from(bytes) }))
                }
                Err(error) => {
                    tracing::warn!(image = %id.0.short(), %error, "an image's deltas are not used");
                    None
                }
            });
        self.0.tables.lock().insert(id, stored.clone());
        Ok(stored)
    }

    /// The keys of the blobs that the deltas of `id` are in.
    pub(super) fn delta_keys(&self, id: ImageId) -> io::Result<BTreeSet<String>> {
        let Some(stored) = self.read_table(id)? else { return Ok(BTreeSet::new()) };
        let frames = stored.table.sets.iter().flat_map(|set| set.deltas.values());
        Ok(frames.map(|delta| chunk_key(&delta.wire)).chain([table_key(id)]).collect())
    }

    /// Makes the deltas of an image over those that were added last, unless it has them; to be called while an add
    /// holds the gate. Returns what the admin should know.
    pub(super) fn make_deltas(&self, id: ImageId) -> Option<String> {
        let small = self.manifest(id).is_ok_and(|manifest| manifest.len() <= DELTA_IMAGE_CHUNKS_MAX);
        if !small || self.has_deltas(id) {
            return None;
        }
        match self.table_of(id) {
            Ok(table) if table.sets.is_empty() || self.stopping() => None,
            Ok(table) => self.keep_table(id, &table).err().map(|error| not_made(&error)),
            Err(error) => Some(not_made(&error)),
        }
    }

    fn has_deltas(&self, id: ImageId) -> bool {
        let keys = self.delta_keys(id).unwrap_or_default();
        let whole = |key: &String| {
            let name = key.rsplit('/').next().and_then(|name| name.parse::<Hash>().ok());
            let bytes = self.0.blobs.get(key).ok().flatten();
            *key == table_key(id) || bytes.is_some_and(|bytes| Some(Hash::of(&bytes)) == name)
        };
        !keys.is_empty() && keys.iter().all(whole)
    }

    pub(super) fn keep_table(&self, id: ImageId, table: &DeltaTable) -> Result<(), ImageError> {
        let bytes = table.to_bytes();
        if bytes.len() as u64 > DELTA_TABLE_BYTES_MAX {
            return Ok(());
        }
        let put = self.0.blobs.settle().and_then(|()| self.0.blobs.put(&table_key(id), &bytes));
        let kept = put.and_then(|()| self.0.blobs.settle());
        kept.map_err(|source| self.0.blobs.not_written("the image's deltas", source))?;
        self.0.tables.lock().remove(&id);
        Ok(())
    }

    /// Makes the frames, and returns the table of them.
    fn table_of(&self, id: ImageId) -> Result<DeltaTable, ImageError> {
        let new = self.manifest(id)?;
        let mut firsts: Vec<ChunkIndex> = new.places().into_keys().collect();
        firsts.sort_unstable();
        let mut others = self.list();
        others.sort_by_key(|image| std::cmp::Reverse(image.added_at_ms));
        let mut seen = BTreeSet::from([id]);
        others.retain(|image| seen.insert(image.id));
        let mut best: Vec<Old> = Vec::new();
        let size = others.iter().take(CANDIDATES).map(|image| image.stored_chunks as usize);
        let anchors = Anchors::new(size.max().unwrap_or(0).max(firsts.len()));
        let step = firsts.len().div_ceil(SAMPLE).max(1);
        let sample: Vec<ChunkIndex> = firsts.iter().copied().step_by(step).collect();
        let own = self.anchors_of(&anchors, &new, &sample)?;
        let all = own.iter().map(|(_, own)| own.len()).sum::<usize>();
        for image in others.iter().take(CANDIDATES) {
            let Ok(manifest) = self.manifest(image.id) else { continue };
            // Chunks that are shorter than others are no bases.
            let whole = |at: &ChunkIndex| manifest.raw_len(*at) == CHUNK_BYTES;
            let places: Vec<ChunkIndex> = manifest.places().into_keys().filter(whole).collect();
            let found = self.anchors_of(&anchors, &manifest, &places)?;
            let entries = found.into_iter().flat_map(|(at, own)| own.into_iter().map(move |it| (it, at.0)));
            let index = Index::new(entries.collect());
            let shared = own.iter().map(|(_, own)| index.shared(own)).sum::<usize>();
            if shared * 100 >= all * SHARED_PERCENT_MIN && shared > 0 {
                best.push(Old { id: image.id, manifest, index, shared });
                best.sort_by_key(|old| std::cmp::Reverse(old.shared));
                best.truncate(DELTA_SETS_MAX);
            }
        }
        let sets = best.iter().map(|old| self.set_over(old, &anchors, &new, &firsts));
        let sets = sets.collect::<Result<Vec<_>, _>>()?;
        Ok(DeltaTable { sets: sets.into_iter().filter(|set| !set.deltas.is_empty()).collect() })
    }

    /// The anchors of some chunks. One that cannot be read is left out: `image verify` reports it.
    fn anchors_of(
        &self,
        anchors: &Anchors,
        manifest: &Manifest,
        chunks: &[ChunkIndex],
    ) -> Result<Vec<(ChunkIndex, BTreeSet<u64>)>, ImageError> {
        self.on_all_cores(chunks, |at| Ok(self.raw_at(manifest, at).ok().map(|raw| (at, anchors.of(&raw)))))
    }

    fn set_over(
        &self,
        old: &Old,
        anchors: &Anchors,
        new: &Manifest,
        firsts: &[ChunkIndex],
    ) -> Result<DeltaSet, ImageError> {
        let raw_of = |manifest: &Manifest, at| manifest.stored(at).map(|chunk| chunk.raw);
        let made = self.on_all_cores(firsts, |at| {
            let Some(chunk) = new.stored(at) else { return Ok(None) };
            // It is on the old image's disks, at its place.
            if raw_of(&old.manifest, at) == Some(chunk.raw) {
                return Ok(None);
            }
            let raw = self.raw_at(new, at)?;
            let bases = old.index.bases(at, &anchors.of(&raw));
            let mut prefix = Vec::new();
            // The best base last: what is near in the prefix is cheaper to name.
            for base in bases.iter().rev() {
                let Ok(old) = self.raw_at(&old.manifest, *base) else { return Ok(None) };
                prefix.extend_from_slice(&old);
            }
            let frame = encode(&raw, &prefix, LEVEL).ok().filter(|_| !bases.is_empty());
            let most = chunk.wire_len as usize * (100 - SAVED_PERCENT_MIN) / 100;
            let Some(frame) = frame.filter(|frame| frame.len() <= most) else { return Ok(None) };
            let wire = Hash::of(&frame);
            let put = self.0.blobs.put(&chunk_key(&wire), &frame);
            put.map_err(|source| self.0.blobs.not_written("a delta", source))?;
            let wire_len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            Ok(Some((at, wire, wire_len, bases.into_iter().rev().collect::<Vec<_>>())))
        })?;
        let (mut bases, mut numbers): (Vec<Base>, HashMap<ChunkIndex, u32>) = Default::default();
        let mut deltas = BTreeMap::new();
        for (at, wire, wire_len, own) in made {
            let number = |place: &ChunkIndex| {
                let raw = raw_of(&old.manifest, *place)?;
                Some(*numbers.entry(*place).or_insert_with(|| {
                    bases.push(Base { place: *place, raw });
                    u32::try_from(bases.len() - 1).unwrap_or(u32::MAX)
                }))
            };
            let own: Vec<u32> = own.iter().filter_map(number).collect();
            deltas.insert(at, Delta { wire, wire_len, bases: own });
        }
        Ok(DeltaSet { from: old.id, bases, deltas })
    }

    /// Calls `each` for `chunks` on all cores, and returns what it gives, by chunk. Ends early when the store is
    /// stopping.
    fn on_all_cores<T: Send>(
        &self,
        chunks: &[ChunkIndex],
        each: impl Fn(ChunkIndex) -> Result<Option<T>, ImageError> + Sync,
    ) -> Result<Vec<T>, ImageError> {
        let next = AtomicUsize::new(0);
        let made: Mutex<Vec<(ChunkIndex, T)>> = Mutex::default();
        let failed = Mutex::new(None);
        let work = || {
            while let Some(&at) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stopping() || failed.lock().is_some() {
                    return;
                }
                match each(at) {
                    Ok(one) => made.lock().extend(one.map(|one| (at, one))),
                    Err(error) => *failed.lock() = Some(error),
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            (1..cores).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        let mut made = made.into_inner();
        made.sort_by_key(|(at, _)| *at);
        Ok(made.into_iter().map(|(_, one)| one).collect())
    }
}

fn not_made(error: &ImageError) -> String {
    let why = common::causes::with_causes(error);
    format!("sites that hold an earlier build will be sent it whole: no deltas could be made: {why}")
}
