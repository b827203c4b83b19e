//! Core: what the bytes at a disk's start mean: would firmware boot it, is it partitioned, what is there.
//!
//! A person decides by this whether a disk may be erased, and the server whether a machine without an order
//! is sent to its disk; so a disk counts as bootable only by what firmware itself looks for, and random bytes
//! count as data. The bytes are hostile: every offset is checked.

use common::hardware::Contents;

#[cfg(test)]
mod tests;

/// Bytes of a disk's start that are looked at.
pub const HEAD_BYTES: usize = 1 << 20;

/// Bytes of a partition's start that are looked at: as far as the first uberblock of ZFS.
pub const PARTITION_BYTES: usize = 136 << 10;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Partition {
    number: usize,
    start: u64,
    boots: bool,
}

/// What stands in `head`, the first MiB of a disk (or all of a smaller one): whether it would boot, and what
/// was recognised.
#[must_use]
pub fn look(head: &[u8], sector_bytes: u32) -> (Contents, Vec<String>) {
    if head.is_empty() {
        return (Contents::Unreadable, vec![]);
    }
    if head.iter().all(|&byte| byte == 0) {
        return (Contents::Blank, vec![]);
    }
    let mut found: Vec<String> = vec![];
    let on_whole_disk = signatures(head);
    let boot_code = has_boot_code(head) && !on_whole_disk.iter().any(|name| has_own_boot_sector(name));
    let contents = if let Some(partitions) = gpt(head, sector_bytes) {
        found.push("gpt".to_owned());
        let bootable = boot_code || partitions.iter().any(|partition| partition.boots);
        if bootable { Contents::Bootable } else { Contents::Partitioned }
    } else if let Some(partitions) = mbr(head) {
        if !partitions.is_empty() {
            found.push("mbr".to_owned());
        }
        match (boot_code || partitions.iter().any(|partition| partition.boots), partitions.is_empty()) {
            (true, _) => Contents::Bootable,
            (false, false) => Contents::Partitioned,
            (false, true) => Contents::Data,
        }
    } else {
        Contents::Data
    };
    found.extend(on_whole_disk.into_iter().map(str::to_owned));
    (contents, found)
}

/// Where partitions begin, in bytes, with their numbers; at most 16.
#[must_use]
pub fn partitions(head: &[u8], sector_bytes: u32) -> Vec<(usize, u64)> {
    let sector = u64::from(sector_bytes);
    gpt(head, sector_bytes)
        .or_else(|| mbr(head))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|partition| Some((partition.number, partition.start.checked_mul(sector)?)))
        .filter(|&(_, start)| i64::try_from(start).is_ok())
        .take(PARTITIONS_MAX)
        .collect()
}

/// The file systems and layers whose marks stand in `bytes`, the start of a disk or partition.
#[must_use]
pub fn signatures(bytes: &[u8]) -> Vec<&'static str> {
    let at = |offset: usize, mark: &[u8]| bytes.get(offset..offset + mark.len()) == Some(mark);
    let lvm = (0..4).any(|sector| at(sector * 512, b"LABELONE") && at(sector * 512 + 24, b"LVM2 001"));
    let md = at(0, &0xa92b_4efc_u32.to_le_bytes()) || at(4096, &0xa92b_4efc_u32.to_le_bytes());
    // Labels of ZFS hold a ring of uberblocks from 128 KiB on, one at least every KiB to 8 KiB.
    let zfs = (128..136).any(|kib| {
        at(kib << 10, &0x00ba_b10c_u64.to_le_bytes()) || at(kib << 10, &0x00ba_b10c_u64.to_be_bytes())
    });
    let ext = at(0x438, &[0x53, 0xef]);
    // The feature `extents` (0x40 of the incompatible ones) is what makes an ext4.
    let extents = bytes.get(0x460).is_some_and(|features| features & 0x40 != 0);
    let table = [
        ("luks", at(0, b"LUKS\xba\xbe")),
        ("lvm2", lvm),
        ("md raid", md),
        ("zfs", zfs),
        ("bitlocker", at(3, b"-FVE-FS-")),
        ("ntfs", at(3, b"NTFS    ")),
        ("exfat", at(3, b"EXFAT   ")),
        ("vfat", at(82, b"FAT32   ") || at(54, b"FAT16   ") || at(54, b"FAT12   ")),
        ("ext4", ext && extents),
        ("ext2", ext && !extents),
        ("xfs", at(0, b"XFSB")),
        ("btrfs", at(0x1_0040, b"_BHRfS_M")),
        ("swap", at(4086, b"SWAPSPACE2")),
        ("iso9660", at(0x8001, b"CD001")),
        ("squashfs", at(0, b"hsqs")),
    ];
    table.into_iter().filter(|&(_, there)| there).map(|(name, _)| name).collect()
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
            partitions.push(Partition { number, start: u64::from(start), boots: kind == MBR_ESP });
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
        let legacy_bootable = entry[48] & 0b100 != 0;
        let boots = kind == ESP || kind == BIOS_BOOT || legacy_bootable;
        partitions.push(Partition { number: index + 1, start, boots });
    }
    Some(partitions)
}
