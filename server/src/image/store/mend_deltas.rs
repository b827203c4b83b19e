//! Checks the frames of an image's deltas, and repairs what is damaged: a frame is made anew where the old image is
//! still there, or else its delta is dropped, which costs nothing but its saving. Touches the blobs.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use common::chunk::ChunkIndex;
use common::deltas::{Delta, DeltaSet, DeltaTable, encode};
use common::id::{Hash, ImageId};

use super::super::import::LEVEL;
use super::super::keys::{chunk_key, table_key};
use super::Images;

impl Images {
    /// Reads every frame of the image's deltas and compares it with its hash; repairs those that are damaged or gone.
    /// Returns what the admin should know. Ends early when the store is stopping.
    pub(in super::super) fn verify_deltas(&self, id: ImageId) -> Vec<String> {
        let Some(stored) = self.stored_table(id) else { return vec![] };
        let (mut remade, mut lost) = (0, BTreeSet::new());
        for set in &stored.table.sets {
            for (chunk, delta) in &set.deltas {
                if self.stopping() {
                    return vec![];
                }
                if self.is_frame_whole(delta.wire) {
                    continue;
                }
                match self.remake_frame(id, set, *chunk, delta) {
                    Some(()) => remade += 1,
                    None => drop(lost.insert(delta.wire)),
                }
            }
        }
        let mut notes = vec![];
        if remade > 0 {
            notes.push(format!("{remade} damaged deltas were made anew"));
        }
        if !lost.is_empty() {
            let all: usize = stored.table.sets.iter().map(|set| set.deltas.len()).sum();
            let done = match self.drop_deltas(id, &lost) {
                Ok(()) => "they are dropped, and their chunks are sent whole".to_owned(),
                Err(why) => format!("they cannot be dropped ({why}), and their chunks are sent whole"),
            };
            // What is left of their frames has no use.
            self.0.sweep.store(true, Ordering::SeqCst);
            self.tidy();
            let lost = lost.len();
            notes.push(format!("{lost} of {all} deltas over earlier images are damaged: {done}"));
        }
        notes
    }

    fn is_frame_whole(&self, wire: Hash) -> bool {
        self.0.blobs.get(&chunk_key(&wire)).ok().flatten().is_some_and(|bytes| Hash::of(&bytes) == wire)
    }

    /// Stores the frame of `delta` again; `None` when the old image or a chunk is gone, or the compressor makes another
    /// frame of them.
    fn remake_frame(&self, id: ImageId, set: &DeltaSet, chunk: ChunkIndex, delta: &Delta) -> Option<()> {
        let raw = self.raw_at(&*self.manifest(id).ok()?, chunk).ok()?;
        let old = self.manifest(set.from).ok()?;
        let mut prefix = Vec::new();
        for base in &delta.bases {
            let base = set.bases.get(*base as usize)?;
            prefix.extend_from_slice(&self.raw_at(&old, base.place).ok()?);
        }
        let frame = encode(&raw, &prefix, LEVEL).ok().filter(|frame| Hash::of(frame) == delta.wire)?;
        // Held like by an add: nothing is deleted meanwhile.
        let _adding = self.0.gate.read();
        let put = self.0.blobs.put(&chunk_key(&delta.wire), &frame);
        put.and_then(|()| self.0.blobs.settle()).ok()
    }

    /// Takes the deltas whose frames are `lost` out of the table. Errors are in words for the admin.
    fn drop_deltas(&self, id: ImageId, lost: &BTreeSet<Hash>) -> Result<(), String> {
        let _adding = self.0.gate.read();
        let _one = self.0.commit.lock();
        // It may have been removed, or have a new table by now.
        let is_here = self.list().iter().any(|image| image.id == id);
        let Some(stored) = self.stored_table(id).filter(|_| is_here) else { return Ok(()) };
        let mut table = DeltaTable::clone(&stored.table);
        for set in &mut table.sets {
            set.deltas.retain(|_, delta| !lost.contains(&delta.wire));
        }
        table.sets.retain(|set| !set.deltas.is_empty());
        if table.sets.is_empty() {
            self.0.tables.lock().remove(&id);
            return self.0.blobs.delete(&table_key(id)).map(drop).map_err(|error| error.to_string());
        }
        self.keep_table(id, &table).map_err(|error| common::causes::with_causes(&error))
    }
}
