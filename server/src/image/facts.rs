//! Core: what the first chunk of an image shows: its partition table, for which sector size, and what would boot it.
//! The tables are parsed by the code that changes them later on the machines. Touches nothing.

use common::table::{self, LayoutError, Partition, Table, TableError, layout};

use super::info::PartitionTable;
use crate::api::shapes::BiosBoot;

/// What the first chunk of an image shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The parsed partition table.
    pub table: Table,
    /// The sector size in bytes, from the place of the GPT; `None` without a GPT.
    pub sector_bytes: Option<u32>,
    /// Whether the first sector holds code that a BIOS would run.
    pub boot_code: bool,
    /// Oddities that an admin should know of, each in a sentence.
    pub notes: Vec<String>,
}

impl Facts {
    /// Parses `first`, the image's first chunk (shorter if the image is).
    ///
    /// # Errors
    /// When there is a partition table that neither firmware nor kernels would read.
    pub(super) fn of(first: &[u8]) -> Result<Self, TableError> {
        let (table, sector_bytes) = table::read_any(first)?;
        let notes = notes(&table);
        Ok(Self { boot_code: boot_code(first), notes, table, sector_bytes })
    }

    /// Whether a BIOS would find boot code, and that code its next part.
    pub(super) fn bios(&self) -> BiosBoot {
        let place = |it: &Partition| it.kind.is_bios_boot() || it.active;
        match &self.table {
            _ if !self.boot_code => BiosBoot::NoCode,
            Table::Gpt(gpt) if !gpt.partitions().iter().any(place) => BiosBoot::NoPlace,
            _ => BiosBoot::Yes,
        }
    }

    /// Whether there is an EFI system partition.
    pub(super) fn has_esp(&self) -> bool {
        self.table.partitions().iter().any(|partition| partition.kind.is_esp())
    }

    /// The kind of the partition table.
    pub(super) fn kind(&self) -> PartitionTable {
        match self.table {
            Table::Gpt(_) => PartitionTable::Gpt,
            Table::Mbr(_) => PartitionTable::Mbr,
            Table::None => PartitionTable::None,
        }
    }

    /// The number of the partition that ends last, and the byte after its end.
    pub(super) fn last_end(&self, sector_bytes: u32) -> Option<(u32, u64)> {
        let last = self.table.partitions().iter().max_by_key(|partition| partition.end)?;
        Some((last.number, last.end.saturating_mul(u64::from(sector_bytes))))
    }
}

/// Why an image of `size` bytes that begins with `first` cannot be personalised on any disk of its sector size.
pub(super) fn not_personalised(first: &[u8], size: u64, sector_bytes: u32) -> Option<LayoutError> {
    layout::lay_out(first, size.saturating_add(layout::ROOM_BYTES), sector_bytes, [1; 16]).err()
}

/// Oddities of a table that can be used all the same.
fn notes(table: &Table) -> Vec<String> {
    let mut notes = vec![];
    if let Some((one, two)) = table.overlap() {
        notes.push(format!("its partitions {one} and {two} lie over each other"));
    }
    let early = |start: u64| match table {
        Table::Gpt(gpt) => start < gpt.first_usable(),
        Table::Mbr(_) | Table::None => start == 0,
    };
    if let Some(over) = table.partitions().iter().find(|partition| early(partition.start)) {
        notes.push(format!("its partition {} begins within the partition table", over.number));
    }
    if let Table::Gpt(gpt) = table
        && gpt.own_sector() != 1
    {
        notes.push(format!(
            "its GPT says that it stands at sector {}: it is read only where it is personalised, which mends it",
            gpt.own_sector()
        ));
    }
    notes
}

/// Whether the first sector holds code that a BIOS would run.
fn boot_code(first: &[u8]) -> bool {
    first.get(510..512) == Some(&[0x55, 0xAA]) && first[..440].iter().any(|&byte| byte != 0)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// The type of the EFI system partition, and of GRUB's partition for its core.
    const EFI_SYSTEM: [u8; 16] =
        [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
    const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

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
            let facts = Facts::of(&gpt_disk(sector, 1, EFI_SYSTEM, false)).unwrap();
            assert_eq!((facts.kind(), facts.sector_bytes), (PartitionTable::Gpt, Some(sector)));
            assert_eq!((facts.has_esp(), facts.bios()), (true, BiosBoot::NoCode));
            let (number, ends) = facts.last_end(sector).unwrap();
            assert_eq!(number, 1);
            assert!(ends < 1 << 20 && ends > 900_000, "{ends}");
        }
        let facts = Facts::of(&gpt_disk(512, 1, BIOS_BOOT, true)).unwrap();
        assert_eq!((facts.has_esp(), facts.bios()), (false, BiosBoot::Yes));
    }

    #[test]
    fn what_is_odd_is_noted_and_what_is_damaged_refused() {
        let mut disk = gpt_disk(512, 1, EFI_SYSTEM, false);
        assert_eq!(Facts::of(&disk).unwrap().notes, Vec::<String>::new());
        disk[1024 + 40] ^= 1;
        assert_eq!(Facts::of(&disk), Err(TableError::Checksum("entries")));
        let mut mbr = vec![0u8; 1024];
        mbr[510..512].copy_from_slice(&[0x55, 0xAA]);
        for (at, start) in [(446, 0u32), (462, 4)] {
            mbr[at + 4] = 0x83;
            mbr[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            mbr[at + 12..at + 16].copy_from_slice(&8u32.to_le_bytes());
        }
        let notes = Facts::of(&mbr).unwrap().notes;
        assert!(notes[0].contains("1 and 2") && notes[1].contains("partition 1 begins within"), "{notes:?}");
        assert!(not_personalised(&mbr, 1 << 20, 512).is_some());
    }

    #[test]
    fn a_master_boot_record_is_told_from_a_file_systems_boot_sector() {
        let kind = |sector: &[u8]| Facts::of(sector).unwrap().kind();
        let mut sector = vec![0u8; 512];
        assert_eq!(kind(&sector), PartitionTable::None);
        sector[510..].copy_from_slice(&[0x55, 0xAA]);
        sector[0] = 0xEB;
        let facts = Facts::of(&sector).unwrap();
        assert_eq!((facts.kind(), facts.bios()), (PartitionTable::None, BiosBoot::Yes));
        (sector[446], sector[450], sector[458]) = (0x80, 0x83, 9);
        assert_eq!(kind(&sector), PartitionTable::Mbr);
        (sector[446 + 20], sector[446 + 28]) = (0xEF, 9);
        assert!(Facts::of(&sector).unwrap().has_esp());
        sector[446] = 0x33;
        assert_eq!(kind(&sector), PartitionTable::None);
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
            drop(Facts::of(&bytes));
        }
    }
}
