//! Core: partition tables as bytes. What an image's first MiB says of its partitions (`read`, `gpt`, `mbr`), and
//! what the table becomes on a disk (`layout`). The server asks at the import and again for each disk, the agent
//! does it: one code, so that nothing is found out on a disk that has been cleared. The same code looks at what stands on
//! a machine's disks (`glance`). Touches nothing.
//!
//! What counts is what the installed kernel and the firmware read: a GPT only under a protective MBR, whose entry of
//! type 0xEE begins at sector 1 (UEFI 2.10, 5.2.3; Linux's block/partitions/efi.c and EDK2's PartitionDxe both ask
//! for just that); under any other MBR it is a leftover.

// Reading and writing a GUID partition table.
pub mod gpt;

// Reading and writing a master boot record.
pub mod mbr;

// The table as it is to be on a disk.
pub mod layout;

pub use layout::{Layout, LayoutError, lay_out};

use gpt::Gpt;
use mbr::Mbr;

/// Bytes of an image's start that are looked at, and that are written last.
pub const FIRST_BYTES: usize = 1 << 20;

/// Where firmware looks for a GPT's header: in the second sector, whose size is not known beforehand.
const SECTOR_SIZES: [u32; 2] = [512, 4096];

/// What the first bytes of a disk say of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    /// A GUID partition table under its protective MBR.
    Gpt(Gpt),
    /// A master boot record with partitions of its own.
    Mbr(Mbr),
    /// None: a bare file system, or no disk at all.
    None,
}

/// A partition, as a table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its first sector, counted in those of the table.
    pub start: u64,
    /// The sector after its last.
    pub end: u64,
    /// What the table says is in it.
    pub kind: Kind,
    /// Its own GUID, as it stands in the table; none in an MBR.
    pub guid: Option<[u8; 16]>,
    /// Its name; none in an MBR.
    pub name: String,
    /// Whether old firmware or boot code is told to start it: the active flag, or the GPT's attribute bit 2.
    pub active: bool,
}

/// The type of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A GPT's type, as it stands in the table.
    Gpt([u8; 16]),
    /// An MBR's type.
    Mbr(u8),
}

/// The EFI system partition: C12A7328-F81F-11D2-BA4B-00A0C93EC93B as it stands on a disk (UEFI 2.10, table 5-7).
const ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// GRUB's place for its core: "Hah!IdontNeedEFI".
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

impl Kind {
    /// Whether it is an EFI system partition.
    #[must_use]
    pub fn is_esp(self) -> bool {
        self == Self::Gpt(ESP) || self == Self::Mbr(0xef)
    }

    /// Whether it is GRUB's place on a disk with a GPT.
    #[must_use]
    pub fn is_bios_boot(self) -> bool {
        self == Self::Gpt(BIOS_BOOT)
    }
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

/// A table that firmware or kernel would not read, or that cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A GPT that nobody looks at.
    #[error(
        "there is a GPT but no protective MBR (an entry of type 0xEE from sector 1), so no kernel reads it"
    )]
    NotProtected,
    /// A protective MBR without what it protects.
    #[error("the MBR announces a GPT that is not there")]
    NotThere,
    /// A checksum that is another.
    #[error("the checksum of the GPT's {0} is wrong")]
    Checksum(&'static str),
    /// A revision of the GPT that is not known.
    #[error("the GPT has revision {}.{}, and 1.0 is the only one known", .0 >> 16, .0 & 0xffff)]
    Revision(u32),
    /// A header that is shorter than its fields, or longer than its sector.
    #[error("the GPT's header has {0} bytes")]
    HeaderSize(u32),
    /// A size that no entry may have.
    #[error("the GPT's entries have {0} bytes each, which is not 128 times a power of two")]
    EntrySize(u32),
    /// More entries than are read, or none.
    #[error("the GPT has {0} entries, and 1 to {max} are read", max = gpt::ENTRIES_MAX)]
    EntryCount(u32),
    /// Entries that are not in the first MiB.
    #[error(
        "the GPT's entries begin at byte {0} and are not wholly in the first MiB, which is all that is read"
    )]
    EntriesFar(u64),
    /// Entries that lie over the header, or where partitions may lie.
    #[error("the GPT's entries lie where its header or partitions may")]
    EntriesPlace,
    /// Nothing is left for partitions.
    #[error("the GPT says that partitions may lie from sector {first} to {last}")]
    Usable {
        /// The first sector that partitions may use.
        first: u64,
        /// The last sector that they may use.
        last: u64,
    },
    /// A partition that ends before it begins.
    #[error("partition {0} ends before it begins")]
    Backwards(u32),
    /// A partition that ends where no sector can be named any more.
    #[error("partition {0} ends behind the last sector that an MBR can name")]
    Wraps(u32),
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

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests;
