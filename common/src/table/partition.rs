//! Core: what GPT and MBR share: a partition, what may be wrong with a table, how numbers stand in it. Touches nothing.

/// Bytes of an image's start that are looked at, and that are written last.
pub const FIRST_BYTES: usize = 1 << 20;

/// The most entries of a GPT that are read: the standard has 128, nobody has more than a few times that.
pub(super) const ENTRIES_MAX: u32 = 1024;

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
    #[error("the GPT has {0} entries, and 1 to {max} are read", max = ENTRIES_MAX)]
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

/// The little-endian number at byte `at`; 0 behind the end of `bytes`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

/// The little-endian number at byte `at`; 0 behind the end of `bytes`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}
