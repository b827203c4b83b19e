//! Deltas give the chunks of the new build while the old one is overwritten, in any order and with any memory; what
//! cannot be decoded is refused and never wrong.

use std::collections::BTreeMap;

use common::deltas::{Base, Delta, decode, encode};
use common::id::ImageId;
use common::swarm::splitmix::SplitMix64;
use common::wire::swarm::Form;

use super::*;
use crate::disk::clear::cleared;
use crate::disk::held::Held;
use crate::disk::recording::{Random, Recording, manifest_of, verified};
use crate::disk::write::{Pace, Writer};
use crate::swarm::VerifiedChunk;
use crate::swarm::verify::{NotTheChunk, verify};

const MIB: usize = 1 << 20;
const CHUNKS: u32 = 10;

/// Two builds, of which the later has everything 300,001 bytes behind its old place, and some zeros.
struct Builds {
    old: Vec<u8>,
    new: Vec<u8>,
    manifest: Arc<Manifest>,
    table: DeltaTable,
    frames: BTreeMap<ChunkIndex, Vec<u8>>,
}

fn chunk_of(raw: &[u8], at: u32) -> &[u8] {
    &raw[at as usize * MIB..(at as usize + 1) * MIB]
}

fn builds() -> Builds {
    let mut random = SplitMix64::new(4);
    let old: Vec<u8> = (0..CHUNKS as usize * MIB / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    let mut new = [&old[..300_001], &old].concat();
    new.truncate(old.len());
    new[7 * MIB..8 * MIB].fill(0);
    let manifest = Arc::new(manifest_of(&new, 512));
    let bases =
        (0..CHUNKS).map(|at| Base { place: ChunkIndex(at), raw: Hash::of(chunk_of(&old, at)) }).collect();
    let (mut deltas, mut frames) = (BTreeMap::new(), BTreeMap::new());
    for at in (0..CHUNKS).filter(|at| *at != 7) {
        let own: Vec<u32> = (at.saturating_sub(1)..=at).collect();
        let prefix: Vec<u8> = own.iter().flat_map(|base| chunk_of(&old, *base)).copied().collect();
        let frame = encode(chunk_of(&new, at), &prefix, 3).unwrap();
        let wire_len = u32::try_from(frame.len()).unwrap();
        deltas.insert(ChunkIndex(at), Delta { wire: Hash::of(&frame), wire_len, bases: own });
        frames.insert(ChunkIndex(at), frame);
    }
    let set = DeltaSet { from: ImageId(Hash([1; 32])), bases, deltas };
    Builds { old, new, manifest, table: DeltaTable { sets: vec![set] }, frames }
}

impl Builds {
    fn find(&self, disk: &Arc<dyn Device>, held: &ChunkSet, copies_max: u64) -> Option<Bases> {
        let skip = cleared(&self.manifest, disk.size());
        let places = (held, &skip);
        let cancel = CancellationToken::new();
        Bases::find(disk, self.table.clone(), &self.manifest, places, copies_max, 3, &cancel)
    }

    fn none(&self) -> ChunkSet {
        ChunkSet::new(self.manifest.len())
    }

    fn delta(&self, at: u32, bases: &Bases) -> Result<VerifiedChunk, NotTheChunk> {
        self.checked(at, &self.frames[&ChunkIndex(at)], bases)
    }

    fn checked(&self, at: u32, frame: &[u8], bases: &Bases) -> Result<VerifiedChunk, NotTheChunk> {
        let frame = Arc::new(frame.to_vec());
        verify(&self.manifest, ChunkIndex(at), Form::Delta, &frame, Some(bases))
    }
}

/// A disk in memory with twice the room of the image, so that no chunk is held back for its end.
fn disk(raw: &[u8]) -> Arc<Recording> {
    let mut bytes = raw.to_vec();
    bytes.resize(2 * raw.len() + (32 << 20), 0xee);
    Arc::new(Recording::holding(bytes, 512))
}

#[test]
fn what_the_disk_holds_of_an_earlier_build_is_found() {
    let builds = builds();
    let whole: Arc<dyn Device> = disk(&builds.old);
    let found = builds.find(&whole, &builds.none(), 0).unwrap();
    // The first MiB is cleared before anything else, so 0 and 1 lack a base; 7 is zeros.
    let usable = |bases: &Bases| bases.chunks().iter().map(|chunk| chunk.0).collect::<Vec<_>>();
    assert_eq!(usable(&found), [2, 3, 4, 5, 6, 8, 9]);
    let mut held = builds.none();
    held.insert(ChunkIndex(4));
    assert_eq!(usable(&builds.find(&whole, &held, 0).unwrap()), [2, 3, 5, 6, 8, 9]);
    whole.write_at(5 << 20, b"changed").unwrap();
    assert_eq!(usable(&builds.find(&whole, &builds.none(), 0).unwrap()), [2, 3, 4, 8, 9]);
    let foreign: Arc<dyn Device> = disk(&vec![7; builds.old.len()]);
    assert!(builds.find(&foreign, &builds.none(), 0).is_none());
}

/// In whatever order chunks come and are written: with room for copies all are decoded, without it some are refused,
/// and none is wrong.
#[test]
fn chunks_are_decoded_while_their_bases_are_overwritten() {
    let builds = builds();
    for (seed, room) in (0..12).flat_map(|seed| [(seed, u64::MAX), (seed, 3 << 20), (seed, 0)]) {
        let disk: Arc<dyn Device> = disk(&builds.old);
        let bases = builds.find(&disk, &builds.none(), room).unwrap();
        let mut order: Vec<u32> = (2..CHUNKS).filter(|at| *at != 7).collect();
        SplitMix64::new(seed).shuffle(&mut order);
        let mut refused = 0;
        for at in order {
            let usable = bases.usable(ChunkIndex(at)).is_some();
            let decoded = builds.delta(at, &bases);
            assert_eq!(usable, decoded.is_ok(), "{at}: {decoded:?}");
            refused += u32::from(!usable);
            if let Ok(chunk) = decoded {
                assert!(chunk.bytes() == chunk_of(&builds.new, at));
            }
            bases.passed(ChunkIndex(at));
            bases.overwriting(at..=at);
            assert!(bases.state.lock().copied_bytes <= room);
            disk.write_at(u64::from(at) << 20, chunk_of(&builds.new, at)).unwrap();
        }
        assert!(room != u64::MAX || refused == 0, "seed {seed}: {refused} refused");
        assert_eq!(bases.state.lock().copied_bytes, 0, "nothing is kept that nobody needs");
        assert!(bases.chunks().is_empty());
    }
}

#[test]
fn a_base_that_was_changed_costs_its_chunks_their_deltas_and_blames_nobody() {
    let builds = builds();
    let disk: Arc<dyn Device> = disk(&builds.old);
    let bases = builds.find(&disk, &builds.none(), u64::MAX).unwrap();
    disk.write_at((4 << 20) + 99, b"changed").unwrap();
    let refused = builds.delta(4, &bases).unwrap_err();
    assert!(
        matches!(&refused, NotTheChunk::Undecoded(why) if why.contains("changed at MiB 4")),
        "{refused:?}"
    );
    assert!(bases.usable(ChunkIndex(4)).is_none() && bases.usable(ChunkIndex(5)).is_none());
    assert!(bases.usable(ChunkIndex(3)).is_some());
    // Found out only when it is to be copied.
    disk.write_at((8 << 20) + 99, b"changed").unwrap();
    bases.overwriting(8..=8);
    assert!(bases.usable(ChunkIndex(9)).is_none());
}

#[test]
fn a_lying_peers_delta_is_its_own_fault_and_a_bad_table_is_nobodys() {
    let builds = builds();
    let disk: Arc<dyn Device> = disk(&builds.old);
    let bases = builds.find(&disk, &builds.none(), u64::MAX).unwrap();
    let mut flipped = builds.frames[&ChunkIndex(3)].clone();
    flipped[20] ^= 1;
    let verify_at = |at: u32, frame: &[u8]| builds.checked(at, frame, &bases);
    assert!(matches!(verify_at(3, &flipped), Err(NotTheChunk::Hash { .. } | NotTheChunk::Length { .. })));
    assert!(matches!(verify_at(7, &flipped), Err(NotTheChunk::Unknown(7))), "it has no delta");
    assert!(bases.usable(ChunkIndex(3)).is_some(), "the delta itself is as good as before");
    // A delta where none was asked for.
    let frame = Arc::new(builds.frames[&ChunkIndex(3)].clone());
    assert!(verify(&builds.manifest, ChunkIndex(3), Form::Delta, &frame, None).is_err());
    // A frame that gives more than a chunk, or another one, under the hash that the table names.
    for wrong in [zstd::bulk::compress(&vec![0; 64 * MIB], 1).unwrap(), builds.frames[&ChunkIndex(4)].clone()]
    {
        let mut table = builds.table.clone();
        if let Some(delta) = table.sets[0].deltas.get_mut(&ChunkIndex(3)) {
            delta.wire = Hash::of(&wrong);
            delta.wire_len = u32::try_from(wrong.len()).unwrap();
        }
        let bad = Builds { table, ..self::builds() };
        let bases = bad.find(&disk, &bad.none(), 0).unwrap();
        let refused = bad.checked(3, &wrong, &bases);
        assert!(matches!(refused, Err(NotTheChunk::Undecoded(_))), "{refused:?}");
        assert!(bases.usable(ChunkIndex(3)).is_none(), "it is requested whole next");
    }
    assert!(decode(&builds.frames[&ChunkIndex(3)], &[], CHUNK_BYTES).is_err());
}

/// Through the writer as it is, in the order in which each chunk overwrites a base of the next: none is lost, and no copy
/// is kept for longer than it is of use.
#[tokio::test]
async fn the_writer_has_bases_copied_before_it_writes_over_them() {
    let builds = builds();
    let device: Arc<dyn Device> = disk(&builds.old);
    let bases = Arc::new(builds.find(&device, &builds.none(), u64::MAX).unwrap());
    let held = Held::new(Arc::clone(&device), Arc::clone(&builds.manifest), builds.none());
    let held = held.with_bases(Some(Arc::clone(&bases)));
    let (sender, chunks) = tokio::sync::mpsc::channel(1);
    let pace = Pace { backlog: 1, sync_bytes: 2 << 20 };
    let manifest = Arc::clone(&builds.manifest);
    let writer = Writer::start(device, manifest, held.clone(), chunks, pace, CancellationToken::new());
    for at in (2..CHUNKS).filter(|at| *at != 7) {
        let decoded = builds.delta(at, &bases).unwrap_or_else(|error| panic!("{at}: {error}"));
        sender.send(decoded).await.unwrap();
        while held.missing().contains(&ChunkIndex(at)) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    assert!(bases.chunks().is_empty());
    for at in [0, 1] {
        sender.send(verified(&builds.manifest, &builds.new, at)).await.unwrap();
    }
    drop(sender);
    writer.finish().await.unwrap();
    assert_eq!(bases.state.lock().copied_bytes, 0, "nothing is kept that nobody needs");
}

/// The power goes anywhere in the middle of a reinstallation with deltas: what is left of both builds is used, and the
/// disk ends as the new one.
#[tokio::test]
async fn a_reinstallation_goes_on_after_a_power_cut() {
    let builds = builds();
    let mut random = Random::new(11);
    for cut in 0..12 {
        let mut bytes = builds.old.clone();
        bytes.resize(2 * builds.old.len() + (32 << 20), 0xee);
        let first = Arc::new(Recording::cut_after(bytes, 512, cut));
        install(&builds, first.clone(), &builds.none()).await;
        let second = Arc::new(Recording::holding(first.after_cut(&mut random), 512));
        let device: Arc<dyn Device> = second.clone();
        let skip = cleared(&builds.manifest, device.size());
        let held =
            held_already(&*device, &builds.manifest, &skip, 5, &CancellationToken::new(), &|_| {}).same;
        install(&builds, device, &held).await;
        let there = second.bytes();
        assert!(there[MIB..builds.new.len()] == builds.new[MIB..], "cut after {cut} operations");
    }
}

/// Writes what is missing: as deltas where they are usable, else whole.
async fn install(builds: &Builds, device: Arc<dyn Device>, held: &ChunkSet) {
    let bases = builds.find(&device, held, 2 << 20).map(Arc::new);
    let held = Held::new(Arc::clone(&device), Arc::clone(&builds.manifest), held.clone());
    let held = held.with_bases(bases.clone());
    let (sender, chunks) = tokio::sync::mpsc::channel(1);
    let pace = Pace { backlog: 1, sync_bytes: 2 << 20 };
    let manifest = Arc::clone(&builds.manifest);
    let missing = held.missing();
    let writer = Writer::start(device, manifest, held, chunks, pace, CancellationToken::new());
    for chunk in missing.into_iter().rev().filter(|chunk| builds.manifest.stored(*chunk).is_some()) {
        let usable = bases.as_ref().filter(|bases| bases.usable(chunk).is_some());
        let decoded = usable.and_then(|bases| builds.delta(chunk.0, bases).ok());
        let chunk = decoded.unwrap_or_else(|| verified(&builds.manifest, &builds.new, chunk.0));
        // Fails after a power cut, when the receiver is gone.
        let _ = sender.send(chunk).await;
    }
    drop(sender);
    let _ = writer.finish().await;
}
