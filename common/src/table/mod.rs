//! Core: partition tables as bytes. What an image's first MiB says of its partitions (`read`, `gpt`, `mbr`), and
//! what the table becomes on a disk (`layout`). The server asks at the import and again for each disk, the agent
//! does it: one code, so that nothing is found out on a disk that has been cleared. The same code looks at what stands on
//! a machine's disks (`glance`). Touches nothing.
//!
//! What counts is what the installed kernel and the firmware read: a GPT only under a protective MBR, whose entry of
//! type 0xEE begins at sector 1 (UEFI 2.10, 5.2.3; Linux's block/partitions/efi.c and EDK2's PartitionDxe both ask
//! for just that); under any other MBR it is a leftover.

// What both kinds of table share.
mod partition;

// Reading and writing a GUID partition table.
pub mod gpt;

// Reading and writing a master boot record.
pub mod mbr;

// The table as it is to be on a disk.
pub mod layout;

pub use layout::{Layout, LayoutError, lay_out};
pub use partition::{FIRST_BYTES, Kind, Partition, TableError};

use gpt::Gpt;
use mbr::Mbr;

/// Where firmware looks for a GPT's header: in the second sector, whose size is not known beforehand.
const SECTOR_SIZES: [u32; 2] = [512, 4096];

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    /// A GUID partition table under its protective MBR.
    Gpt(Gpt),
    /// A master boot record.
    Mbr(Mbr),
    /// None: a bare file system, or no disk at all.
    None,
}

impl Table {
    /// Its partitions, in the order of their numbers.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        match self {
            Self::Gpt(gpt) => gpt.partitions(),
            Self::Mbr(mbr) => mbr.partitions(),
            Self::None => &[],
        }
    }

    /// Two partitions that lie over each other, by number; the first such two.
    #[must_use]
    pub fn overlap(&self) -> Option<(u32, u32)> {
        let mut sorted: Vec<&Partition> = self.partitions().iter().filter(|p| p.start < p.end).collect();
        sorted.sort_by_key(|partition| partition.start);
        sorted.windows(2).find(|two| two[1].start < two[0].end).map(|two| (two[0].number, two[1].number))
    }
}

/// Reads the table of a disk with sectors of `sector_bytes` whose first MiB (all of a smaller one) is `first`.
///
/// # Errors
/// When there is a table that cannot be believed.
pub fn read(first: &[u8], sector_bytes: u32) -> Result<Table, TableError> {
    let Some(mbr) = Mbr::read(first) else { return nothing(first, sector_bytes) };
    match mbr.protective_from() {
        Some(1) => Gpt::read(first, sector_bytes).map(Table::Gpt),
        Some(_) => Err(TableError::NotProtected),
        None if mbr.partitions().is_empty() => nothing(first, sector_bytes),
        None => mbr.check().map(Table::Mbr),
    }
}

/// No MBR: a GPT all the same is a mistake of whoever made the disk, unless a file system was made over it.
fn nothing(first: &[u8], sector_bytes: u32) -> Result<Table, TableError> {
    let formatted = [(3, &b"NTFS    "[..]), (3, b"EXFAT   "), (54, b"FAT"), (82, b"FAT32")]
        .iter()
        .any(|(at, mark)| first.get(*at..).is_some_and(|rest| rest.starts_with(mark)));
    match Gpt::read(first, sector_bytes) {
        Ok(_) if !formatted => Err(TableError::NotProtected),
        _ => Ok(Table::None),
    }
}

/// Reads the table of an image whose sector size is not known: where the GPT's header stands tells it. The size is
/// none without a GPT.
///
/// # Errors
/// As [`read`].
pub fn read_any(first: &[u8]) -> Result<(Table, Option<u32>), TableError> {
    let [small, large] = SECTOR_SIZES.map(|sector| (read(first, sector), sector));
    match (small, large) {
        ((Ok(table @ Table::Gpt(_)), sector), _) | (_, (Ok(table @ Table::Gpt(_)), sector)) => {
            Ok((table, Some(sector)))
        }
        // A header that is there says more than one that is not.
        ((Err(TableError::NotThere), _), (large, _)) => large.map(|table| (table, None)),
        ((Ok(_), _), (Err(error), _)) => Err(error),
        ((small, _), _) => small.map(|table| (table, None)),
    }
}

/// What stands at the start of a disk of somebody's, whether firmware and kernel would believe it or not: what looks like
/// a table is somebody's, and not to be written over unseen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glance {
    /// The partitions of what bears a GPT's signature.
    pub gpt: Option<Vec<Partition>>,
    /// Those of a plausible MBR, without the guard over a GPT.
    pub mbr: Option<Vec<Partition>>,
}

/// Looks for tables at the start of a disk with sectors of `sector_bytes`. Whatever a number in them says, it is within
/// what it can be; a partition may lie anywhere and end before it begins.
#[must_use]
pub fn glance(first: &[u8], sector_bytes: u32) -> Glance {
    Glance { gpt: gpt::glance(first, sector_bytes), mbr: Mbr::read(first).map(Mbr::unguarded) }
}

#[cfg(test)]
mod tests;
