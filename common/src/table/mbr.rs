//! Core: a master boot record, read as Linux reads it (block/partitions/msdos.c): an entry without sectors is free,
//! whatever its type; one with sectors is in use, even with type 0. Touches nothing.

use std::ops::Range;

use crate::chunk::is_zero;

use super::partition::{Kind, Partition, TableError, u32_at};

/// The type "FAT16 by LBA", of cloud-init's partition.
const FAT16: u8 = 0x0e;
/// The type of the protective entry over a GPT.
const PROTECTIVE: u8 = 0xee;
/// The offset of the four entries in the first sector.
const ENTRIES_AT: usize = 446;
const ENTRY_BYTES: usize = 16;
/// How many primary partitions an MBR has room for.
pub(super) const SLOTS: u32 = 4;

/// A plausible master boot record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mbr {
    partitions: Vec<Partition>,
}

impl Mbr {
    /// Reads it from a disk's first sector; none when there is something else. A file system's own boot sector ends in
    /// the same two bytes, but its code is not plausible as entries.
    pub(super) fn read(first: &[u8]) -> Option<Self> {
        if first.get(510..512) != Some(&[0x55, 0xaa]) {
            return None;
        }
        let entries = first[ENTRIES_AT..510].chunks_exact(ENTRY_BYTES);
        if entries.clone().any(|entry| entry[0] & 0x7f != 0) {
            return None;
        }
        let partitions = (1u32..).zip(entries).filter(|(_, entry)| u32_at(entry, 12) != 0);
        let partitions = partitions.map(|(number, entry)| {
            let (start, sectors) = (u64::from(u32_at(entry, 8)), u64::from(u32_at(entry, 12)));
            Partition {
                number,
                start,
                end: start + sectors,
                kind: Kind::Mbr(entry[4]),
                guid: None,
                name: String::new(),
                active: entry[0] == 0x80,
            }
        });
        Some(Self { partitions: partitions.collect() })
    }

    /// Its primary partitions; logical ones are inside an extended one and not listed.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Its partitions without protective entries over a GPT.
    pub(super) fn unguarded(self) -> Vec<Partition> {
        self.partitions.into_iter().filter(|partition| partition.kind != Kind::Mbr(PROTECTIVE)).collect()
    }

    /// The first sector of a protective entry, if there is one.
    pub(super) fn protective_from(&self) -> Option<u64> {
        let protective = self.partitions.iter().filter(|partition| partition.kind == Kind::Mbr(PROTECTIVE));
        // One that begins at sector 1 is enough for kernel and firmware.
        protective.map(|partition| partition.start).min_by_key(|&start| start != 1)
    }

    /// Returns it, if its partitions end within 32 bits.
    pub(super) fn check(self) -> Result<Self, TableError> {
        match self.partitions.iter().find(|partition| partition.end > 1 << 32) {
            Some(wraps) => Err(TableError::Wraps(wraps.number)),
            None => Ok(self),
        }
    }

    /// The number of the first entry without sectors; one that is all zeros is preferred to one with a type.
    pub(super) fn free_slot(&self, first: &[u8]) -> Option<u32> {
        let free = |number: &u32| self.partitions.iter().all(|partition| partition.number != *number);
        let slots: Vec<u32> = (1..=SLOTS).filter(free).collect();
        let blank = slots.iter().find(|&&number| is_zero(&first[slot(number)]));
        blank.or(slots.first()).copied()
    }
}

/// `first` with a partition of `sectors` as entry `number`.
pub(super) fn with(first: &[u8], number: u32, sectors: &Range<u64>) -> Vec<u8> {
    let mut first = first.to_vec();
    let entry = &mut first[slot(number)];
    // Cylinders, heads and sectors stay zero: nothing reads them where the type says LBA.
    entry.fill(0);
    entry[4] = FAT16;
    let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    entry[8..12].copy_from_slice(&word(sectors.start));
    entry[12..16].copy_from_slice(&word(sectors.end - sectors.start));
    first
}

/// Extends the protective entry over the whole disk, as firmware that checks it expects. One beside other entries (a
/// hybrid MBR) protects a part of the disk on purpose, and stays.
pub(super) fn protect(first: &mut [u8], last: u64) {
    let Some(mbr) = Mbr::read(first) else { return };
    if let [only] = mbr.partitions.as_slice()
        && only.kind == Kind::Mbr(PROTECTIVE)
    {
        let sectors = u32::try_from(last).unwrap_or(u32::MAX);
        first[slot(only.number)][12..].copy_from_slice(&sectors.to_le_bytes());
    }
}

fn slot(number: u32) -> Range<usize> {
    let at = ENTRIES_AT + (number as usize - 1) * ENTRY_BYTES;
    at..at + ENTRY_BYTES
}
