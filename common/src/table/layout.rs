//! Core: the changes of an image's partition table for a disk: the backup GPT at the disk's true end, and a place for
//! cloud-init's partition: at the very end, so that the image's last partition can grow up to it; in a gap where the
//! disk is tight. Takes bytes and returns bytes.

use std::ops::Range;

use super::gpt::{Gpt, NewPartition};
use super::mbr::{self, Mbr};
use super::{Partition, Table, TableError, read};

/// The sizes that cloud-init's partition may have, in bytes, best first. The smallest holds the longest user-data.
pub const PARTITION_BYTES: [u64; 2] = [4 << 20, 1 << 20];

/// The most bytes that personalising needs behind an image without gaps: the partition, its alignment and the backup
/// GPT. A disk longer than the image by this can be personalised if any can.
pub const ROOM_BYTES: u64 = 8 << 20;

/// Partitions begin at whole MiB, as every partitioning program has done since disks have 4096-byte sectors.
const ALIGN_BYTES: u64 = 1 << 20;

const SECTOR_BYTES: Range<u32> = 512..64 << 10;

/// Why a disk cannot be personalised with an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The image has no partition table, so there is nothing to add a partition to.
    #[error("the image has no partition table, so hostname, keys and user-data have no place")]
    NoTable,
    /// The image's partition table is damaged, or no kernel would read it.
    #[error("the image's partition table cannot be used: {0}")]
    Unusable(TableError),
    /// A partition begins at sector 0, so that the table itself is a part of it.
    #[error(
        "partition {0} of the image begins at sector 0, over the table that another one would be added to"
    )]
    FromZero(u32),
    /// A partition would overlap the backup table, or end behind the disk's end.
    #[error("partition {number} of the image ends at sector {end}, the disk has room up to sector {last}")]
    TooSmall {
        /// The partition's number, from 1.
        number: u32,
        /// Its last sector.
        end: u64,
        /// The last sector that partitions may use on this disk.
        last: u64,
    },
    /// Every entry of the table is in use.
    #[error("all {0} partition entries of the image are taken; one is needed for cloud-init")]
    NoEntry(u32),
    /// No free place is large enough for the partition.
    #[error("the disk has no {} KiB left for cloud-init's partition", PARTITION_BYTES[1] >> 10)]
    NoRoom,
}

/// What is written to a disk besides the image's own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The first MiB with the changed table.
    pub first: Vec<u8>,
    /// The backup GPT: offset and bytes; none for an MBR.
    pub backup: Option<(u64, Vec<u8>)>,
    /// The range of cloud-init's partition on the disk, in bytes.
    pub partition: Range<u64>,
}

/// The layout of a disk of `disk_bytes` with sectors of `sector_bytes` for the image that begins with `first`. `guid`
/// is the new partition's own GUID.
///
/// # Errors
/// When the image has no partition table or a damaged one, or there is no room.
pub fn lay_out(
    first: &[u8],
    disk_bytes: u64,
    sector_bytes: u32,
    guid: [u8; 16],
) -> Result<Layout, LayoutError> {
    // No disk has other sector sizes; the bound only keeps what follows from dividing by zero.
    let sector = u64::from(sector_bytes.clamp(SECTOR_BYTES.start, SECTOR_BYTES.end));
    match read(first, sector_bytes).map_err(LayoutError::Unusable)? {
        Table::Gpt(gpt) => with_gpt(first, &gpt, disk_bytes, sector, guid),
        Table::Mbr(mbr) => with_mbr(first, &mbr, disk_bytes, sector),
        Table::None => Err(LayoutError::NoTable),
    }
}

fn with_gpt(
    first: &[u8],
    gpt: &Gpt,
    disk_bytes: u64,
    sector: u64,
    guid: [u8; 16],
) -> Result<Layout, LayoutError> {
    let last = (disk_bytes / sector).saturating_sub(1);
    let last_usable = last
        .checked_sub(gpt.entry_sectors() + 1)
        .filter(|&usable| usable > gpt.first_usable())
        .ok_or(LayoutError::NoRoom)?;
    let used = used(gpt.partitions(), last_usable + 1)?;
    let (count, free) = gpt.slots();
    let number = free.ok_or(LayoutError::NoEntry(count))?;
    let place = find_room(&used, gpt.first_usable()..last_usable + 1, sector)?;
    let new = NewPartition { guid, sectors: place.clone(), name: "cidata" };
    let (mut first, backup) = gpt.with(first, number, &new, last);
    mbr::protect(&mut first, last);
    Ok(Layout { first, backup: Some(backup), partition: place.start * sector..place.end * sector })
}

fn with_mbr(first: &[u8], table: &Mbr, disk_bytes: u64, sector: u64) -> Result<Layout, LayoutError> {
    let partitions = table.partitions();
    // An entry of type 0 is no partition: some ISOs have one over themselves.
    let from_zero = |p: &&Partition| p.start == 0 && p.kind != super::Kind::Mbr(0);
    if let Some(over) = partitions.iter().find(from_zero) {
        return Err(LayoutError::FromZero(over.number));
    }
    // An MBR counts sectors in 32 bits: it cannot address what is behind them.
    let end = (disk_bytes / sector).min(u64::from(u32::MAX));
    let used = used(partitions, end)?;
    let number = table.free_slot(first).ok_or(LayoutError::NoEntry(mbr::SLOTS))?;
    let place = find_room(&used, ALIGN_BYTES / sector..end, sector)?;
    let first = mbr::with(first, number, &place);
    Ok(Layout { first, backup: None, partition: place.start * sector..place.end * sector })
}

/// The sectors of all partitions; an error if one does not end before `end`.
fn used(partitions: &[Partition], end: u64) -> Result<Vec<Range<u64>>, LayoutError> {
    match partitions.iter().find(|partition| partition.end > end) {
        Some(Partition { number, end: ends, .. }) => {
            Err(LayoutError::TooSmall { number: *number, end: ends - 1, last: end.saturating_sub(1) })
        }
        None => Ok(partitions.iter().map(|partition| partition.start..partition.end).collect()),
    }
}

/// The highest free place within `usable`, aligned, of the largest size that fits.
fn find_room(used: &[Range<u64>], usable: Range<u64>, sector: u64) -> Result<Range<u64>, LayoutError> {
    let align = ALIGN_BYTES / sector;
    let ceilings = || used.iter().map(|range| range.start).chain([usable.end]);
    for bytes in PARTITION_BYTES {
        let sectors = bytes / sector;
        let free = ceilings()
            .filter_map(|ceiling| ceiling.min(usable.end).checked_sub(sectors))
            .map(|start| start / align * align)
            .filter(|&start| start >= usable.start)
            .filter(|&start| used.iter().all(|range| start + sectors <= range.start || range.end <= start))
            .max();
        if let Some(start) = free {
            return Ok(start..start + sectors);
        }
    }
    Err(LayoutError::NoRoom)
}
