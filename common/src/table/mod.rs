//! Core: partition tables as bytes: which partitions an image's first MiB has (`read`, `gpt`, `mbr`), and how the table
//! is changed for a disk (`layout`). The server computes both at the import and again for each disk, the agent writes
//! them: with one code, so that no error is found only when a disk has been cleared. `glance` reads the tables on
//! machines' disks. Touches nothing.
//!
//! A table counts if the installed kernel and the firmware read it: a GPT only under a protective MBR, whose entry of
//! type 0xEE begins at sector 1 (UEFI 2.10, 5.2.3; Linux's block/partitions/efi.c and EDK2's PartitionDxe both check
//! just that); under any other MBR it is a leftover.

// Types that both kinds of table share.
mod partition;

// Reads and changes a GUID partition table.
pub mod gpt;

// Reads and changes a master boot record.
pub mod mbr;

// The changed table and cloud-init's partition for one disk.
pub mod layout;

pub use layout::{Layout, LayoutError, lay_out};
pub use partition::{FIRST_BYTES, Kind, Partition, TableError};

use gpt::Gpt;
use mbr::Mbr;

/// The sector sizes for which a GPT's header is looked for: it is in the second sector, whose size is not known.
const SECTOR_SIZES: [u32; 2] = [512, 4096];

/// The partition table of a disk or image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    /// A GUID partition table under its protective MBR.
    Gpt(Gpt),
    /// A master boot record.
    Mbr(Mbr),
    /// No table: a bare file system, or no disk image at all.
    None,
}

impl Table {
    /// Its partitions, by number.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        match self {
            Self::Gpt(gpt) => gpt.partitions(),
            Self::Mbr(mbr) => mbr.partitions(),
            Self::None => &[],
        }
    }

    /// The numbers of the first two partitions that overlap.
    #[must_use]
    pub fn overlap(&self) -> Option<(u32, u32)> {
        let mut sorted: Vec<&Partition> = self.partitions().iter().filter(|p| p.start < p.end).collect();
        sorted.sort_by_key(|partition| partition.start);
        sorted.windows(2).find(|two| two[1].start < two[0].end).map(|two| (two[0].number, two[1].number))
    }
}

/// Reads the table of a disk with sectors of `sector_bytes` whose first MiB (or all of a smaller one) is `first`.
///
/// # Errors
/// When there is a table that is damaged, or that no kernel would read.
pub fn read(first: &[u8], sector_bytes: u32) -> Result<Table, TableError> {
    let Some(mbr) = Mbr::read(first) else { return nothing(first, sector_bytes) };
    match mbr.protective_from() {
        Some(1) => Gpt::read(first, sector_bytes).map(Table::Gpt),
        Some(_) => Err(TableError::NotProtected),
        None if mbr.partitions().is_empty() => nothing(first, sector_bytes),
        None => mbr.check().map(Table::Mbr),
    }
}

/// Without an MBR: a GPT is then a mistake of whoever made the disk, unless a file system was made over it.
fn nothing(first: &[u8], sector_bytes: u32) -> Result<Table, TableError> {
    let formatted = [(3, &b"NTFS    "[..]), (3, b"EXFAT   "), (54, b"FAT"), (82, b"FAT32")]
        .iter()
        .any(|(at, mark)| first.get(*at..).is_some_and(|rest| rest.starts_with(mark)));
    match Gpt::read(first, sector_bytes) {
        Ok(_) if !formatted => Err(TableError::NotProtected),
        _ => Ok(Table::None),
    }
}

/// Reads the table of an image whose sector size is not known, which the place of a GPT's header tells. The sector size
/// is none without a GPT.
///
/// # Errors
/// As [`read`].
pub fn read_any(first: &[u8]) -> Result<(Table, Option<u32>), TableError> {
    let [small, large] = SECTOR_SIZES.map(|sector| (read(first, sector), sector));
    match (small, large) {
        ((Ok(table @ Table::Gpt(_)), sector), _) | (_, (Ok(table @ Table::Gpt(_)), sector)) => {
            Ok((table, Some(sector)))
        }
        // A damaged header tells more than a missing one.
        ((Err(TableError::NotThere), _), (large, _)) => large.map(|table| (table, None)),
        ((Ok(_), _), (Err(error), _)) => Err(error),
        ((small, _), _) => small.map(|table| (table, None)),
    }
}

/// The tables at the start of a machine's disk, whether or not firmware and kernel would accept them: what looks like a
/// table may be somebody's, and must not be overwritten unnoticed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glance {
    /// The partitions of a table with a GPT's signature; none without one.
    pub gpt: Option<Vec<Partition>>,
    /// The partitions of a plausible MBR, without the protective one over a GPT; none without an MBR.
    pub mbr: Option<Vec<Partition>>,
}

/// Reads the tables at the start of a disk with sectors of `sector_bytes`. Every number is bounded, but a partition may
/// be anywhere and end before it begins.
#[must_use]
pub fn glance(first: &[u8], sector_bytes: u32) -> Glance {
    Glance { gpt: gpt::glance(first, sector_bytes), mbr: Mbr::read(first).map(Mbr::unguarded) }
}

#[cfg(test)]
mod tests;
