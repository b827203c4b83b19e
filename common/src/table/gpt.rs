//! Core: a GUID partition table (UEFI 2.10, 5.3). Reads the primary one from a disk's first MiB, and writes it with one
//! more entry and for another size of disk. Parts that it does not know (a longer header, longer entries) are left as
//! they are. Every number is checked before it is used: an image can be from anybody. Touches nothing.

use std::ops::Range;

use super::partition::{ENTRIES_MAX, FIRST_BYTES, Kind, Partition, TableError, u32_at, u64_at};

/// "Microsoft basic data", the type of a FAT for every OS: EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, as on disk.
const BASIC_DATA: [u8; 16] =
    [0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7];

const SIGNATURE: &[u8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
/// The length of the header's fields; a header may be longer, up to a sector (UEFI 2.10, table 5-5).
const HEADER_BYTES: u32 = 92;
/// The length of an entry's fields; an entry may be 128 times a power of two (UEFI 2.10, 5.3.2).
const ENTRY_BYTES: u32 = 128;
/// The longest entry that [`glance`] accepts.
const GLANCE_ENTRY_BYTES_MAX: u32 = 4096;
/// Attribute bit 2, "legacy BIOS bootable": syslinux's code for GPT looks for it.
const LEGACY_BOOT: u64 = 4;

/// A GPT with right checksums and possible numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    sector: u64,
    header: Vec<u8>,
    /// The place of the entries, in bytes from the disk's start.
    entries: Range<usize>,
    entry_bytes: usize,
    partitions: Vec<Partition>,
}

/// The partition that is added: its own GUID, its sectors and its name.
#[derive(Debug, Clone)]
pub(super) struct NewPartition {
    pub(super) guid: [u8; 16],
    pub(super) sectors: Range<u64>,
    pub(super) name: &'static str,
}

impl Gpt {
    /// Reads the primary table from `first`.
    pub(super) fn read(first: &[u8], sector_bytes: u32) -> Result<Self, TableError> {
        let sector = sector_bytes as usize;
        let header = header_in(first, sector).ok_or(TableError::NotThere)?;
        let header_bytes = u32_at(header, 12);
        if !(HEADER_BYTES..=sector_bytes).contains(&header_bytes) {
            return Err(TableError::HeaderSize(header_bytes));
        }
        let header = header[..header_bytes as usize].to_vec();
        if header_checksum(&header) != u32_at(&header, 16) {
            return Err(TableError::Checksum("header"));
        }
        if u32_at(&header, 8) != REVISION {
            return Err(TableError::Revision(u32_at(&header, 8)));
        }
        let (entries, entry_bytes) = place_of_entries(&header, sector as u64)?;
        let bytes = first.get(entries.clone());
        let bytes = bytes.ok_or(TableError::EntriesFar(entries.start as u64))?;
        if crc32fast::hash(bytes) != u32_at(&header, 88) {
            return Err(TableError::Checksum("entries"));
        }
        let mut partitions = Vec::new();
        for (number, entry) in (1u32..).zip(bytes.chunks_exact(entry_bytes)) {
            let Some(partition) = partition(number, entry) else { continue };
            if u64_at(entry, 40) < partition.start {
                return Err(TableError::Backwards(number));
            }
            partitions.push(partition);
        }
        Ok(Self { sector: sector as u64, header, entries, entry_bytes, partitions })
    }

    /// The partitions of the entries that are in use, by number.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// The first sector that partitions may use.
    #[must_use]
    pub fn first_usable(&self) -> u64 {
        u64_at(&self.header, 40)
    }

    /// The sector that the header names as its own; kernel and firmware accept only 1.
    #[must_use]
    pub fn own_sector(&self) -> u64 {
        u64_at(&self.header, 24)
    }

    /// How many entries there are, and the number of the first free one, if any.
    pub(super) fn slots(&self) -> (u32, Option<u32>) {
        let count = u32_at(&self.header, 80);
        let taken = |number: &u32| self.partitions.iter().any(|partition| partition.number == *number);
        (count, (1..=count).find(|number| !taken(number)))
    }

    /// How many sectors the entries take.
    pub(super) fn entry_sectors(&self) -> u64 {
        (self.entries.len() as u64).div_ceil(self.sector)
    }

    /// The table with `new` as entry `number`, for a disk whose last sector is `last`: the first MiB, and the backup's
    /// offset and bytes. The caller has checked with `slots` and `entry_sectors` that it fits.
    pub(super) fn with(
        &self,
        first: &[u8],
        number: u32,
        new: &NewPartition,
        last: u64,
    ) -> (Vec<u8>, (u64, Vec<u8>)) {
        let mut first = first.to_vec();
        let at = self.entries.start + (number as usize - 1) * self.entry_bytes;
        if let Some(entry) = first.get_mut(at..at + self.entry_bytes) {
            write_entry(entry, new);
        }
        let entries = first.get(self.entries.clone()).unwrap_or_default().to_vec();
        let last_usable = last - self.entry_sectors() - 1;

        let mut header = self.header.clone();
        header[48..56].copy_from_slice(&last_usable.to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let own_entries = u64_at(&header, 72);
        let primary = placed(&header, 1, last, own_entries);
        let at = usize::try_from(self.sector).unwrap_or(usize::MAX);
        if let Some(place) = first.get_mut(at..at + primary.len()) {
            place.copy_from_slice(&primary);
        }

        let start = last - self.entry_sectors();
        let mut backup = entries;
        backup.resize(usize::try_from(self.entry_sectors() * self.sector).unwrap_or(usize::MAX), 0);
        backup.extend(placed(&header, last, 1, start));
        backup.resize(usize::try_from((self.entry_sectors() + 1) * self.sector).unwrap_or(usize::MAX), 0);
        (first, (start * self.sector, backup))
    }
}

/// The byte range of the entries, and the length of each.
fn place_of_entries(header: &[u8], sector: u64) -> Result<(Range<usize>, usize), TableError> {
    let (count, size) = (u32_at(header, 80), u32_at(header, 84));
    if !size.is_multiple_of(ENTRY_BYTES) || !(size / ENTRY_BYTES).is_power_of_two() {
        return Err(TableError::EntrySize(size));
    }
    if count == 0 || count > ENTRIES_MAX {
        return Err(TableError::EntryCount(count));
    }
    let start = u64_at(header, 72).saturating_mul(sector);
    let far = TableError::EntriesFar(start);
    let end = u64::from(count).checked_mul(u64::from(size)).and_then(|len| start.checked_add(len));
    let end = end.filter(|&end| end <= FIRST_BYTES as u64).ok_or(far.clone())?;
    let (first_usable, last_usable) = (u64_at(header, 40), u64_at(header, 48));
    if start < 2 * sector || first_usable < end.div_ceil(sector) {
        return Err(TableError::EntriesPlace);
    }
    if first_usable > last_usable {
        return Err(TableError::Usable { first: first_usable, last: last_usable });
    }
    let place = |at: u64| usize::try_from(at).map_err(|_| far.clone());
    Ok((place(start)?..place(end)?, size as usize))
}

/// The partitions of a table with a GPT's signature, as far as its entries are in `first`, whether or not any system
/// would accept it: checksums are not checked, and entries may have any size that holds their fields. None where there
/// is no signature or no such size.
pub(super) fn glance(first: &[u8], sector_bytes: u32) -> Option<Vec<Partition>> {
    let sector = sector_bytes as usize;
    let header = header_in(first, sector)?;
    let size = u32_at(header, 84);
    if !(ENTRY_BYTES..=GLANCE_ENTRY_BYTES_MAX).contains(&size) {
        return None;
    }
    let start = usize::try_from(u64_at(header, 72)).ok()?.checked_mul(sector)?;
    let count = u32_at(header, 80).min(ENTRIES_MAX);
    let entries = first.get(start..).unwrap_or_default().chunks(size as usize);
    let whole = entries.take_while(|entry| entry.len() >= ENTRY_BYTES as usize).take(count as usize);
    Some((1u32..).zip(whole).filter_map(|(number, entry)| partition(number, entry)).collect())
}

/// The header's sector, if it has the signature of a GPT.
fn header_in(first: &[u8], sector: usize) -> Option<&[u8]> {
    first.get(sector..2 * sector).filter(|header| header.starts_with(SIGNATURE))
}

/// Parses an entry of at least 128 bytes; none when it is free.
fn partition(number: u32, entry: &[u8]) -> Option<Partition> {
    let kind = entry.first_chunk::<16>().filter(|kind| **kind != [0; 16])?;
    let units: Vec<u16> =
        entry[56..128].chunks_exact(2).map(|unit| u16::from(unit[0]) | u16::from(unit[1]) << 8).collect();
    let name = units.split(|&unit| unit == 0).next().unwrap_or_default();
    Some(Partition {
        number,
        start: u64_at(entry, 32),
        end: u64_at(entry, 40).saturating_add(1),
        kind: Kind::Gpt(*kind),
        guid: entry[16..].first_chunk().copied(),
        name: String::from_utf16_lossy(name),
        active: u64_at(entry, 48) & LEGACY_BOOT != 0,
    })
}

fn write_entry(entry: &mut [u8], new: &NewPartition) {
    entry.fill(0);
    entry[..16].copy_from_slice(&BASIC_DATA);
    entry[16..32].copy_from_slice(&new.guid);
    entry[32..40].copy_from_slice(&new.sectors.start.to_le_bytes());
    entry[40..48].copy_from_slice(&(new.sectors.end - 1).to_le_bytes());
    for (place, unit) in entry[56..128].chunks_exact_mut(2).zip(new.name.encode_utf16()) {
        place.copy_from_slice(&unit.to_le_bytes());
    }
}

/// `header` for sector `own`, with the other header at sector `other` and the entries from sector `entries` on.
fn placed(header: &[u8], own: u64, other: u64, entries: u64) -> Vec<u8> {
    let mut header = header.to_vec();
    header[24..32].copy_from_slice(&own.to_le_bytes());
    header[32..40].copy_from_slice(&other.to_le_bytes());
    header[72..80].copy_from_slice(&entries.to_le_bytes());
    let sum = header_checksum(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

fn header_checksum(header: &[u8]) -> u32 {
    let mut header = header.to_vec();
    header[16..20].fill(0);
    crc32fast::hash(&header)
}
