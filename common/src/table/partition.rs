//! Core: types that GPT and MBR share: a partition, the faults of a table, and reading its numbers. Touches nothing.

/// How many bytes of an image's start are read for its table; they are also written last.
pub const FIRST_BYTES: usize = 1 << 20;

/// The most entries of a GPT that are read: the standard has 128, nobody has more than a few times that.
pub(super) const ENTRIES_MAX: u32 = 1024;

/// A partition, as its table describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Its first sector, counted in the table's sector size.
    pub start: u64,
    /// The sector after its last.
    pub end: u64,
    /// The type that the table gives it.
    pub kind: Kind,
    /// Its own GUID, in the byte order of the table; none in an MBR.
    pub guid: Option<[u8; 16]>,
    /// Its name; empty in an MBR.
    pub name: String,
    /// Whether it is marked to be booted by old firmware: the MBR's active flag, or the GPT's attribute bit 2.
    pub active: bool,
}

/// The type of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The type GUID of a GPT, in the byte order of the table.
    Gpt([u8; 16]),
    /// The type byte of an MBR.
    Mbr(u8),
}

/// The EFI system partition: C12A7328-F81F-11D2-BA4B-00A0C93EC93B in its byte order on disk (UEFI 2.10, table 5-7).
const ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// The BIOS boot partition, for GRUB's core: "Hah!IdontNeedEFI".
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

impl Kind {
    /// Whether it is an EFI system partition.
    #[must_use]
    pub fn is_esp(self) -> bool {
        self == Self::Gpt(ESP) || self == Self::Mbr(0xef)
    }

    /// Whether it is a BIOS boot partition, where GRUB keeps its core on a disk with a GPT.
    #[must_use]
    pub fn is_bios_boot(self) -> bool {
        self == Self::Gpt(BIOS_BOOT)
    }
}

/// Why a table is refused: firmware or kernel would not read it, or its numbers are impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// There is a GPT, but no protective MBR, so no kernel reads it.
    #[error(
        "there is a GPT but no protective MBR (an entry of type 0xEE from sector 1), so no kernel reads it"
    )]
    NotProtected,
    /// There is a protective MBR, but no GPT.
    #[error("the MBR announces a GPT that is not there")]
    NotThere,
    /// The checksum of this part of the GPT is wrong.
    #[error("the checksum of the GPT's {0} is wrong")]
    Checksum(&'static str),
    /// The GPT has an unknown revision.
    #[error("the GPT has revision {}.{}, and 1.0 is the only one known", .0 >> 16, .0 & 0xffff)]
    Revision(u32),
    /// The header's length is less than its fields, or more than its sector.
    #[error("the GPT's header has {0} bytes")]
    HeaderSize(u32),
    /// The length of the entries is not a valid one.
    #[error("the GPT's entries have {0} bytes each, which is not 128 times a power of two")]
    EntrySize(u32),
    /// The number of entries is 0, or more than are read.
    #[error("the GPT has {0} entries, and 1 to {max} are read", max = ENTRIES_MAX)]
    EntryCount(u32),
    /// The entries are not wholly in the first MiB.
    #[error(
        "the GPT's entries begin at byte {0} and are not wholly in the first MiB, which is all that is read"
    )]
    EntriesFar(u64),
    /// The entries overlap the header, or the sectors for partitions.
    #[error("the GPT's entries lie where its header or partitions may")]
    EntriesPlace,
    /// The sectors for partitions end before they begin.
    #[error("the GPT says that partitions may lie from sector {first} to {last}")]
    Usable {
        /// The first sector that partitions may use.
        first: u64,
        /// The last sector that partitions may use.
        last: u64,
    },
    /// This partition ends before it begins.
    #[error("partition {0} ends before it begins")]
    Backwards(u32),
    /// This partition ends behind the last sector that an MBR can address.
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
