//! Tests of the tables: each row is one input from a public bug report or a variant of one, and the expected result.

#![expect(clippy::single_range_in_vec_init, reason = "a table with one partition is a list of one range")]

use std::io::Cursor;
use std::ops::Range;
use std::process::Command;

use proptest::prelude::*;

use super::partition::u32_at;
use super::*;

const MIB: u64 = 1 << 20;
const DATA: [u8; 16] = [0xaf; 16];

/// A GPT to be written as a disk's first MiB; each fault that a test wants is a field.
#[derive(Debug, Clone)]
struct Made {
    sector: u32,
    disk_bytes: u64,
    header_bytes: u32,
    revision: u32,
    own: u64,
    entries_at: u64,
    count: u32,
    size: u32,
    first_usable: u64,
    last_usable: u64,
    /// First and last sector of each partition; none leaves its entry free.
    partitions: Vec<Option<(u64, u64)>>,
}

impl Made {
    /// 64 MiB, partitions at 1 to 9 and 9 to 25 MiB.
    fn good() -> Self {
        Self::of(512, 64 * MIB, &[1..9, 9..25])
    }

    fn of(sector: u32, disk_bytes: u64, partitions: &[Range<u64>]) -> Self {
        let per_mib = MIB / u64::from(sector);
        let last = disk_bytes / u64::from(sector) - 1;
        let array = (16384 / u64::from(sector)).max(1);
        Self {
            sector,
            disk_bytes,
            header_bytes: 92,
            revision: 0x10000,
            own: 1,
            entries_at: 2,
            count: 128,
            size: 128,
            first_usable: 2 + array,
            last_usable: last - array - 1,
            partitions: partitions
                .iter()
                .map(|range| Some((range.start * per_mib, (range.end * per_mib - 1).min(last - array - 1))))
                .collect(),
        }
    }

    fn write(&self) -> Vec<u8> {
        let sector = self.sector as usize;
        let mut array = vec![0; self.count as usize * self.size as usize];
        for (at, partition) in self.partitions.iter().enumerate() {
            let Some((start, last)) = partition else { continue };
            let entry = &mut array[at * self.size as usize..][..128];
            entry[..16].copy_from_slice(&DATA);
            entry[16..32].fill(u8::try_from(at + 1).unwrap());
            entry[32..40].copy_from_slice(&start.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            entry[56] = b'r';
        }
        let mut first = vec![0; FIRST_BYTES];
        first[..512]
            .copy_from_slice(&mbr(&[(0, 0xee, 1, u32::try_from(self.disk_bytes / 512 - 1).unwrap())])[..512]);
        let header = &mut first[sector..2 * sector];
        header[..8].copy_from_slice(b"EFI PART");
        for (at, value) in [(8, self.revision), (12, self.header_bytes), (80, self.count), (84, self.size)] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let last = self.disk_bytes / u64::from(self.sector) - 1;
        let words = [
            (24, self.own),
            (32, last),
            (40, self.first_usable),
            (48, self.last_usable),
            (72, self.entries_at),
        ];
        for (at, value) in words {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[56..72].fill(7);
        header[88..92].copy_from_slice(&crc32fast::hash(&array).to_le_bytes());
        seal(&mut first, self.sector);
        let at = usize::try_from(self.entries_at * u64::from(self.sector)).unwrap();
        if let Some(place) = first.get_mut(at..at + array.len()) {
            place.copy_from_slice(&array);
        }
        first
    }
}

/// Computes the header's checksum.
fn seal(first: &mut [u8], sector: u32) {
    let at = sector as usize;
    let len = (u32_at(first, at + 12) as usize).clamp(92, sector as usize);
    first[at + 16..at + 20].fill(0);
    let sum = crc32fast::hash(&first[at..at + len]);
    first[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
}

/// A first MiB with an MBR of these entries: flag, type, start, sectors.
fn mbr(entries: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut first = vec![0; FIRST_BYTES];
    over_mbr(&mut first, entries);
    first
}

fn over_mbr(first: &mut [u8], entries: &[(u8, u8, u32, u32)]) {
    first[446..510].fill(0);
    for (at, (flag, kind, start, sectors)) in entries.iter().enumerate() {
        let entry = &mut first[446 + 16 * at..][..16];
        (entry[0], entry[4]) = (*flag, *kind);
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    first[510..512].copy_from_slice(&[0x55, 0xaa]);
}

fn with(change: impl FnOnce(&mut Made)) -> Vec<u8> {
    let mut made = Made::good();
    change(&mut made);
    made.write()
}

fn changed(mut first: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut first);
    first
}

/// The result of an input.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    /// The image cannot be imported.
    Refused(TableError),
    /// The image can be imported, but not personalised on any disk.
    Plain(LayoutError),
    /// cloud-init's partition becomes this entry of a GPT, or of an MBR.
    Gpt(u32),
    Mbr(u32),
}

/// The result of the import's checks, on a disk of 128 MiB.
fn fate(first: &[u8]) -> Fate {
    let (before, sector) = match read_any(first) {
        Err(error) => return Fate::Refused(error),
        Ok((table, sector)) => (table, sector.unwrap_or(512)),
    };
    let layout = match lay_out(first, 128 * MIB, sector, [9; 16]) {
        Err(error) => return Fate::Plain(error),
        Ok(layout) => layout,
    };
    // The changed table reads as intended, and the rest of the image is unchanged.
    let after = read(&layout.first, sector).unwrap();
    let new: Vec<&Partition> =
        after.partitions().iter().filter(|partition| !before.partitions().contains(partition)).collect();
    let [new] = new.as_slice() else { panic!("{new:?}") };
    let bytes = new.start * u64::from(sector)..new.end * u64::from(sector);
    assert_eq!(bytes, layout.partition);
    assert_eq!(after.partitions().len(), before.partitions().len() + 1);
    match &after {
        Table::Gpt(gpt) => {
            let (at, backup) = layout.backup.unwrap();
            assert_eq!(at + backup.len() as u64, 128 * MIB, "the backup ends with the disk");
            assert_eq!(gpt.own_sector(), 1);
            Fate::Gpt(new.number)
        }
        Table::Mbr(_) => Fate::Mbr(new.number),
        Table::None => panic!("the table is gone"),
    }
}

#[test]
fn b1_full_and_odd_gpts() {
    let each = |count: u64| -> Vec<Option<(u64, u64)>> {
        (1..=count).map(|n| Some((2048 * n, 2048 * n + 99))).collect()
    };
    let small = |count: u32| {
        with(|made| {
            (made.count, made.partitions) = (count, each(u64::from(count)));
        })
    };
    let table: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("plain", Made::good().write(), Fate::Gpt(3)),
        ("empty", with(|made| made.partitions.clear()), Fate::Gpt(1)),
        ("a hole among the entries", with(|made| made.partitions[0] = None), Fate::Gpt(1)),
        ("4 of 4", small(4), Fate::Plain(LayoutError::NoEntry(4))),
        ("2 of 2", small(2), Fate::Plain(LayoutError::NoEntry(2))),
        ("60 of 60", small(60), Fate::Plain(LayoutError::NoEntry(60))),
        ("59 of 60", with(|made| (made.count, made.partitions) = (60, each(59))), Fate::Gpt(60)),
        (
            "backwards",
            with(|made| made.partitions[1] = Some((18432, 3000))),
            Fate::Refused(TableError::Backwards(2)),
        ),
        (
            "first usable 2^40",
            with(|made| made.first_usable = 1 << 40),
            Fate::Refused(TableError::Usable { first: 1 << 40, last: 64 * 2048 - 34 }),
        ),
        ("first usable 4", with(|made| made.first_usable = 4), Fate::Refused(TableError::EntriesPlace)),
        (
            "entries over the header",
            changed(Made::good().write(), |first| {
                first[512 + 72] = 1;
                seal(first, 512);
            }),
            Fate::Refused(TableError::EntriesPlace),
        ),
        ("revision 2.0", with(|made| made.revision = 0x20000), Fate::Refused(TableError::Revision(0x20000))),
        (
            "one byte of the header",
            changed(Made::good().write(), |first| first[572] ^= 0xff),
            Fate::Refused(TableError::Checksum("header")),
        ),
        (
            "one byte of the entries",
            changed(Made::good().write(), |first| first[1024 + 40] ^= 1),
            Fate::Refused(TableError::Checksum("entries")),
        ),
        (
            "header zeroed, backup good",
            changed(Made::good().write(), |first| first[512..1024].fill(0)),
            Fate::Refused(TableError::NotThere),
        ),
        (
            "no MBR",
            changed(Made::good().write(), |first| first[446..512].fill(0)),
            Fate::Refused(TableError::NotProtected),
        ),
        (
            "an MBR of nothing",
            changed(Made::good().write(), |first| over_mbr(first, &[])),
            Fate::Refused(TableError::NotProtected),
        ),
        (
            "protected from sector 2",
            changed(Made::good().write(), |first| over_mbr(first, &[(0, 0xee, 2, 99)])),
            Fate::Refused(TableError::NotProtected),
        ),
        ("overlapping", with(|made| made.partitions[1] = Some((4096, 51199))), Fate::Gpt(3)),
        ("from 0", with(|made| made.partitions[0] = Some((0, 18431))), Fate::Gpt(3)),
        ("own sector 7", with(|made| made.own = 7), Fate::Gpt(3)),
        (
            "ends at 2^64-1",
            with(|made| made.partitions[1] = Some((18432, u64::MAX))),
            Fate::Plain(LayoutError::TooSmall { number: 2, end: u64::MAX - 1, last: 128 * 2048 - 34 }),
        ),
        (
            "hybrid",
            changed(Made::good().write(), |first| {
                over_mbr(first, &[(0x80, 0x83, 2048, 16384), (0, 0xee, 1, 2047)]);
            }),
            Fate::Gpt(3),
        ),
    ];
    for (what, first, wanted) in table {
        assert_eq!(fate(&first), wanted, "{what}");
    }
    // 127 and 128 of 128 entries in use.
    for (count, wanted) in [(127, Ok(())), (128, Err(LayoutError::NoEntry(128)))] {
        let mut made = Made::of(512, 200 * MIB, &[]);
        made.partitions = each(count);
        let got = lay_out(&made.write(), 256 * MIB, 512, [9; 16]).map(drop);
        assert_eq!(got, wanted, "{count} of 128");
    }
}

#[test]
fn b2_headers_and_entries_of_other_sizes() {
    let entries = |count: u32, size: u32| {
        with(|made| {
            (made.count, made.size) = (count, size);
            made.first_usable = 2 + u64::from(count * size).div_ceil(512);
        })
    };
    let far = |at: u64| Fate::Refused(TableError::EntriesFar(at * 512));
    let table: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("header of 512", with(|made| made.header_bytes = 512), Fate::Gpt(3)),
        ("header of 96", with(|made| made.header_bytes = 96), Fate::Gpt(3)),
        ("header of 91", with(|made| made.header_bytes = 91), Fate::Refused(TableError::HeaderSize(91))),
        ("header of 513", with(|made| made.header_bytes = 513), Fate::Refused(TableError::HeaderSize(513))),
        ("128 of 256", entries(128, 256), Fate::Gpt(3)),
        ("4 of 512", entries(4, 512), Fate::Gpt(3)),
        ("128 of 200", entries(128, 200), Fate::Refused(TableError::EntrySize(200))),
        ("128 of 384", entries(128, 384), Fate::Refused(TableError::EntrySize(384))),
        ("1024 entries", entries(1024, 128), Fate::Gpt(3)),
        ("2048 entries", entries(2048, 128), Fate::Refused(TableError::EntryCount(2048))),
        (
            "no entries",
            with(|made| (made.count, made.partitions) = (0, vec![])),
            Fate::Refused(TableError::EntryCount(0)),
        ),
        ("1024 of 4096", entries(1024, 4096), far(2)),
        // B5: entries farther back stay where they are, or are refused as too far.
        ("-j 1000", with(|made| (made.entries_at, made.first_usable) = (1000, 1032)), Fate::Gpt(3)),
        ("-j 2015", with(|made| (made.entries_at, made.first_usable) = (2015, 2047)), Fate::Gpt(3)),
        ("-j 2020", with(|made| (made.entries_at, made.first_usable) = (2020, 2052)), far(2020)),
        ("-j 4096", with(|made| (made.entries_at, made.first_usable) = (4096, 4128)), far(4096)),
    ];
    for (what, first, wanted) in table {
        assert_eq!(fate(&first), wanted, "{what}");
    }
    let far_back = changed(with(|made| (made.entries_at, made.first_usable) = (1000, 1032)), |first| {
        first[1024..512_000].fill(0x5a);
    });
    let layout = lay_out(&far_back, 128 * MIB, 512, [9; 16]).unwrap();
    assert!(layout.first[1024..512_000] == far_back[1024..512_000], "what lies between stays");
}

#[test]
fn b1_b3_mbrs() {
    let no_table = Fate::Plain(LayoutError::NoTable);
    let iso = [(0x80, 0, 0, 131_072), (0, 0xef, 2048, 16384)];
    let fat = |mut first: Vec<u8>| {
        first[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
        first[54..62].copy_from_slice(b"FAT16   ");
        first[446..510].fill(0);
        first[510..512].copy_from_slice(&[0x55, 0xaa]);
        first
    };
    let code = |mut first: Vec<u8>| {
        first[446..510].fill(0xcc);
        first
    };
    let four = [
        (0x80, 0x83, 2048, 16384),
        (0, 0x83, 18432, 16384),
        (0, 0x83, 34816, 16384),
        (0, 0x83, 51200, 16384),
    ];
    let extended = [(0, 0x83, 2048, 8), (0, 0x83, 4096, 8), (0, 0x83, 8192, 8), (0, 5, 18432, 112_640)];
    let table: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("one", mbr(&four[..1]), Fate::Mbr(2)),
        ("two active", mbr(&[four[0], (0x80, 0x83, 18432, 8)]), Fate::Mbr(3)),
        ("four primary", mbr(&four), Fate::Plain(LayoutError::NoEntry(4))),
        ("three primary and an extended one", mbr(&extended), Fate::Plain(LayoutError::NoEntry(4))),
        ("logical ones", mbr(&[four[0], extended[3]]), Fate::Mbr(3)),
        ("0xEE and no GPT", mbr(&[(0, 0xee, 1, 131_071)]), Fate::Refused(TableError::NotThere)),
        ("isohybrid", mbr(&[(0x80, 0x83, 0, 131_072)]), Fate::Plain(LayoutError::FromZero(1))),
        ("length 0", mbr(&[(0x80, 0x83, 2048, 0), (0, 0x83, 4096, 16384)]), Fate::Mbr(3)),
        ("length 0 thrice", mbr(&[four[0], (0, 7, 1, 0), (0, 7, 1, 0), (0, 7, 1, 0)]), Fate::Mbr(2)),
        ("wraps", mbr(&[(0x80, 0x83, 0xffff_f000, u32::MAX)]), Fate::Refused(TableError::Wraps(1))),
        ("type 0", mbr(&[(0, 0, 100_000, 20000), four[0]]), Fate::Mbr(3)),
        ("overlapping", mbr(&[four[0], (0, 0x83, 4096, 16384)]), Fate::Mbr(3)),
        ("from sector 1", mbr(&[(0x80, 0x83, 1, 16384)]), Fate::Mbr(2)),
        ("status 1", mbr(&[(1, 0x83, 2048, 16384)]), no_table.clone()),
        ("signature and code", code(mbr(&[])), no_table.clone()),
        ("signature only", mbr(&[]), no_table.clone()),
        ("nothing", vec![0; FIRST_BYTES], no_table.clone()),
        ("no byte", vec![], no_table.clone()),
        ("a sector", vec![0; 512], no_table.clone()),
        (
            "a good GPT under an MBR",
            changed(Made::good().write(), |first| over_mbr(first, &four[..1])),
            Fate::Mbr(2),
        ),
        ("a good GPT under a FAT", fat(Made::good().write()), no_table.clone()),
        (
            "a good GPT under an ISO's MBR",
            changed(Made::good().write(), |first| over_mbr(first, &iso)),
            Fate::Mbr(3),
        ),
    ];
    for (what, first, wanted) in table {
        assert_eq!(fate(&first), wanted, "{what}");
    }
}

#[test]
fn where_the_partition_goes() {
    // (image MiB, its partitions, disk MiB, the partition's place in MiB; none where it is refused)
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
            let first = Made::of(sector, image * MIB, partitions).write();
            assert_eq!(read_any(&first).unwrap().1, Some(sector));
            let got = lay_out(&first, disk * MIB, sector, [9; 16]).ok().map(|layout| layout.partition);
            let wanted = place.clone().map(|place| place.start * MIB..place.end * MIB);
            assert_eq!(got, wanted, "{partitions:?} of {image} on {disk}, sectors of {sector}");
        }
    }
    // An image that is full to its end, on disks that are longer by this many bytes.
    for first in [Made::of(512, 16 * MIB, &[1..16]).write(), mbr(&[(0x80, 0x83, 2048, 15 * 2048)])] {
        for (more, fits) in [(0, false), (512, false), (3 * MIB, true), (4 * MIB, true), (ROOM, true)] {
            assert_eq!(lay_out(&first, 16 * MIB + more, 512, [9; 16]).is_ok(), fits, "{more} bytes more");
        }
    }
    // 4 TiB: the end is behind what an MBR can address, so the partition goes before that.
    let vast = lay_out(&mbr(&[(0, 0x83, 2048, 8)]), 4 << 40, 512, [0; 16]).unwrap();
    assert!(vast.partition.end <= u64::from(u32::MAX) * 512);
}

const ROOM: u64 = layout::ROOM_BYTES;

#[test]
fn others_find_nothing_wrong_with_the_table() {
    let size = 100 * MIB;
    let table = [
        Made::of(512, 16 * MIB, &[1..2, 2..16]),
        Made { header_bytes: 512, ..Made::of(512, 16 * MIB, &[1..2, 2..16]) },
        Made { own: 7, ..Made::of(512, 16 * MIB, &[1..2, 2..16]) },
    ];
    for made in table {
        let layout = lay_out(&made.write(), size, 512, [9; 16]).unwrap();
        let mut disk = vec![0; usize::try_from(size).unwrap()];
        disk[..layout.first.len()].copy_from_slice(&layout.first);
        let (offset, backup) = layout.backup.unwrap();
        disk[usize::try_from(offset).unwrap()..].copy_from_slice(&backup);
        if made.header_bytes == 92 {
            let read = gptman::GPT::find_from(&mut Cursor::new(&disk)).unwrap();
            assert_eq!(read[3].partition_name.as_str(), "cidata");
            assert_eq!(read.header.backup_lba, size / 512 - 1);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, &disk).unwrap();
        let Ok(said) = Command::new("sgdisk").arg("-v").arg(&path).output() else {
            println!("left out: sgdisk is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("No problems found"), "{made:?}: {said}");
    }
}

#[test]
fn partitions_over_each_other_are_named() {
    let overlapping = with(|made| made.partitions[1] = Some((4096, 51199)));
    assert_eq!(read_any(&overlapping).unwrap().0.overlap(), Some((1, 2)));
    assert_eq!(read_any(&Made::good().write()).unwrap().0.overlap(), None);
    let mbr = mbr(&[(0, 0x83, 4096, 100), (0, 0x83, 2048, 16384)]);
    assert_eq!(read_any(&mbr).unwrap().0.overlap(), Some((2, 1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_it_panic(
        flips in proptest::collection::vec((0usize..9000, any::<u8>()), 0..8), sealed: bool,
        len in 0usize..=1 << 20, disk in 0u64..1 << 40,
        sector in prop_oneof![Just(512u32), Just(4096), Just(0), Just(520), any::<u32>()],
    ) {
        for mut first in [Made::of(512, 16 * MIB, &[1..16]).write(), mbr(&[(0, 0x83, 2048, 8)])] {
            for &(at, value) in &flips {
                first[at] = value;
            }
            if sealed {
                seal(&mut first, 512);
            }
            for sector in [512, sector] {
                drop(lay_out(&first, disk, sector, [1; 16]));
                drop(lay_out(&first[..len], disk, sector, [1; 16]));
            }
            drop(read_any(&first));
        }
    }
}
