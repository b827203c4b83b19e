//! The property of the whole write path, tried at every write: **a disk that boots is whole**. The power is cut after
//! each operation in turn, writes that were not synced survive in part, and what is then on the disk is either the old
//! system, nothing that boots, or the new system to the last byte. `steps::power` tries the same through the steps.

use std::ops::Range;
use std::sync::Arc;

use common::causes::with_causes;
use common::chunk::{ChunkIndex, ChunkSet};
use common::manifest::Manifest;
use common::table::lay_out;
use tokio_util::sync::CancellationToken;

use super::clear::{clear, cleared};
use super::device::Device;
use super::held::Held;
use super::recording::{BadSector, Random, Recording, manifest_of, verified};
use super::resume::held_already;
use super::seal::Seal;
use super::write::{Pace, Writer, held_back};

pub(crate) const MIB: usize = 1 << 20;

/// Whether firmware may boot `disk`: it has a boot signature, or a GPT at the beginning or at the end.
fn may_boot(disk: &[u8], sector: usize) -> bool {
    disk[510..512] == [0x55, 0xaa]
        || disk[sector..sector + 8] == *b"EFI PART"
        || disk[disk.len() - sector..][..8] == *b"EFI PART"
}

/// An image with a GPT and one partition over most of it, zeros in between, two equal chunks, and a short last chunk.
fn os_image(sector: usize) -> Vec<u8> {
    let mut raw = vec![0; 5 * MIB + 8192];
    for (at, seed) in [(1, 5), (3, 5), (4, 9), (5, 13)] {
        let end = raw.len().min((at + 1) * MIB);
        raw[at * MIB..end].fill(seed);
    }
    let mut disk = std::io::Cursor::new(&mut raw);
    let mut gpt = gptman::GPT::new_from(&mut disk, sector as u64, [7; 16]).unwrap();
    let mib = (MIB / sector) as u64;
    gpt[1] = gptman::GPTPartitionEntry {
        partition_type_guid: [3; 16],
        unique_partition_guid: [4; 16],
        starting_lba: mib,
        ending_lba: 2 * mib - 1,
        attribute_bits: 0,
        partition_name: "root".into(),
    };
    gpt.write_into(&mut disk).unwrap();
    gptman::GPT::write_protective_mbr_into(&mut disk, sector as u64).unwrap();
    raw
}

/// Writes the image to `device` as the agent does; the error of the first operation without power.
async fn deploy(device: Arc<Recording>, manifest: Arc<Manifest>, raw: &[u8]) -> Result<(), String> {
    let disk: Arc<dyn Device> = device;
    let skip = cleared(&manifest, disk.size());
    let cancel = CancellationToken::new();
    let already = held_already(&*disk, &manifest, &skip, 1, &cancel, &|_| {}).same;
    clear(&*disk, manifest.size()).map_err(|error| with_causes(&error))?;
    let held = Held::new(Arc::clone(&disk), Arc::clone(&manifest), already);
    let missing = held.missing();
    let pace = Pace { backlog: 3, sync_bytes: 2 << 20 };
    let (chunks, coming) = tokio::sync::mpsc::channel(3);
    let writer = Writer::start(Arc::clone(&disk), Arc::clone(&manifest), held.clone(), coming, pace, cancel);
    let places = manifest.places();
    // Descending on purpose: the first chunk comes last, and the writer has to sort what waits.
    let mut keys: Vec<ChunkIndex> = places.keys().copied().collect();
    keys.sort_unstable_by(|a, b| b.cmp(a));
    for key in keys {
        let needed = places[&key].iter().any(|place| missing.contains(place));
        if needed && chunks.send(verified(&manifest, raw, key.0)).await.is_err() {
            break;
        }
    }
    // `chunks` is still open, as in the swarm: the writer itself knows when every chunk is written.
    writer.finish().await.map_err(|error| with_causes(&error))?;
    assert!(held.missing().is_empty());

    let mut seal = Seal::of_image(&manifest, &held).map_err(|error| with_causes(&error))?;
    let layout = lay_out(&seal.first, disk.size(), disk.sector_bytes(), [8; 16]).unwrap();
    seal.first = layout.first;
    seal.over.push((layout.partition.start, vec![0xfa; MIB]));
    seal.over.extend(layout.backup);
    seal.write(&*disk, &held).map_err(|error| with_causes(&error))
}

fn run(device: &Arc<Recording>, manifest: &Arc<Manifest>, raw: &[u8]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(deploy(Arc::clone(device), Arc::clone(manifest), raw))
}

/// An old disk that boots: random-looking bytes with a boot signature and a GPT at both ends.
pub(crate) fn old_disk(size: usize, sector: usize) -> Vec<u8> {
    let mut old = vec![0xa5; size];
    old[510..512].copy_from_slice(&[0x55, 0xaa]);
    old[sector..sector + 8].copy_from_slice(b"EFI PART");
    old[size - sector..][..8].copy_from_slice(b"EFI PART");
    old
}

pub(crate) fn whole_old(disk: &[u8], old: &[u8]) -> bool {
    disk[MIB..disk.len() - MIB] == old[MIB..old.len() - MIB]
}

/// Whether all but the partition table (both ends) is as it is at the end of a whole run.
fn whole_new(disk: &[u8], done: &[u8]) -> bool {
    let middle: Range<usize> = MIB..disk.len() - 64 * 1024;
    disk[middle.clone()] == done[middle]
}

fn try_every_cut(size: usize, sector: u32, seed: u64) {
    let mut random = Random::new(seed);
    let raw = os_image(sector as usize);
    let manifest = Arc::new(manifest_of(&raw, sector));
    let old = old_disk(size, sector as usize);
    let whole = Arc::new(Recording::holding(old.clone(), sector));
    run(&whole, &manifest, &raw).unwrap();
    let (done, operations) = (whole.bytes(), whole.operations());
    assert!(may_boot(&done, sector as usize) && operations > 10, "{operations} operations");

    for cut in 0..operations {
        let device = Arc::new(Recording::cut_after(old.clone(), sector, cut));
        assert!(run(&device, &manifest, &raw).is_err());
        let left = device.after_cut(&mut random);
        if may_boot(&left, sector as usize) {
            assert!(
                whole_old(&left, &old) || whole_new(&left, &done),
                "cut after {cut} of {operations} operations leaves a disk that boots and is not whole"
            );
        }
        // The machine powers on again and finishes, whatever the cut left.
        let again = Arc::new(Recording::holding(left, sector));
        run(&again, &manifest, &raw).unwrap();
        assert!(again.bytes() == done, "cut after {cut}, then done again, is another disk");
    }
}

#[test]
fn a_disk_that_boots_is_whole() {
    try_every_cut(9 * MIB, 512, 1);
    try_every_cut(9 * MIB, 4096, 3);
}

/// The image reaches into the last MiB, so that its own backup GPT is at the place where firmware looks.
#[test]
fn a_tight_disk_that_boots_is_whole() {
    try_every_cut(5 * MIB + 8192, 512, 4);
}

/// One sector refuses writes: the sync's error names no place, so the chunks written are read back.
#[test]
fn the_chunk_that_a_disk_does_not_take_is_named() {
    let raw = os_image(512);
    let manifest = Arc::new(manifest_of(&raw, 512));
    let with = |at: usize, told: bool| {
        let disk = Recording::holding(old_disk(9 * MIB, 512), 512).with_bad_sector(BadSector { at, told });
        run(&Arc::new(disk), &manifest, &raw)
    };
    let said = with(3 * MIB + 5000, true).unwrap_err();
    assert!(said.contains("chunk 3 (bytes 3145728 to 4194303) is not there"), "{said}");
    let said = with(2 * MIB, true).unwrap_err();
    assert!(said.contains("chunk 2 (bytes 2097152 to 3145727) is not there"), "zeros: {said}");
    let said = with(5 * MIB + 4096, true).unwrap_err();
    assert!(said.contains("chunk 5 (bytes 5242880 to 5251071) is not there"), "a short one: {said}");
}

/// A disk that gives back other bytes than were written must not boot, whichever of the last writes it lost:
/// the first sectors, the rest of the first MiB, the partition for cloud-init, the backup table.
#[test]
fn a_seal_that_fails_leaves_nothing_that_boots() {
    let raw = os_image(512);
    let manifest = Arc::new(manifest_of(&raw, 512));
    let size = 9 * MIB;
    let good = Arc::new(Recording::holding(old_disk(size, 512), 512));
    run(&good, &manifest, &raw).unwrap();
    let done = good.bytes();
    for told in [false, true] {
        for at in [0, 511, 600, 1024, 4000, size - 512, size - 33 * 512, 5 * MIB + 100_000, 8 * MIB - 100] {
            let mut old = old_disk(size, 512);
            // A sector that holds zeros before, so that clearing seems to work and only the seal's write is lost.
            old[at / 512 * 512..][..512].fill(0);
            let disk = Recording::holding(old, 512).with_bad_sector(BadSector { at, told });
            let disk = Arc::new(disk);
            let ended = run(&disk, &manifest, &raw);
            let left = disk.bytes();
            match ended {
                // Only zeros belong into this sector, so nothing was lost.
                Ok(()) => assert!(left == done && !told, "byte {at}"),
                Err(error) => assert!(!may_boot(&left, 512), "byte {at}, told: {told}: {error}"),
            }
        }
    }
}

#[test]
fn a_second_run_takes_what_is_there() {
    let raw = os_image(512);
    let manifest = Arc::new(manifest_of(&raw, 512));
    let mut there = vec![0; 9 * MIB];
    there[..raw.len()].copy_from_slice(&raw);
    let device = Recording::holding(there, 512);
    clear(&device, manifest.size()).unwrap();
    let back = held_back(&manifest, device.size());
    assert_eq!(back.iter().collect::<Vec<_>>(), [ChunkIndex(0)]);
    let held = held_already(&device, &manifest, &back, 3, &CancellationToken::new(), &|_| {});
    assert_eq!(held.same.count(), manifest.len() - 1);
}

#[test]
fn what_reaches_the_disks_end_is_held_back() {
    // (image bytes, disk bytes, chunks held back)
    let table: [(usize, u64, &[u32]); 5] = [
        (3 * MIB, 8 << 20, &[0]),
        (3 * MIB, 3 << 20, &[0, 2]),
        (3 * MIB + 4096, (3 << 20) + 4096, &[0, 2, 3]),
        (3 * MIB, (3 << 20) + (64 << 10), &[0]),
        (4096, 4096, &[0]),
    ];
    for (image, disk, expected) in table {
        let manifest = manifest_of(&vec![1; image], 512);
        let mut wanted = ChunkSet::new(manifest.len());
        expected.iter().for_each(|&chunk| assert!(wanted.insert(ChunkIndex(chunk))));
        assert_eq!(held_back(&manifest, disk), wanted, "{image} on {disk}");
    }
}
