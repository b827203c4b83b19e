//! The first writes of a job: they clear what would boot, and then what the old system left where the image does not
//! reach. Touches `device`.
//!
//! What would boot is the first MiB, and the last one, from which firmware would repair a GPT; both are synced and read
//! back before anything else is written. What the old system left would show itself later, as a partition is made or
//! grows over it: a file system's or LVM's signature right behind the image, RAID metadata and ZFS labels near the
//! disk's end, and an earlier order's partition for cloud-init with its user-data and keys. Every byte of the image
//! itself is written, so nothing is left there.

use std::io;
use std::ops::Range;

use common::chunk::{ChunkSet, is_zero};
use common::limits::CHUNK_BYTES;
use common::manifest::Manifest;
use common::table::{self, FIRST_BYTES};

use super::device::Device;
use super::write::held_back;

/// Bytes cleared at either end of the disk, the image's or not: boot code, both kinds of partition table, and the
/// backup GPT.
const EDGE_BYTES: u64 = 1 << 20;

/// Bytes cleared at the disk's end where the image does not reach. Our own partition for cloud-init is there and ends
/// 2 MiB before the end at the lowest; Promise's RAID keeps a copy 3,087 sectors before it (libblkid's promise_raid.c),
/// all others less; the last partition, grown up to ours, ends before it, and md 0.90 and ZFS look for themselves in
/// its last 768 KiB.
const END_BYTES: u64 = 8 << 20;

/// Bytes cleared right behind the image, where the next partition begins: of all signatures ZFS's first two labels are
/// the farthest from a partition's start.
const BEHIND_BYTES: u64 = 1 << 20;

/// The largest partition for cloud-init of an earlier order, in bytes.
const PERSONAL_BYTES_MAX: u64 = 4 << 20;

/// The most partitions of the old disk that are read.
const PARTITIONS_MAX: usize = 128;

/// Why a disk could not be cleared.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// The disk refuses the zeros, or cannot be read back.
    #[error("cannot clear the disk's old partition table")]
    Clear(#[source] io::Error),
    /// Reading back gives other bytes than the zeros that were written.
    #[error("the disk still shows its old partition table after it was cleared: it drops writes")]
    NotCleared,
}

/// Writes zeros over the beginning and the end of the disk, reads both back, and clears what is left behind an image of
/// `image_bytes`. Has to be the first write. Blocks.
///
/// # Errors
/// When the disk refuses, or gives back other bytes afterwards.
pub fn clear(device: &dyn Device, image_bytes: u64) -> Result<(), ClearError> {
    // Found by the old table, which is cleared first: after a power cut in between, only fixed places are cleared.
    let personal = personal_data(device, image_bytes);
    let edge = EDGE_BYTES.min(device.size());
    let ends = [0, device.size() - edge];
    for offset in ends {
        device.zero_at(offset, edge).map_err(ClearError::Clear)?;
    }
    device.sync().map_err(ClearError::Clear)?;
    device.drop_cache().map_err(ClearError::Clear)?;
    let mut bytes = vec![0xff; usize::try_from(edge).unwrap_or(CHUNK_BYTES as usize)];
    for offset in ends {
        device.read_at(offset, &mut bytes).map_err(ClearError::Clear)?;
        if !is_zero(&bytes) {
            return Err(ClearError::NotCleared);
        }
    }
    for range in left_behind(device.size(), device.sector_bytes(), image_bytes).into_iter().chain(personal) {
        device.zero_at(range.start, range.end - range.start).map_err(ClearError::Clear)?;
    }
    device.sync().map_err(ClearError::Clear)
}

/// The chunks that [`clear`] overwrites, on a disk of `disk_bytes`: never counted as held before it.
#[must_use]
pub fn cleared(manifest: &Manifest, disk_bytes: u64) -> ChunkSet {
    let mut set = held_back(manifest, disk_bytes);
    let edge = disk_bytes.saturating_sub(EDGE_BYTES);
    for (chunk, _) in manifest.iter() {
        if chunk.offset() + u64::from(manifest.raw_len(chunk)) > edge {
            set.insert(chunk);
        }
    }
    set
}

/// The ranges cleared behind an image of `image_bytes`, besides the disk's edges: never a byte of the image.
fn left_behind(disk_bytes: u64, sector_bytes: u32, image_bytes: u64) -> Vec<Range<u64>> {
    let sector = u64::from(sector_bytes.max(1));
    let image_end = image_bytes.next_multiple_of(sector);
    let end = disk_bytes.saturating_sub(EDGE_BYTES) / sector * sector;
    // The last sectors that an MBR can address, where our partition is on a larger disk.
    let reach = u64::from(u32::MAX) * sector;
    let before = |end: u64, bytes: u64| (end.saturating_sub(bytes) / sector * sector)..end;
    [
        image_end..image_end.saturating_add(BEHIND_BYTES),
        before(reach, END_BYTES),
        before(end, END_BYTES - EDGE_BYTES),
    ]
    .into_iter()
    .map(|range| range.start.max(image_end)..range.end.min(end))
    .filter(|range| !range.is_empty())
    .collect()
}

/// The partitions for cloud-init of the old partition table, as far as they are behind the image.
fn personal_data(device: &dyn Device, image_bytes: u64) -> Vec<Range<u64>> {
    let sector = u64::from(device.sector_bytes());
    let mut first = vec![0; FIRST_BYTES.min(usize::try_from(device.size()).unwrap_or(FIRST_BYTES))];
    // A disk that cannot be read here fails when it is cleared.
    let read = device.read_at(0, &mut first).is_ok();
    let Ok(table) = table::read(&first, device.sector_bytes()) else { return vec![] };
    let partitions = table.partitions().iter().take(if read { PARTITIONS_MAX } else { 0 });
    let ranges = partitions.filter_map(|partition| {
        let range = partition.start.checked_mul(sector)?..partition.end.checked_mul(sector)?;
        (range.end <= device.size() && range.end > image_bytes).then_some(range)
    });
    ranges
        .filter(|range| range.start < range.end && range.end - range.start <= PERSONAL_BYTES_MAX)
        .filter(|range| is_personal(device, range.start))
        .map(|range| range.start.max(image_bytes.next_multiple_of(sector))..range.end)
        .filter(|range| !range.is_empty())
        .collect()
}

/// Whether a FAT with cloud-init's label begins at `offset`. A FAT16 has its label at byte 43, a FAT32 at 71.
fn is_personal(device: &dyn Device, offset: u64) -> bool {
    let mut start = [0; 4096];
    if device.read_at(offset, &mut start).is_err() || start[510..512] != [0x55, 0xaa] {
        return false;
    }
    [43, 71].iter().any(|&at| start[at..at + 6].eq_ignore_ascii_case(b"CIDATA"))
}

#[cfg(test)]
mod tests {
    use super::super::recording::{Recording, manifest_of};
    use super::*;

    const MIB: usize = 1 << 20;

    /// A disk of `mib` MiB of 0xa5, with these bytes at these places.
    fn disk(mib: usize, marks: &[(usize, &[u8])]) -> Vec<u8> {
        let mut disk = vec![0xa5; mib * MIB];
        for (at, mark) in marks {
            disk[*at..at + mark.len()].copy_from_slice(mark);
        }
        disk
    }

    #[test]
    fn what_the_old_disk_leaves_behind_is_cleared() {
        let size = 64 * MIB;
        // (what it is, byte at which it begins, its bytes)
        let table: [(&str, usize, &[u8]); 9] = [
            ("old MBR", 510, &[0x55, 0xaa]),
            ("backup GPT", size - 512, b"EFI PART"),
            ("LVM right behind the image", 8 * MIB + 512, b"LABELONE"),
            ("ext4 right behind the image", 8 * MIB + 0x438, &[0x53, 0xef]),
            ("ZFS label 1 right behind the image", 8 * MIB + (256 << 10) + (128 << 10), b"\x0c\xb1\xba"),
            ("md 0.90 at the disk's end", size - (64 << 10), b"\xfc\x4e\x2b\xa9"),
            ("Intel RAID at the disk's end", size - 1024, b"Intel Raid ISM Cfg Sig. "),
            ("Promise RAID at the disk's end", size - 3087 * 512, b"Promise Technology, Inc."),
            (
                "ZFS label 3 of a partition that ended where ours begins",
                size - 6 * MIB - (256 << 10),
                b"\x0c\xb1\xba",
            ),
        ];
        for (what, at, mark) in table {
            let device = Recording::holding(disk(64, &[(at, mark)]), 512);
            clear(&device, 8 << 20).unwrap();
            assert!(is_zero(&device.bytes()[at..at + mark.len()]), "{what} is left");
        }
    }

    #[test]
    fn what_is_the_images_or_lies_between_is_not_touched() {
        // (image MiB, disk MiB, what becomes zeros, in MiB)
        let table: [(usize, usize, &[Range<usize>]); 4] = [
            (8, 64, &[0..1, 8..9, 56..64]),
            (60, 64, &[0..1, 60..64]),
            (64, 64, &[0..1, 63..64]),
            (1, 2, &[0..1, 1..2]),
        ];
        for (image, mib, zeros) in table {
            let device = Recording::holding(disk(mib, &[]), 512);
            clear(&device, (image * MIB) as u64).unwrap();
            let bytes = device.bytes();
            for at in 0..mib {
                let wanted = zeros.iter().any(|range| range.contains(&at));
                assert_eq!(
                    is_zero(&bytes[at * MIB..(at + 1) * MIB]),
                    wanted,
                    "MiB {at}, image of {image} on {mib}"
                );
            }
            let manifest = manifest_of(&vec![7; image * MIB], 512);
            let kept = cleared(&manifest, (mib * MIB) as u64);
            for chunk in 0..image {
                let gone = zeros.iter().any(|range| range.contains(&chunk));
                let index = common::chunk::ChunkIndex(u32::try_from(chunk).unwrap());
                assert!(!gone || kept.contains(index), "chunk {chunk} counts as held and is cleared");
            }
        }
    }

    /// The old order's partition lay in a gap, somewhere that the new image does not reach.
    #[test]
    fn an_earlier_orders_personal_data_is_cleared() {
        let start = 30 * MIB;
        let entry =
            [&[0, 0, 0, 0, 0x0e, 0, 0, 0][..], &(60 * 1024u32).to_le_bytes(), &(8192u32).to_le_bytes()]
                .concat();
        let label = |at: usize| (start + at, &b"CIDATA     "[..]);
        for (at, wanted) in [(43, true), (71, true), (100, false)] {
            let marks = [
                (446, &entry[..]),
                (462, &[0; 48]),
                (510, &[0x55, 0xaa]),
                (start + 510, &[0x55, 0xaa]),
                label(at),
            ];
            let device = Recording::holding(disk(64, &marks), 512);
            clear(&device, 8 << 20).unwrap();
            let bytes = device.bytes();
            assert_eq!(is_zero(&bytes[start..start + 4 * MIB]), wanted, "label at {at}");
            assert!(bytes[start + 4 * MIB] == 0xa5 && bytes[start - 1] == 0xa5, "its neighbours stay");
        }
    }

    /// The same in a GPT, in which the agent makes its own partition; other small partitions keep their contents.
    #[test]
    fn an_earlier_orders_personal_data_is_cleared_from_a_gpt() {
        let mut bytes = vec![0xa5; 64 * MIB];
        let mut cursor = std::io::Cursor::new(&mut bytes);
        let mut gpt = gptman::GPT::new_from(&mut cursor, 512, [7; 16]).unwrap();
        for (number, start) in [(1_u8, 30 * 2048), (2, 40 * 2048)] {
            gpt[number.into()] = gptman::GPTPartitionEntry {
                partition_type_guid: [3; 16],
                unique_partition_guid: [number; 16],
                starting_lba: start,
                ending_lba: start + 4 * 2048 - 1,
                attribute_bits: 0,
                partition_name: "cidata".into(),
            };
        }
        gpt.write_into(&mut cursor).unwrap();
        gptman::GPT::write_protective_mbr_into(&mut cursor, 512).unwrap();
        let (personal, other) = (30 * MIB, 40 * MIB);
        bytes[personal + 43..personal + 54].copy_from_slice(b"CIDATA     ");
        bytes[other + 43..other + 54].copy_from_slice(b"DATA       ");
        for start in [personal, other] {
            bytes[start + 510..start + 512].copy_from_slice(&[0x55, 0xaa]);
        }
        let device = Recording::holding(bytes, 512);
        clear(&device, 8 << 20).unwrap();
        let bytes = device.bytes();
        assert!(is_zero(&bytes[personal..personal + 4 * MIB]));
        assert!(bytes[personal + 4 * MIB] == 0xa5 && bytes[personal - 1] == 0xa5, "its neighbours stay");
        assert_eq!(&bytes[other + 43..other + 47], b"DATA");
    }

    #[test]
    fn a_disk_larger_than_an_mbr_can_name_is_cleared_at_that_end_too() {
        let reach = u64::from(u32::MAX) * 512;
        let ranges = left_behind(4 << 40, 512, 1 << 30);
        assert!(
            ranges.iter().any(|range| range.start < reach - (5 << 20) && range.end >= reach - 1),
            "{ranges:?}"
        );
        assert_eq!(left_behind(8 << 20, 4096, 8 << 20), vec![]);
    }
}
