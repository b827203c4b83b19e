//! Core: what the bytes at a disk's start and end mean: would firmware boot it, is it partitioned, is it part
//! of an array, what is there. Touches `marks`.
//!
//! A person decides by this whether a disk may be erased, and the server whether a machine without an order
//! is sent to its disk; so a disk counts as bootable only by what firmware itself looks for, random bytes
//! count as data, and one half of a mirror is never called a plain disk. The bytes are hostile: every offset
//! is checked.

use common::hardware::Contents;
use common::limits::REPORT_FOUND_MAX;

use super::marks::{at_end, at_start, is_member};

#[cfg(test)]
mod tests;

/// Bytes of a disk's start that are looked at.
pub const HEAD_BYTES: usize = 1 << 20;

/// Bytes of a disk's end that are looked at: as far as the marks of RAID controllers reach.
pub const TAIL_BYTES: usize = 2 << 20;

/// Bytes of a partition's start that are looked at: as far as the first uberblock of ZFS.
pub const PARTITION_BYTES: usize = 136 << 10;

/// Bytes of a partition's end that are looked at: two labels of ZFS, and what is left of a third.
pub const PARTITION_TAIL_BYTES: usize = 768 << 10;

/// Partitions that are looked into; a disk with more has enough on it to make anybody careful.
const PARTITIONS_MAX: usize = 16;

/// The most entries of a GPT that are read: what firmware must support, and all that tools make.
const ENTRIES_MAX: usize = 128;

/// GPT type of an EFI system partition, as it stands on disk.
const ESP: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";

/// GPT type of a BIOS boot partition, where GRUB keeps its core.
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// MBR partition types: EFI system, and the guard over a GPT.
const MBR_ESP: u8 = 0xef;
const PROTECTIVE: u8 = 0xee;

/// What was read of a disk.
#[derive(Debug, Clone, Copy)]
pub struct Edges<'a> {
    /// The first MiB, or all of a smaller disk.
    pub head: &'a [u8],
    /// The last bytes; none when they could not be read.
    pub tail: Option<&'a [u8]>,
    /// Bytes of the disk.
    pub size: u64,
    /// Its logical sector size.
    pub sector_bytes: u32,
}

/// A partition, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub number: usize,
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Partition {
    number: usize,
    start: u64,
    sectors: u64,
    boots: bool,
}

impl Edges<'_> {
    /// Where partitions are; at most 16.
    #[must_use]
    pub fn partitions(&self) -> Vec<Part> {
        let sector = u64::from(self.sector_bytes);
        let in_bytes = |partition: Partition| {
            let start = partition.start.checked_mul(sector).filter(|&start| start < self.size)?;
            let len = partition.sectors.saturating_mul(sector).min(self.size - start);
            Some(Part { number: partition.number, start, len })
        };
        let found = gpt(self.head, self.sector_bytes).or_else(|| mbr(self.head)).unwrap_or_default();
        found.into_iter().filter_map(in_bytes).take(PARTITIONS_MAX).collect()
    }

    /// Whether a backup of a GPT stands in the last sector.
    fn has_backup_gpt(&self) -> bool {
        let Some(tail) = self.tail else { return false };
        [self.sector_bytes as usize, 512, 4096].iter().any(|&sector| {
            tail.len().checked_sub(sector).is_some_and(|at| tail[at..].starts_with(b"EFI PART"))
        })
    }
}

/// The marks of a partition of `len` bytes, by its start and its end.
#[must_use]
pub fn marks_of(start: &[u8], end: &[u8], len: u64) -> Vec<&'static str> {
    let mut found = at_start(start);
    found.extend(at_end(end, len).into_iter().filter(|name| !at_start(start).contains(name)));
    found
}

/// What stands on a disk of which `edges` were read, and whose partitions bear the marks `parts` (by number):
/// whether it would boot, whether others depend on it, and what was recognised.
///
/// A volume group on a partition of a bootable disk is how many installers lay out a single disk, so that
/// alone makes it no member; on the whole disk, or without anything that boots, it does.
#[must_use]
pub fn look(edges: &Edges<'_>, parts: &[(usize, Vec<&'static str>)]) -> (Contents, Vec<String>) {
    let Edges { head, tail, size, sector_bytes } = *edges;
    if head.is_empty() {
        return (Contents::Unreadable, vec![]);
    }
    let tail = tail.unwrap_or_default();
    let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    if is_zero(head) && is_zero(tail) {
        return (Contents::Blank, vec![]);
    }
    let mut found: Vec<String> = vec![];
    let on_whole_disk = at_start(head);
    let boot_code = has_boot_code(head) && !on_whole_disk.iter().any(|name| has_own_boot_sector(name));
    let (boots, partitioned) = if let Some(partitions) = gpt(head, sector_bytes) {
        found.push("gpt".to_owned());
        (boot_code || partitions.iter().any(|partition| partition.boots), true)
    } else {
        let partitions = mbr(head).unwrap_or_default();
        if !partitions.is_empty() {
            found.push("mbr".to_owned());
        }
        // Firmware repairs a GPT from its backup.
        if edges.has_backup_gpt() {
            found.push("gpt (its backup only)".to_owned());
        }
        (boot_code || partitions.iter().any(|partition| partition.boots), !found.is_empty())
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

/// Whether the file system's own boot sector ends in the mark of an MBR, often with code that only says that
/// it does not boot.
fn has_own_boot_sector(name: &str) -> bool {
    matches!(name, "bitlocker" | "ntfs" | "exfat" | "vfat")
}

/// Whether the first sector has the mark by which a BIOS boots it, with a plausible table and code before it.
fn has_boot_code(head: &[u8]) -> bool {
    mbr(head).is_some() && head.get(..440).is_some_and(|code| code.iter().any(|&byte| byte != 0))
}

/// The partitions of an MBR; none if it is no MBR. The mark alone stands in one of 65,536 random sectors, so
/// all four entries must be plausible too.
fn mbr(head: &[u8]) -> Option<Vec<Partition>> {
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    let mut partitions = vec![];
    for number in 1..=4 {
        let offset = 446 + (number - 1) * 16;
        let entry: &[u8; 16] = head.get(offset..)?.first_chunk()?;
        let (status, kind) = (entry[0], entry[4]);
        let start = u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]);
        let sectors = u32::from_le_bytes([entry[12], entry[13], entry[14], entry[15]]);
        if status & 0x7f != 0 || (kind != 0 && sectors == 0) {
            return None;
        }
        if kind != 0 && kind != PROTECTIVE {
            let (start, sectors) = (u64::from(start), u64::from(sectors));
            partitions.push(Partition { number, start, sectors, boots: kind == MBR_ESP });
        }
    }
    Some(partitions)
}

/// The partitions of a GPT; none if it is no GPT.
fn gpt(head: &[u8], sector_bytes: u32) -> Option<Vec<Partition>> {
    let sector = usize::try_from(sector_bytes).ok()?;
    let header = head.get(sector..)?;
    if header.get(..8) != Some(b"EFI PART") {
        return None;
    }
    let field = |offset: usize| -> Option<u64> {
        Some(u32::from_le_bytes(*header.get(offset..)?.first_chunk()?).into())
    };
    let lba = u64::from_le_bytes(*header.get(72..)?.first_chunk()?);
    let first = usize::try_from(lba).ok()?.checked_mul(sector)?;
    let count = usize::try_from(field(80)?).ok()?.min(ENTRIES_MAX);
    let entry_bytes = usize::try_from(field(84)?).ok()?;
    if !(128..=4096).contains(&entry_bytes) {
        return None;
    }
    let mut partitions = vec![];
    for index in 0..count {
        let offset = first.checked_add(index * entry_bytes)?;
        // A table that goes on beyond what we read is still one.
        let Some(entry) = head.get(offset..).and_then(|rest| rest.first_chunk::<128>()) else { break };
        let kind = &entry[..16];
        if kind == [0; 16] {
            continue;
        }
        let start = u64::from_le_bytes(*entry[32..].first_chunk()?);
        let last = u64::from_le_bytes(*entry[40..].first_chunk()?);
        let sectors = last.saturating_sub(start).saturating_add(1);
        let legacy_bootable = entry[48] & 0b100 != 0;
        let boots = kind == ESP || kind == BIOS_BOOT || legacy_bootable;
        partitions.push(Partition { number: index + 1, start, sectors, boots });
    }
    Some(partitions)
}
