//! Core: what an image says of itself in its first chunk: how it is divided, for which sector size, what would
//! boot it, and whether its end is missing. Reads hostile bytes; every offset is checked. Touches nothing.
//!
//! A GPT stands in the second sector, so the place of its signature tells the sector size (UEFI 2.10, 5.3.2).

use super::info::PartitionTable;

/// The EFI system partition's type, as it stands in the table (UEFI 2.10, table 5-7).
const EFI_SYSTEM: [u8; 16] =
    guid(0xC12A_7328, 0xF81F, 0x11D2, [0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B]);
/// GRUB's place for its core on a GPT disk: "Hah!IdontNeedEFI".
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";
/// A GPT's header is at least this long (UEFI 2.10, table 5-5).
const HEADER_BYTES: usize = 92;
/// Tables have 128 entries of 128 bytes; more than this is nobody's.
const ENTRIES_MAX: u32 = 1024;

/// What the first chunk says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// How it is divided.
    pub table: PartitionTable,
    /// The sector size that the table's place shows; none without a GPT.
    pub sector_bytes: Option<u32>,
    /// Whether a BIOS finds something to run.
    pub boots_bios: bool,
    /// Whether there is an EFI system partition.
    pub boots_uefi: bool,
    /// The partition that ends last, by number from 1, and the byte after its end.
    pub last_end: Option<(u32, u64)>,
    /// What an admin should know.
    pub notes: Vec<String>,
}

impl Facts {
    /// The facts in `first`, the image's first chunk (shorter if the image is).
    pub(super) fn of(first: &[u8]) -> Self {
        let boot_code = boot_code(first);
        let mut damaged = None;
        for sector in [512u32, 4096] {
            match gpt(first, sector, boot_code) {
                Gpt::Whole(facts) => return facts,
                Gpt::Damaged => damaged = damaged.or(Some(sector)),
                Gpt::Absent => {}
            }
        }
        let mut facts = mbr(first, boot_code);
        if let Some(sector) = damaged {
            facts.table = PartitionTable::Gpt;
            facts.sector_bytes = Some(sector);
            facts.notes.push("its GUID partition table is damaged (wrong checksum)".to_owned());
        }
        if facts.table == PartitionTable::None {
            facts
                .notes
                .push("it has no partition table that is known; it will be written as it is".to_owned());
        }
        facts
    }
}

enum Gpt {
    Absent,
    Damaged,
    Whole(Facts),
}

/// Reads the GPT for sectors of `sector` bytes.
fn gpt(first: &[u8], sector: u32, boot_code: bool) -> Gpt {
    let header_at = sector as usize;
    let Some(header) = first.get(header_at..header_at + HEADER_BYTES) else { return Gpt::Absent };
    if !header.starts_with(b"EFI PART") {
        return Gpt::Absent;
    }
    let header_bytes = u32_at(header, 12) as usize;
    let (entry_lba, entries, entry_bytes) = (u64_at(header, 72), u32_at(header, 80), u32_at(header, 84));
    let checked = (HEADER_BYTES..=sector as usize).contains(&header_bytes)
        && first.get(header_at..header_at + header_bytes).is_some_and(|whole| {
            let mut whole = whole.to_vec();
            whole[16..20].fill(0);
            crc32(&whole) == u32_at(header, 16)
        });
    if !checked || entries > ENTRIES_MAX || !(128..=4096).contains(&entry_bytes) {
        return Gpt::Damaged;
    }
    let table = entry_lba
        .checked_mul(u64::from(sector))
        .and_then(|at| usize::try_from(at).ok())
        .and_then(|at| first.get(at..)?.get(..entries as usize * entry_bytes as usize));
    let Some(table) = table.filter(|table| crc32(table) == u32_at(header, 88)) else { return Gpt::Damaged };

    let mut facts = Facts {
        table: PartitionTable::Gpt,
        sector_bytes: Some(sector),
        boots_bios: false,
        boots_uefi: false,
        last_end: None,
        notes: Vec::new(),
    };
    let mut bios_place = false;
    for (number, entry) in (1u32..).zip(table.chunks_exact(entry_bytes as usize)) {
        let kind = &entry[..16];
        if kind == [0; 16] {
            continue;
        }
        facts.boots_uefi |= kind == EFI_SYSTEM;
        // Attribute bit 2, "legacy BIOS bootable", is what syslinux's code for GPT looks for.
        bios_place |= kind == BIOS_BOOT || u64_at(entry, 48) & 4 != 0;
        let ends = u64_at(entry, 40).saturating_add(1).saturating_mul(u64::from(sector));
        if facts.last_end.is_none_or(|(_, last)| ends > last) {
            facts.last_end = Some((number, ends));
        }
    }
    facts.boots_bios = boot_code && bios_place;
    Gpt::Whole(facts)
}

/// Reads the master boot record.
fn mbr(first: &[u8], boot_code: bool) -> Facts {
    let mut facts = Facts {
        table: PartitionTable::None,
        sector_bytes: None,
        boots_bios: boot_code,
        boots_uefi: false,
        last_end: None,
        notes: Vec::new(),
    };
    if first.get(510..512) != Some(&[0x55, 0xAA]) {
        return facts;
    }
    let entries: Vec<&[u8]> = first[446..510].chunks_exact(16).collect();
    // A file system's own boot sector carries the signature too, with code where the entries would be.
    let plausible = entries.iter().all(|entry| entry[0] & 0x7F == 0);
    if plausible && entries.iter().any(|entry| entry[4] != 0) {
        facts.table = PartitionTable::Mbr;
        facts.boots_uefi = entries.iter().any(|entry| entry[4] == 0xEF);
    }
    facts
}

/// Whether the first sector holds code that a BIOS would run.
fn boot_code(first: &[u8]) -> bool {
    first.get(510..512) == Some(&[0x55, 0xAA]) && first[..440].iter().any(|&byte| byte != 0)
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

/// A GUID as tables hold it: the first three fields little-endian.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// A disk of `mib` MiB with one partition of type `kind`, made by the library that the agent uses too.
    pub(in super::super) fn gpt_disk(sector: u32, mib: usize, kind: [u8; 16], code: bool) -> Vec<u8> {
        let mut disk = Cursor::new(vec![0u8; mib << 20]);
        let mut table = gptman::GPT::new_from(&mut disk, u64::from(sector), [7; 16]).unwrap();
        table.align = 8;
        let start = table.find_first_place(4).unwrap();
        table[1] = gptman::GPTPartitionEntry {
            partition_type_guid: kind,
            unique_partition_guid: [9; 16],
            starting_lba: start,
            ending_lba: table.header.last_usable_lba,
            attribute_bits: 0,
            partition_name: "one".into(),
        };
        table.write_into(&mut disk).unwrap();
        gptman::GPT::write_protective_mbr_into(&mut disk, u64::from(sector)).unwrap();
        let mut disk = disk.into_inner();
        disk[0] = u8::from(code);
        disk
    }

    #[test]
    fn the_tables_place_tells_the_sector_size() {
        for sector in [512, 4096] {
            let facts = Facts::of(&gpt_disk(sector, 1, EFI_SYSTEM, false));
            assert_eq!((facts.table, facts.sector_bytes), (PartitionTable::Gpt, Some(sector)));
            assert_eq!((facts.boots_uefi, facts.boots_bios), (true, false));
            let (number, ends) = facts.last_end.unwrap();
            assert_eq!(number, 1);
            assert!(ends < 1 << 20 && ends > 900_000, "{ends}");
        }
        let facts = Facts::of(&gpt_disk(512, 1, BIOS_BOOT, true));
        assert_eq!((facts.boots_uefi, facts.boots_bios), (false, true));
    }

    #[test]
    fn a_damaged_table_is_named() {
        let mut disk = gpt_disk(512, 1, EFI_SYSTEM, false);
        disk[1024 + 40] ^= 1;
        let facts = Facts::of(&disk);
        assert_eq!(facts.table, PartitionTable::Gpt);
        assert!(facts.notes[0].contains("damaged"), "{:?}", facts.notes);
    }

    #[test]
    fn a_master_boot_record_is_told_from_a_file_systems_boot_sector() {
        let mut sector = vec![0u8; 512];
        assert_eq!(Facts::of(&sector).table, PartitionTable::None);
        sector[510..].copy_from_slice(&[0x55, 0xAA]);
        sector[0] = 0xEB;
        let facts = Facts::of(&sector);
        assert_eq!((facts.table, facts.boots_bios), (PartitionTable::None, true));
        (sector[446], sector[450]) = (0x80, 0x83);
        assert_eq!(Facts::of(&sector).table, PartitionTable::Mbr);
        sector[446 + 20] = 0xEF;
        assert!(Facts::of(&sector).boots_uefi);
        sector[446] = 0x33;
        assert_eq!(Facts::of(&sector).table, PartitionTable::None);
    }

    proptest! {
        #[test]
        fn nonsense_is_read_without_a_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..6000),
            header in proptest::collection::vec(any::<u8>(), 92), at in prop_oneof![Just(512usize), Just(4096)],
        ) {
            if bytes.len() >= at + 92 {
                bytes[at..at + 92].copy_from_slice(&header);
                bytes[at..at + 8].copy_from_slice(b"EFI PART");
            }
            Facts::of(&bytes);
        }
    }
}
