//! Core: interprets the bytes at a disk's start and end: would firmware boot it, is it partitioned, is it a member of
//! an array, what is on it. Tables are read by `common::table`, as everywhere. Touches `marks`.
//!
//! A person decides by this whether a disk may be erased, and the server whether a machine without an order is sent to
//! its disk; so a disk counts as bootable only by what firmware itself looks for, random bytes count as data, and one
//! half of a mirror is never called a plain disk. The bytes are hostile: every offset is checked.

use common::chunk::is_zero;
use common::hardware::Contents;
use common::limits::REPORT_FOUND_MAX;
use common::table::{Glance, Kind, Partition, glance};

use super::marks::{at_end, at_start, is_member};

#[cfg(test)]
mod tests;

/// How many bytes of a disk's start are read.
pub const HEAD_BYTES: usize = 1 << 20;

/// How many bytes of a disk's end are read: as far as the marks of RAID controllers reach.
pub const TAIL_BYTES: usize = 2 << 20;

/// How many bytes of a partition's start are read: as far as the first uberblock of ZFS.
pub const PARTITION_BYTES: usize = 136 << 10;

/// How many bytes of a partition's end are read: two labels of ZFS, and what is left of a third.
pub const PARTITION_TAIL_BYTES: usize = 768 << 10;

/// The most partitions that are read; a disk with more has enough on it to make anybody careful.
const PARTITIONS_MAX: usize = 16;

/// The bytes that were read of a disk, with its size.
#[derive(Debug, Clone, Copy)]
pub struct Edges<'a> {
    /// The first MiB, or all of a smaller disk.
    pub head: &'a [u8],
    /// The last [`TAIL_BYTES`], or fewer; none when they could not be read.
    pub tail: Option<&'a [u8]>,
    /// Size of the disk in bytes.
    pub size: u64,
    /// The disk's logical sector size in bytes.
    pub sector_bytes: u32,
}

/// The place of a partition, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Offset of its first byte on the disk.
    pub start: u64,
    /// Its length in bytes, cut at the disk's end.
    pub len: u64,
}

impl Edges<'_> {
    /// The places of the partitions in the disk's table; at most 16.
    #[must_use]
    pub fn partitions(&self) -> Vec<Part> {
        let sector = u64::from(self.sector_bytes);
        let in_bytes = |partition: Partition| {
            let start = partition.start.checked_mul(sector).filter(|&start| start < self.size)?;
            // A partition that ends before it begins is read all the same.
            let sectors = partition.end.saturating_sub(partition.start).max(1);
            let len = sectors.saturating_mul(sector).min(self.size - start);
            Some(Part { number: partition.number, start, len })
        };
        let Glance { gpt, mbr } = glance(self.head, self.sector_bytes);
        let found = gpt.or(mbr).unwrap_or_default();
        found.into_iter().filter_map(in_bytes).take(PARTITIONS_MAX).collect()
    }

    /// Whether the last sector holds the backup of a GPT, for any usual sector size.
    fn has_backup_gpt(&self) -> bool {
        let Some(tail) = self.tail else { return false };
        [self.sector_bytes as usize, 512, 4096].iter().any(|&sector| {
            tail.len().checked_sub(sector).is_some_and(|at| tail[at..].starts_with(b"EFI PART"))
        })
    }
}

/// The marks found on a partition of `len` bytes, of which `start` and `end` were read.
#[must_use]
pub fn marks_of(start: &[u8], end: &[u8], len: u64) -> Vec<&'static str> {
    let mut found = at_start(start);
    found.extend(at_end(end, len).into_iter().filter(|name| !at_start(start).contains(name)));
    found
}

/// Interprets the `edges` of a disk, whose partitions have the marks `parts` (by number): whether it would boot,
/// whether other disks depend on it, and what was recognised.
///
/// A volume group on a partition of a bootable disk is how many installers lay out a single disk, so that alone does
/// not make it a member; a volume group on the whole disk, or on one without anything that boots, does.
#[must_use]
pub fn look(edges: &Edges<'_>, parts: &[(u32, Vec<&'static str>)]) -> (Contents, Vec<String>) {
    let Edges { head, tail, size, sector_bytes } = *edges;
    if head.is_empty() {
        return (Contents::Unreadable, vec![]);
    }
    let tail = tail.unwrap_or_default();
    if is_zero(head) && is_zero(tail) {
        return (Contents::Blank, vec![]);
    }
    let mut found: Vec<String> = vec![];
    let on_whole_disk = at_start(head);
    let tables = glance(head, sector_bytes);
    let boot_code =
        has_boot_code(head, &tables) && !on_whole_disk.iter().any(|name| has_own_boot_sector(name));
    let (boots, partitioned) = if let Some(partitions) = tables.gpt {
        found.push("gpt".to_owned());
        (boot_code || partitions.iter().any(boots_by_itself), true)
    } else {
        let partitions = tables.mbr.unwrap_or_default();
        if !partitions.is_empty() {
            found.push("mbr".to_owned());
        }
        // Firmware repairs a GPT from its backup.
        if edges.has_backup_gpt() {
            found.push("gpt (its backup only)".to_owned());
        }
        (boot_code || partitions.iter().any(boots_by_itself), !found.is_empty())
    };
    let whole = marks_of(head, tail, size);
    let inside = parts.iter().flat_map(|(_, names)| names).filter(|name| is_member(name));
    let member =
        whole.iter().any(|name| is_member(name)) || inside.into_iter().any(|name| !boots || *name != "lvm2");
    found.extend(whole.into_iter().map(str::to_owned));
    found.extend(
        parts
            .iter()
            .flat_map(|(number, names)| names.iter().map(move |name| format!("partition {number}: {name}"))),
    );
    found.truncate(REPORT_FOUND_MAX);
    let contents = match (member, boots, partitioned) {
        (true, true, _) => Contents::BootableMember,
        (true, false, _) => Contents::Member,
        (false, true, _) => Contents::Bootable,
        (false, false, true) => Contents::Partitioned,
        (false, false, false) => Contents::Data,
    };
    (contents, found)
}

/// Whether the boot sector of this file system ends in the signature of an MBR, often with code that only says that it
/// does not boot.
fn has_own_boot_sector(name: &str) -> bool {
    matches!(name, "bitlocker" | "ntfs" | "exfat" | "vfat")
}

/// Whether the first sector has the signature by which a BIOS boots it, with a plausible table and code before it.
fn has_boot_code(head: &[u8], tables: &Glance) -> bool {
    tables.mbr.is_some() && head.get(..440).is_some_and(|code| !is_zero(code))
}

/// Whether firmware or boot code looks into this partition to boot. An MBR's active flag alone boots nothing without
/// code in the first sector, which is checked separately.
fn boots_by_itself(partition: &Partition) -> bool {
    let told = partition.active && matches!(partition.kind, Kind::Gpt(_));
    partition.kind.is_esp() || partition.kind.is_bios_boot() || told
}
