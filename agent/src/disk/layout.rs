//! Core: partition tables as bytes. Takes the image's first MiB, moves the backup GPT to the disk's true end
//! and finds room for cloud-init's partition: at the very end, so that the image's last partition stays free
//! to grow up to it; in a gap where the disk is tight. Bytes in, bytes out; bounds before allocation, because
//! an image can be anybody's.

use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::ops::Range;

use gptman::{GPTHeader, GPTPartitionEntry};

/// The sizes that cloud-init's partition may have, best first. The smallest holds the longest user-data.
pub const PARTITION_BYTES: [u64; 2] = [4 << 20, 1 << 20];

/// Partitions begin at whole MiB, as every partitioning program has done since disks have 4096-byte sectors.
const ALIGN_BYTES: u64 = 1 << 20;

/// Entries of a GPT that are read: the standard has 128, nobody has more than a few times that.
const ENTRIES_MAX: u32 = 1024;

/// "Microsoft basic data", what every OS takes for a FAT: EBD0A0A2-B9E5-4433-87C0-68B6B72699C7 as it stands
/// on the disk.
const BASIC_DATA: [u8; 16] =
    [0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7];

/// The MBR's types: FAT16 by LBA, and the one entry of a disk with a GPT.
const MBR_FAT16: u8 = 0x0e;
const MBR_PROTECTIVE: u8 = 0xee;

/// Why a disk cannot be personalised.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Nothing to add a partition to.
    #[error(
        "the image has no partition table, so there is no place for the hostname and keys; leave the step `personalise` out of its profile"
    )]
    NoTable,
    /// A table that cannot be believed.
    #[error("the image's partition table is damaged: {0}")]
    Damaged(String),
    /// The GPT could not be read or written.
    #[error("the image's GPT is damaged")]
    Gpt(#[source] gptman::Error),
    /// The MBR could not be read or written.
    #[error("the image's MBR is damaged")]
    Mbr(#[source] mbrman::Error),
    /// A partition would lie under the backup table, or past the end.
    #[error("partition {number} of the image ends at sector {end}, the disk has room up to sector {last}")]
    TooSmall {
        /// The partition.
        number: u32,
        /// Its last sector.
        end: u64,
        /// The last sector that partitions may use.
        last: u64,
    },
    /// No entry is free.
    #[error("all {0} partition entries of the image are taken; one is needed for cloud-init")]
    NoEntry(u32),
    /// No room is free.
    #[error("the disk has no {} KiB left for cloud-init's partition", PARTITION_BYTES[1] >> 10)]
    NoRoom,
}

/// What the disk is to have besides the image's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The first MiB with the changed table.
    pub first: Vec<u8>,
    /// The backup GPT: offset and bytes; none for an MBR.
    pub backup: Option<(u64, Vec<u8>)>,
    /// The bytes of cloud-init's partition.
    pub partition: Range<u64>,
}

/// The layout of a disk of `disk_bytes` with sectors of `sector_bytes` for the image that begins with `first`.
/// `guid` is the new partition's own.
///
/// # Errors
/// When the image has no partition table or a damaged one, or there is no room.
pub fn lay_out(
    first: &[u8],
    disk_bytes: u64,
    sector_bytes: u32,
    guid: [u8; 16],
) -> Result<Layout, LayoutError> {
    let sector = sector_bytes as usize;
    if first.get(sector..sector + 8) == Some(b"EFI PART") {
        with_gpt(first, disk_bytes, u64::from(sector_bytes), guid)
    } else if first.get(510..512) == Some(&[0x55, 0xaa]) {
        with_mbr(first, disk_bytes, u64::from(sector_bytes))
    } else {
        Err(LayoutError::NoTable)
    }
}

fn with_gpt(first: &[u8], disk_bytes: u64, sector: u64, guid: [u8; 16]) -> Result<Layout, LayoutError> {
    let (mut header, mut entries) = read_gpt(first, sector)?;
    let array_bytes =
        u64::from(header.number_of_partition_entries) * u64::from(header.size_of_partition_entry);
    let array_sectors = array_bytes.div_ceil(sector);
    let last = disk_bytes / sector - 1;
    let last_usable = last
        .checked_sub(array_sectors + 1)
        .filter(|&usable| usable > header.first_usable_lba)
        .ok_or(LayoutError::NoRoom)?;
    let mut used = Vec::new();
    for (number, entry) in (1u32..).zip(&entries).filter(|(_, entry)| entry.is_used()) {
        if entry.ending_lba < entry.starting_lba {
            return Err(LayoutError::Damaged(format!("partition {number} ends before it begins")));
        }
        if entry.ending_lba > last_usable {
            return Err(LayoutError::TooSmall { number, end: entry.ending_lba, last: last_usable });
        }
        used.push(entry.starting_lba..entry.ending_lba + 1);
    }
    let place = find_room(&used, header.first_usable_lba..last_usable + 1, sector)?;
    let free = entries.iter_mut().find(|entry| entry.is_unused());
    let free = free.ok_or(LayoutError::NoEntry(header.number_of_partition_entries))?;
    *free = GPTPartitionEntry {
        partition_type_guid: BASIC_DATA,
        unique_partition_guid: guid,
        starting_lba: place.start,
        ending_lba: place.end - 1,
        attribute_bits: 0,
        partition_name: "cidata".into(),
    };

    header.primary_lba = 1;
    header.backup_lba = last;
    header.last_usable_lba = last_usable;
    let mut primary = Window { base: 0, at: 0, bytes: first.to_vec() };
    header.write_into(&mut primary, sector, &entries).map_err(LayoutError::Gpt)?;
    protect(&mut primary.bytes, last);

    header.primary_lba = last;
    header.backup_lba = 1;
    header.partition_entry_lba = last - array_sectors;
    let base = header.partition_entry_lba * sector;
    let tail_bytes = usize::try_from((array_sectors + 1) * sector).unwrap_or(usize::MAX);
    let mut backup = Window { base, at: 0, bytes: vec![0; tail_bytes] };
    header.write_into(&mut backup, sector, &entries).map_err(LayoutError::Gpt)?;
    let partition = place.start * sector..place.end * sector;
    Ok(Layout { first: primary.bytes, backup: Some((base, backup.bytes)), partition })
}

/// The primary header and its entries, all within `first`.
fn read_gpt(first: &[u8], sector: u64) -> Result<(GPTHeader, Vec<GPTPartitionEntry>), LayoutError> {
    let at = usize::try_from(sector).unwrap_or(usize::MAX);
    let header = GPTHeader::read_from(&mut Cursor::new(&first[at..])).map_err(LayoutError::Gpt)?;
    let (count, size) = (header.number_of_partition_entries, header.size_of_partition_entry);
    // gptman allocates by these numbers and reads 128 bytes per entry, so they are checked before.
    if count == 0 || count > ENTRIES_MAX || size != 128 {
        return Err(LayoutError::Damaged(format!("{count} entries of {size} bytes")));
    }
    let end = header.partition_entry_lba.checked_mul(sector).and_then(|start| {
        let end = start.checked_add(u64::from(count) * u64::from(size))?;
        (header.partition_entry_lba >= 2 && end <= first.len() as u64).then_some(end)
    });
    let Some(end) = end else {
        return Err(LayoutError::Damaged("its entries are not in the first MiB".to_owned()));
    };
    if header.first_usable_lba < end.div_ceil(sector) {
        return Err(LayoutError::Damaged("its entries lie where partitions may".to_owned()));
    }
    let entries = header.read_partitions(&mut Cursor::new(first), sector).map_err(LayoutError::Gpt)?;
    Ok((header, entries))
}

/// Lets the protective MBR's entry span the disk, as firmware that checks it expects.
fn protect(first: &mut [u8], last: u64) {
    if first[510..512] == [0x55, 0xaa] && first[446 + 4] == MBR_PROTECTIVE {
        let sectors = u32::try_from(last).unwrap_or(u32::MAX);
        first[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    }
}

fn with_mbr(first: &[u8], disk_bytes: u64, sector: u64) -> Result<Layout, LayoutError> {
    let mut header = mbrman::MBRHeader::read_from(&mut Cursor::new(first)).map_err(LayoutError::Mbr)?;
    // An MBR counts sectors in 32 bits: what lies behind is out of its reach.
    let end = (disk_bytes / sector).min(u64::from(u32::MAX));
    let mut used = Vec::new();
    for (number, entry) in (1u32..).zip(header.iter().map(|(_, entry)| entry)) {
        if entry.sys == 0 {
            continue;
        }
        if entry.sys == MBR_PROTECTIVE {
            return Err(LayoutError::Damaged("it announces a GPT that is not there".to_owned()));
        }
        let (start, sectors) = (u64::from(entry.starting_lba), u64::from(entry.sectors));
        // A FAT or NTFS boot sector ends with the same two bytes; its code makes no sense as partitions.
        if !matches!(entry.boot, 0 | 0x80) || start == 0 || sectors == 0 {
            return Err(LayoutError::NoTable);
        }
        if start + sectors > end {
            return Err(LayoutError::TooSmall { number, end: start + sectors - 1, last: end - 1 });
        }
        used.push(start..start + sectors);
    }
    if used.is_empty() {
        return Err(LayoutError::NoTable);
    }
    let place = find_room(&used, ALIGN_BYTES / sector..end, sector)?;
    let free = header.iter_mut().map(|(_, entry)| entry).find(|entry| entry.sys == 0);
    let free = free.ok_or(LayoutError::NoEntry(4))?;
    *free = mbrman::MBRPartitionEntry {
        boot: mbrman::BOOT_INACTIVE,
        first_chs: mbrman::CHS::empty(),
        sys: MBR_FAT16,
        last_chs: mbrman::CHS::empty(),
        starting_lba: u32::try_from(place.start).unwrap_or(u32::MAX),
        sectors: u32::try_from(place.end - place.start).unwrap_or(u32::MAX),
    };
    let mut changed = Window { base: 0, at: 0, bytes: first.to_vec() };
    header.write_into(&mut changed).map_err(LayoutError::Mbr)?;
    let partition = place.start * sector..place.end * sector;
    Ok(Layout { first: changed.bytes, backup: None, partition })
}

/// The highest free place within `usable`, aligned, as large as can be had.
fn find_room(used: &[Range<u64>], usable: Range<u64>, sector: u64) -> Result<Range<u64>, LayoutError> {
    let align = ALIGN_BYTES / sector;
    let ceilings = || used.iter().map(|range| range.start).chain([usable.end]);
    for bytes in PARTITION_BYTES {
        let sectors = bytes / sector;
        let free = ceilings()
            .filter_map(|ceiling| ceiling.min(usable.end).checked_sub(sectors))
            .map(|start| start / align * align)
            .filter(|&start| start >= usable.start)
            .filter(|&start| used.iter().all(|range| start + sectors <= range.start || range.end <= start))
            .max();
        if let Some(start) = free {
            return Ok(start..start + sectors);
        }
    }
    Err(LayoutError::NoRoom)
}

/// A part of the disk that can be written to by the disk's own offsets, and nowhere else.
struct Window {
    base: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Write for Window {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let start = self.at.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        let place = start.and_then(|start| self.bytes.get_mut(start..start.checked_add(from.len())?));
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(from);
        self.at += from.len() as u64;
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => (self.base + self.bytes.len() as u64).checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a table with one partition is a list of one range")]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// The first MiB of an image of `bytes` with a GPT and partitions at these MiB.
    fn gpt_image(bytes: u64, sector: u64, partitions: &[Range<u64>]) -> Vec<u8> {
        let mut disk = Cursor::new(vec![0; usize::try_from(bytes).unwrap()]);
        let mut gpt = gptman::GPT::new_from(&mut disk, sector, [7; 16]).unwrap();
        for (number, range) in (1..).zip(partitions) {
            gpt[number] = GPTPartitionEntry {
                partition_type_guid: BASIC_DATA,
                unique_partition_guid: [u8::try_from(number).unwrap(); 16],
                starting_lba: range.start * MIB / sector,
                ending_lba: (range.end * MIB / sector - 1).min(gpt.header.last_usable_lba),
                attribute_bits: 0,
                partition_name: "root".into(),
            };
        }
        gpt.write_into(&mut disk).unwrap();
        gptman::GPT::write_protective_mbr_into(&mut disk, sector).unwrap();
        let mut first = disk.into_inner();
        first.truncate(1 << 20);
        first
    }

    fn mbr_image(partitions: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut first = vec![0; 1 << 20];
        for (at, (sys, start, sectors)) in partitions.iter().enumerate() {
            let entry = &mut first[446 + 16 * at..][..16];
            entry[4] = *sys;
            entry[8..12].copy_from_slice(&start.to_le_bytes());
            entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        }
        first[510..512].copy_from_slice(&[0x55, 0xaa]);
        first
    }

    #[test]
    fn where_the_partition_goes() {
        // (image MiB, its partitions, disk MiB, where in MiB; none where it is refused)
        type Row<'a> = (u64, &'a [Range<u64>], u64, Option<Range<u64>>);
        let table: [Row<'_>; 6] = [
            (16, &[1..16], 64, Some(59..63)),
            (16, &[1..16], 17, None),
            (16, &[1..4, 10..16], 16, Some(6..10)),
            (16, &[1..4, 5..16], 16, Some(4..5)),
            (16, &[1..16], 16, None),
            (16, &[1..4, 4..8], 1000, Some(995..999)),
        ];
        for sector in [512, 4096] {
            for (image, partitions, disk, place) in &table {
                let first = gpt_image(image * MIB, u64::from(sector), partitions);
                let got = lay_out(&first, disk * MIB, sector, [9; 16]).ok().map(|layout| layout.partition);
                let wanted = place.clone().map(|place| place.start * MIB..place.end * MIB);
                assert_eq!(got, wanted, "{partitions:?} of {image} on {disk}, sectors of {sector}");
            }
        }
    }

    #[test]
    fn others_find_nothing_wrong_with_the_table() {
        let size = 100 * MIB;
        let first = gpt_image(16 * MIB, 512, &[1..2, 2..16]);
        let layout = lay_out(&first, size, 512, [9; 16]).unwrap();
        let mut disk = vec![0; usize::try_from(size).unwrap()];
        disk[..layout.first.len()].copy_from_slice(&layout.first);
        let (offset, backup) = layout.backup.unwrap();
        disk[usize::try_from(offset).unwrap()..].copy_from_slice(&backup);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, &disk).unwrap();
        let read = gptman::GPT::find_from(&mut Cursor::new(&disk)).unwrap();
        assert_eq!(read[3].partition_name.as_str(), "cidata");

        let Ok(said) = Command::new("sgdisk").arg("-v").arg(&path).output() else {
            println!("left out: sgdisk is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("No problems found"), "{said}");
    }

    #[test]
    fn an_mbr_gets_a_fourth_partition_or_a_reason() {
        let layout = lay_out(&mbr_image(&[(0x83, 2048, 20480)]), 64 * MIB, 512, [0; 16]).unwrap();
        assert_eq!(layout.partition, 60 * MIB..64 * MIB);
        assert!(layout.backup.is_none());
        let entry = &layout.first[446 + 16..][..16];
        assert_eq!((entry[4], &entry[8..12]), (MBR_FAT16, &(60 * 2048u32).to_le_bytes()[..]));
        assert_eq!(layout.first[446..462], mbr_image(&[(0x83, 2048, 20480)])[446..462]);

        let full = mbr_image(&[(0x83, 2048, 8), (0x83, 4096, 8), (0x83, 8192, 8), (0x83, 10240, 8)]);
        assert!(matches!(lay_out(&full, 64 * MIB, 512, [0; 16]), Err(LayoutError::NoEntry(4))));
        let large = mbr_image(&[(0x83, 2048, 1 << 20)]);
        assert!(matches!(lay_out(&large, 64 * MIB, 512, [0; 16]), Err(LayoutError::TooSmall { .. })));
        let tight = mbr_image(&[(0x83, 2048, 63 * 2048)]);
        assert!(matches!(lay_out(&tight, 64 * MIB, 512, [0; 16]), Err(LayoutError::NoRoom)));
        // 4 TiB: behind what an MBR can name, so it goes before.
        let vast = lay_out(&mbr_image(&[(0x83, 2048, 8)]), 4 << 40, 512, [0; 16]).unwrap();
        assert!(vast.partition.end <= u64::from(u32::MAX) * 512);
    }

    #[test]
    fn what_is_no_table_is_refused_in_words() {
        let no_table =
            |first: &[u8]| matches!(lay_out(first, 64 * MIB, 512, [0; 16]), Err(LayoutError::NoTable));
        assert!(no_table(&[]) && no_table(&[0; 512]) && no_table(&[0; 1 << 20]));
        assert!(no_table(&mbr_image(&[])));
        let mut damaged = gpt_image(16 * MIB, 512, &[1..16]);
        damaged[600] ^= 1;
        assert!(matches!(lay_out(&damaged, 64 * MIB, 512, [0; 16]), Err(LayoutError::Gpt(_))));
    }

    #[test]
    fn a_table_with_absurd_numbers_allocates_nothing() {
        for (at, value) in [(80, u32::MAX), (84, u32::MAX), (84, 1), (72, u32::MAX)] {
            let mut first = gpt_image(16 * MIB, 512, &[1..16]);
            first[512 + at..512 + at + 4].copy_from_slice(&value.to_le_bytes());
            first[512 + 16..512 + 20].fill(0);
            let sum = crc32fast::hash(&first[512..512 + 92]);
            first[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
            assert!(lay_out(&first, 64 * MIB, 512, [0; 16]).is_err(), "{value} at {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_bytes_make_it_panic(
            flips in proptest::collection::vec((0usize..2048, any::<u8>()), 0..8),
            len in 0usize..=1 << 20, disk in 0u64..1 << 40, sector in prop_oneof![Just(512u32), Just(4096)],
        ) {
            for mut first in [gpt_image(16 * MIB, u64::from(sector), &[1..16]), mbr_image(&[(0x83, 2048, 8)])] {
                for &(at, value) in &flips {
                    first[at] = value;
                }
                drop(lay_out(&first, disk, sector, [1; 16]));
                drop(lay_out(&first[..len], disk, sector, [1; 16]));
            }
        }
    }
}
