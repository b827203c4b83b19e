//! The chunks of an earlier build that a relay keeps, over which it takes a rebuilt image as deltas. Reads them from the
//! chunk store, each checked by its hash: one that is gone meanwhile costs a chunk in its ordinary form.

use agent::swarm::DeltaBases;
use common::chunk::{ChunkIndex, ChunkSet};
use common::deltas::{Delta, DeltaSet, DeltaTable};
use common::id::Hash;
use common::limits::CHUNK_BYTES;
use common::manifest::StoredChunk;
use parking_lot::Mutex;

use super::chunks::ChunkStore;

/// The bases of one image's deltas at a relay.
#[derive(Debug)]
pub(super) struct KeptBases {
    store: ChunkStore,
    set: DeltaSet,
    /// The kept chunk that each base is; none for those that are not here.
    at: Vec<Option<StoredChunk>>,
    /// The chunks that are missing, and whose deltas were not refused.
    open: Mutex<ChunkSet>,
    decoding: Mutex<()>,
}

impl KeptBases {
    /// The bases of `table` that `store` has, of the earlier build of which most chunks can be taken as deltas; `None`
    /// when there are none. Chunks of `held` are no longer missing.
    pub(super) fn find(store: &ChunkStore, table: DeltaTable, held: &ChunkSet) -> Option<Self> {
        let found = table.sets.into_iter().map(|set| {
            let at = store.find(set.bases.iter().map(|base| base.raw));
            let mut open = ChunkSet::new(held.len());
            for chunk in set.deltas.keys().filter(|chunk| !held.contains(**chunk)) {
                open.insert(*chunk);
            }
            Self { store: store.clone(), set, at, open: Mutex::new(open), decoding: Mutex::default() }
        });
        found.filter(|bases| !bases.chunks().is_empty()).max_by_key(|bases| bases.chunks().count())
    }

    fn here(&self, delta: &Delta) -> bool {
        delta.bases.iter().all(|base| self.at.get(*base as usize).is_some_and(Option::is_some))
    }
}

impl DeltaBases for KeptBases {
    fn chunks(&self) -> ChunkSet {
        let open = self.open.lock();
        let mut chunks = ChunkSet::new(open.len());
        for (chunk, delta) in &self.set.deltas {
            if open.contains(*chunk) && self.here(delta) {
                chunks.insert(*chunk);
            }
        }
        chunks
    }

    fn usable(&self, chunk: ChunkIndex) -> Option<Hash> {
        let delta = self.set.deltas.get(&chunk)?;
        (self.open.lock().contains(chunk) && self.here(delta)).then_some(delta.wire)
    }

    fn set(&self) -> &DeltaSet {
        &self.set
    }

    fn base(&self, number: u32) -> Result<Vec<u8>, String> {
        let gone = || "the earlier build is not kept any more".to_owned();
        let stored = self.at.get(number as usize).copied().flatten().ok_or_else(gone)?;
        let raw = self.store.raw(&stored).map_err(|error| format!("{}: {error}", gone()))?;
        // Bases are whole chunks: the last of an image, which is shorter, is none.
        if raw.len() == CHUNK_BYTES as usize { Ok(raw) } else { Err(gone()) }
    }

    fn decoding(&self) -> &Mutex<()> {
        &self.decoding
    }

    fn refuse(&self, chunk: ChunkIndex) {
        self.open.lock().remove(chunk);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use common::deltas::{Base, decode, encode};
    use common::id::ImageId;
    use common::manifest::{Chunk, Encoding, Manifest};
    use common::swarm::splitmix::SplitMix64;
    use common::wire::swarm::Form;

    use super::*;

    fn noise(seed: u64) -> Vec<u8> {
        let mut random = SplitMix64::new(seed);
        let bytes = std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten();
        bytes.take(CHUNK_BYTES as usize).collect()
    }

    #[test]
    fn a_rebuilt_chunk_is_decoded_over_the_earlier_builds_and_one_that_is_gone_costs_no_wrong_byte() {
        let dir = tempfile::tempdir().unwrap();
        let store = ChunkStore::open(dir.path().to_owned(), 64 << 20).unwrap();
        let old = [noise(1), noise(2)];
        let entry = |raw: &Vec<u8>| {
            let (hash, wire_len) = (Hash::of(raw), CHUNK_BYTES);
            Chunk::Stored(StoredChunk { raw: hash, wire: hash, wire_len, encoding: Encoding::Raw })
        };
        let manifest = Manifest::new(2 << 20, 512, old.iter().map(entry).collect()).unwrap();
        store.add(manifest.id(), &manifest.to_bytes()).unwrap();
        // The second of the two never came.
        let first = Arc::new(old[0].clone());
        let chunk = agent::swarm::verify::verify(&manifest, ChunkIndex(0), Form::Raw, &first, None).unwrap();
        store.put(&manifest, chunk).unwrap();

        let mut new = old[0].clone();
        new[7] ^= 1;
        let frame = encode(&new, &old[0], 3).unwrap();
        let delta = |base| Delta {
            wire: Hash::of(&frame),
            wire_len: u32::try_from(frame.len()).unwrap(),
            bases: vec![base],
        };
        let base = |place: u32| Base { place: ChunkIndex(place), raw: Hash::of(&old[place as usize]) };
        let deltas =
            BTreeMap::from([(ChunkIndex(3), delta(0)), (ChunkIndex(4), delta(1)), (ChunkIndex(5), delta(0))]);
        let set = DeltaSet { from: ImageId(Hash([1; 32])), bases: vec![base(0), base(1)], deltas };
        let table = DeltaTable { sets: vec![set] };
        let mut held = ChunkSet::new(9);
        held.insert(ChunkIndex(5));
        let bases = KeptBases::find(&store, table.clone(), &held).unwrap();
        assert_eq!(
            bases.chunks().iter().collect::<Vec<_>>(),
            [ChunkIndex(3)],
            "one base is not here, one chunk is"
        );
        let mut over = |prefix: &[u8]| decode(&frame, prefix, CHUNK_BYTES).map_err(|error| error.to_string());
        assert!(bases.decode(ChunkIndex(3), &mut over).unwrap() == new);
        bases.refuse(ChunkIndex(3));
        assert_eq!(bases.usable(ChunkIndex(3)), None);

        let again = KeptBases::find(&store, table.clone(), &held).unwrap();
        store.remove(manifest.id()).unwrap();
        assert!(again.decode(ChunkIndex(3), &mut over).unwrap_err().contains("not kept any more"));
        assert!(KeptBases::find(&store, table, &held).is_none());
    }
}
