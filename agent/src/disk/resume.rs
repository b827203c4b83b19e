//! Finds the chunks of an image that a disk holds already: after a power loss, or because the same or a similar image
//! was installed before. Only the bytes themselves count: there is no journal and no bitmap, so a disk that lied about
//! a write, or was changed meanwhile, costs a fetch and never a wrong image. Touches `device` for reading only.

use std::collections::HashSet;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::Hash;
use common::manifest::{Chunk, Manifest};
use common::swarm::splitmix::SplitMix64;
use tokio_util::sync::CancellationToken;

use super::device::Device;
use super::scan::{Scan, scan};

/// The chunks that are tried before all are read. A disk with a twentieth of the image is missed once in 27 times, and
/// then costs that twentieth; a disk with nothing of it costs 64 reads instead of a full scan.
const SAMPLE: usize = 64;

/// The stored chunks to try first: chosen at random over the image by `random`, ascending, none of `skip`.
#[must_use]
pub fn sample(manifest: &Manifest, skip: &ChunkSet, random: u64) -> Vec<ChunkIndex> {
    let stored: Vec<ChunkIndex> = manifest
        .iter()
        .filter(|&(index, chunk)| chunk != Chunk::Zero && !skip.contains(index))
        .map(|(index, _)| index)
        .collect();
    if stored.len() <= SAMPLE {
        return stored;
    }
    let (mut picked, mut places) = (HashSet::new(), SplitMix64::new(random));
    while picked.len() < SAMPLE {
        picked.insert(stored[places.below(stored.len())]);
    }
    let mut picked: Vec<ChunkIndex> = picked.into_iter().collect();
    picked.sort_unstable();
    picked
}

/// The chunks that `device` holds as `manifest` says, without those of `skip`: reads a sample first, and all if any of
/// it matches. `random` chooses the sample. Blocks.
pub fn held_already(
    device: &dyn Device,
    manifest: &Manifest,
    skip: &ChunkSet,
    random: u64,
    cancel: &CancellationToken,
    progress: &(dyn Fn(u64) + Sync),
) -> Scan {
    let tried = scan(device, manifest, &sample(manifest, skip, random), cancel, &|_| {});
    if tried.same.is_empty() || tried.cancelled {
        return tried;
    }
    let rest: Vec<ChunkIndex> =
        manifest.iter().map(|(index, _)| index).filter(|&index| !skip.contains(index)).collect();
    let mut found = scan(device, manifest, &rest, cancel, progress);
    drop_partial(manifest, &mut found.same);
    found
}

/// Removes chunks from `same` if a chunk with equal bytes is missing: equal chunks are fetched once and written to all
/// their places, so they count as held together or not at all.
fn drop_partial(manifest: &Manifest, same: &mut ChunkSet) {
    let stored = || {
        manifest.iter().filter_map(|(index, chunk)| match chunk {
            Chunk::Stored(stored) => Some((index, stored.raw)),
            Chunk::Zero => None,
        })
    };
    let missing: HashSet<Hash> =
        stored().filter(|(index, _)| !same.contains(*index)).map(|(_, raw)| raw).collect();
    for (index, raw) in stored() {
        if missing.contains(&raw) {
            same.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::recording::{Recording, image};

    #[test]
    fn a_foreign_disk_is_sampled_and_not_read_whole() {
        let chunks: Vec<Option<u8>> = (0..200u8).map(Some).collect();
        let (manifest, raw) = image(&chunks, 512);
        let disk = Recording::holding(vec![0xaa; raw.len()], 512);
        let skip = ChunkSet::new(manifest.len());
        let held = held_already(&disk, &manifest, &skip, 1, &CancellationToken::new(), &|_| {});
        assert!(held.same.is_empty());
        assert_eq!(disk.reads(), SAMPLE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn what_is_held_is_found_and_nothing_else(
            states in proptest::collection::vec((any::<Option<u8>>(), any::<bool>()), 1..9),
            random in any::<u64>(),
        ) {
            let kinds: Vec<Option<u8>> = states.iter().map(|state| state.0).collect();
            let (manifest, mut raw) = image(&kinds, 512);
            for (at, (_, kept)) in states.iter().enumerate() {
                if !kept {
                    raw[at << 20] ^= 0x80;
                }
            }
            let disk = Recording::holding(raw, 512);
            let mut skip = ChunkSet::new(manifest.len());
            skip.insert(ChunkIndex(0));
            let held = held_already(&disk, &manifest, &skip, random, &CancellationToken::new(), &|_| {});
            let any_stored = states.iter().skip(1).any(|(kind, kept)| kind.is_some() && *kept);
            // The first chunk is skipped, so neither is one held that is equal to it.
            let whole = |kind: Option<u8>| {
                kind.is_none()
                    || states.iter().enumerate().all(|(at, (other, kept))| *other != kind || (at > 0 && *kept))
            };
            let expected: Vec<u32> = (1u32..)
                .zip(states.iter().skip(1))
                .filter(|(_, (kind, kept))| any_stored && *kept && whole(*kind))
                .map(|(at, _)| at)
                .collect();
            prop_assert_eq!(held.same.iter().map(|chunk| chunk.0).collect::<Vec<_>>(), expected);
        }
    }
}
