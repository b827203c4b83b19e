//! Tests on bytes of disks: blank, bootable, members of an array, and bytes that only look like these.

use proptest::prelude::*;

use super::super::marks::tests::{SIZE, ends};
use super::*;

const SECTOR: usize = 512;

fn blank() -> Vec<u8> {
    vec![0; HEAD_BYTES]
}

fn put(head: &mut [u8], at: usize, bytes: &[u8]) {
    head[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A disk's start with an MBR with one partition of `kind`, and with boot code or without.
fn with_mbr(kind: u8, active: bool, code: bool) -> Vec<u8> {
    let mut head = blank();
    if code {
        put(&mut head, 0, b"\xeb\x63\x90");
    }
    put(&mut head, 446, &[if active { 0x80 } else { 0 }, 0, 0, 0, kind]);
    put(&mut head, 446 + 8, &2048u32.to_le_bytes());
    put(&mut head, 446 + 12, &4096u32.to_le_bytes());
    put(&mut head, 510, &[0x55, 0xaa]);
    head
}

/// A disk's start with a GPT with partitions of these types.
fn with_gpt(kinds: &[[u8; 16]], sector: usize) -> Vec<u8> {
    let mut head = with_mbr(PROTECTIVE, false, false);
    put(&mut head, sector, b"EFI PART");
    put(&mut head, sector + 72, &2u64.to_le_bytes());
    put(&mut head, sector + 80, &128u32.to_le_bytes());
    put(&mut head, sector + 84, &128u32.to_le_bytes());
    for (index, kind) in kinds.iter().enumerate() {
        let at = 2 * sector + index * 128;
        put(&mut head, at, kind);
        put(&mut head, at + 32, &(2048 + 8 * index as u64).to_le_bytes());
    }
    head
}

fn random(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(HEAD_BYTES).collect()
}

const LINUX: [u8; 16] = [0xaf; 16];

/// GPT type of an EFI system partition, as it stands on disk.
const ESP: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";

/// GPT type of a BIOS boot partition, where GRUB keeps its core.
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// MBR partition types: EFI system partition, and the protective one over a GPT.
const MBR_ESP: u8 = 0xef;
const PROTECTIVE: u8 = 0xee;

/// What is found on a disk that has `head` and is zeros behind it.
fn look_at(head: &[u8], sector_bytes: u32) -> (Contents, Vec<String>) {
    let size = head.len() as u64;
    look(&Edges { head, tail: Some(&[]), size, sector_bytes }, &[])
}

/// The numbers of the partitions and the offsets of their first bytes.
fn starts(head: &[u8], sector_bytes: u32) -> Vec<(u32, u64)> {
    let parts = Edges { head, tail: None, size: 1 << 40, sector_bytes }.partitions();
    parts.into_iter().map(|part| (part.number, part.start)).collect()
}

#[test]
fn a_disk_is_called_what_firmware_would_find_on_it() {
    let marked = |at: usize, mark: &[u8]| {
        let mut head = blank();
        put(&mut head, at, mark);
        head
    };
    let mut random_marked = random(3);
    put(&mut random_marked, 510, &[0x55, 0xaa]);
    let mut fat = marked(82, b"FAT32   ");
    put(&mut fat, 0, b"\xeb\x58\x90mkfs.fat");
    put(&mut fat, 510, &[0x55, 0xaa]);
    let mut ext4 = marked(0x438, &[0x53, 0xef]);
    ext4[0x460] = 0xc2;
    let mut grub_without_table = blank();
    put(&mut grub_without_table, 0, b"\xeb\x63\x90");
    put(&mut grub_without_table, 510, &[0x55, 0xaa]);
    let mut bios_gpt = with_gpt(&[LINUX], SECTOR);
    put(&mut bios_gpt, 0, b"\xeb\x63\x90");
    let mut legacy = with_gpt(&[LINUX], SECTOR);
    legacy[2 * SECTOR + 48] = 4;

    let table: Vec<(&str, Vec<u8>, Contents, &[&str])> = vec![
        ("zeros", blank(), Contents::Blank, &[]),
        ("a small blank disk", vec![0; 512], Contents::Blank, &[]),
        ("nothing read", vec![], Contents::Unreadable, &[]),
        ("random bytes", random(1), Contents::Data, &[]),
        ("random bytes with the mark of an MBR", random_marked, Contents::Data, &[]),
        (
            "an MBR with code and an active partition",
            with_mbr(0x83, true, true),
            Contents::Bootable,
            &["mbr"],
        ),
        ("an MBR with code only", with_mbr(0x83, false, true), Contents::Bootable, &["mbr"]),
        ("an MBR without code", with_mbr(0x83, true, false), Contents::Partitioned, &["mbr"]),
        ("an MBR with an EFI partition", with_mbr(MBR_ESP, false, false), Contents::Bootable, &["mbr"]),
        ("boot code before a file system", grub_without_table, Contents::Bootable, &[]),
        ("a GPT of data", with_gpt(&[LINUX], SECTOR), Contents::Partitioned, &["gpt"]),
        ("an empty GPT", with_gpt(&[], SECTOR), Contents::Partitioned, &["gpt"]),
        ("a GPT with an ESP", with_gpt(&[LINUX, ESP], SECTOR), Contents::Bootable, &["gpt"]),
        ("a GPT for a BIOS", with_gpt(&[BIOS_BOOT], SECTOR), Contents::Bootable, &["gpt"]),
        ("a GPT with boot code", bios_gpt, Contents::Bootable, &["gpt"]),
        ("a GPT with the attribute for BIOS", legacy, Contents::Bootable, &["gpt"]),
        ("a FAT without partitions", fat, Contents::Data, &["vfat"]),
        ("ext4", ext4, Contents::Data, &["ext4"]),
        ("ext2", marked(0x438, &[0x53, 0xef]), Contents::Data, &["ext2"]),
        ("xfs", marked(0, b"XFSB"), Contents::Data, &["xfs"]),
        ("btrfs", marked(0x1_0040, b"_BHRfS_M"), Contents::Data, &["btrfs"]),
        ("luks", marked(0, b"LUKS\xba\xbe"), Contents::Data, &["luks"]),
        ("bitlocker", marked(3, b"-FVE-FS-"), Contents::Data, &["bitlocker"]),
        ("md", marked(4096, &[0xfc, 0x4e, 0x2b, 0xa9]), Contents::Member, &["md raid"]),
        ("zfs", marked(131 << 10, &0x00ba_b10cu64.to_le_bytes()), Contents::Member, &["zfs"]),
    ];
    for (what, head, contents, found) in table {
        assert_eq!(look_at(&head, 512), (contents, found.iter().map(|&f| f.to_owned()).collect()), "{what}");
    }
    let mut lvm = blank();
    put(&mut lvm, 512, b"LABELONE");
    put(&mut lvm, 512 + 24, b"LVM2 001");
    assert_eq!(at_start(&lvm), ["lvm2"]);
    assert_eq!(look_at(&lvm, 512).0, Contents::Member);
}

/// By its start a member of a RAID looks like a plain disk, or like a blank one (cockpit#21795, rear#1540).
#[test]
fn a_member_is_never_blank_and_never_a_plain_bootable_disk() {
    let size = SIZE as u64;
    for (name, at, mark) in ends() {
        let mut tail = vec![0; TAIL_BYTES];
        let at = at - (SIZE - TAIL_BYTES);
        put(&mut tail, at, &mark);
        let with = |head: &[u8]| look(&Edges { head, tail: Some(&tail), size, sector_bytes: 512 }, &[]);
        assert_eq!(with(&blank()), (Contents::Member, vec![name.to_owned()]));
        let system = with(&with_mbr(0x83, true, true));
        assert_eq!(system, (Contents::BootableMember, vec!["mbr".to_owned(), name.to_owned()]));
        assert!(system.0.may_boot() && system.0.is_member());
        assert_eq!(with(&with_gpt(&[LINUX], SECTOR)).0, Contents::Member);
    }
}

#[test]
fn a_gpt_whose_backup_alone_is_left_is_told() {
    for sector_bytes in [512, 4096] {
        let mut tail = vec![0; TAIL_BYTES];
        let at = TAIL_BYTES - sector_bytes as usize;
        put(&mut tail, at, b"EFI PART");
        let edges = Edges { head: &blank(), tail: Some(&tail), size: SIZE as u64, sector_bytes };
        assert_eq!(look(&edges, &[]), (Contents::Partitioned, vec!["gpt (its backup only)".to_owned()]));
    }
}

#[test]
fn what_stands_in_partitions_makes_a_member_or_not() {
    let system = with_gpt(&[ESP, LINUX], SECTOR);
    let data = with_gpt(&[LINUX], SECTOR);
    let with = |head: &[u8], inside: &'static str| {
        let edges = Edges { head, tail: Some(&[]), size: SIZE as u64, sector_bytes: 512 };
        look(&edges, &[(2, vec![inside])]).0
    };
    // The layout that installers give a single disk.
    assert_eq!(with(&system, "lvm2"), Contents::Bootable);
    assert_eq!(with(&data, "lvm2"), Contents::Member);
    for mirror in ["md raid", "zfs", "drbd", "btrfs of several disks"] {
        assert_eq!(with(&system, mirror), Contents::BootableMember, "{mirror}");
        assert_eq!(with(&data, mirror), Contents::Member, "{mirror}");
    }
    assert_eq!(with(&data, "ext4"), Contents::Partitioned);
}

#[test]
fn large_sectors_are_counted_as_such() {
    let head = with_gpt(&[ESP], 4096);
    assert_eq!(look_at(&head, 4096).0, Contents::Bootable);
    assert_eq!(starts(&head, 4096), [(1, 2048 * 4096)]);
}

#[test]
fn partitions_are_found_where_they_begin() {
    assert_eq!(starts(&with_mbr(0x83, true, true), 512), [(1, 1 << 20)]);
    assert_eq!(starts(&with_gpt(&[ESP, LINUX], SECTOR), 512), [(1, 1 << 20), (2, (1 << 20) + 4096)]);
    let many = with_gpt(&[LINUX; 100], SECTOR);
    assert_eq!(starts(&many, 512).len(), PARTITIONS_MAX);
    let mut far = with_gpt(&[LINUX], SECTOR);
    put(&mut far, 2 * SECTOR + 32, &u64::MAX.to_le_bytes());
    assert_eq!(starts(&far, 512), []);
}

/// GPTs with other entry sizes and places than the usual ones, and damaged ones: all of them belong to somebody.
#[test]
fn gpts_of_other_sizes_and_broken_ones_are_seen() {
    // A GPT with entries of `size` bytes from sector `at` on, of which number `esp` is an EFI system partition.
    let made = |size: usize, count: u32, at: usize, esp: usize| {
        let mut head = with_gpt(&[], SECTOR);
        put(&mut head, SECTOR + 72, &(at as u64).to_le_bytes());
        put(&mut head, SECTOR + 80, &count.to_le_bytes());
        put(&mut head, SECTOR + 84, &u32::try_from(size).unwrap().to_le_bytes());
        put(&mut head, at * SECTOR + (esp - 1) * size, &ESP);
        put(&mut head, at * SECTOR + (esp - 1) * size + 32, &2048u64.to_le_bytes());
        head
    };
    let changed = |mut head: Vec<u8>, at: usize, bytes: &[u8]| {
        put(&mut head, at, bytes);
        head
    };
    let long = changed(made(128, 128, 2, 1), SECTOR + 12, &512u32.to_le_bytes());
    let no_mbr = changed(made(128, 128, 2, 1), 510, &[0, 0]);
    let far = changed(made(128, 128, 2, 1), SECTOR + 72, &9999u64.to_le_bytes());
    let table: Vec<(&str, Vec<u8>, Contents, Option<u32>)> = vec![
        ("a header of 512 bytes", long, Contents::Bootable, Some(1)),
        ("entries of 256", made(256, 128, 2, 3), Contents::Bootable, Some(3)),
        ("entries of 4096", made(4096, 4, 2, 2), Contents::Bootable, Some(2)),
        ("entries of 200, which none may have", made(200, 128, 2, 3), Contents::Bootable, Some(3)),
        ("the 200th of 1024", made(128, 1024, 2, 200), Contents::Bootable, Some(200)),
        ("from sector 2015 on", made(128, 128, 2015, 2), Contents::Bootable, Some(2)),
        ("without an MBR", no_mbr, Contents::Bootable, Some(1)),
        ("behind what was read", far, Contents::Partitioned, None),
    ];
    for (what, head, contents, number) in table {
        assert_eq!(look_at(&head, 512), (contents, vec!["gpt".to_owned()]), "{what}");
        let wanted: Vec<_> = number.map(|number| (number, 1 << 20)).into_iter().collect();
        assert_eq!(starts(&head, 512), wanted, "{what}");
    }
    for size in [0, 64, 127, 4097, u32::MAX] {
        let none = changed(with_gpt(&[ESP], SECTOR), SECTOR + 84, &size.to_le_bytes());
        assert_eq!(look_at(&none, 512).0, Contents::Data, "entries of {size}");
    }
}

/// Linux ignores an entry without sectors, whatever its type, and reads the others.
#[test]
fn an_mbr_with_a_type_and_no_sectors_is_an_mbr() {
    let mut head = with_mbr(0x83, true, true);
    put(&mut head, 446 + 16 + 4, &[7]);
    assert_eq!(look_at(&head, 512), (Contents::Bootable, vec!["mbr".to_owned()]));
    assert_eq!(starts(&head, 512), [(1, 1 << 20)]);
}

#[test]
fn random_disks_are_data() {
    for seed in 0..64 {
        assert_eq!(look_at(&random(seed), 512).0, Contents::Data, "{seed}");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_look(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        sector in prop_oneof![Just(512u32), Just(4096), any::<u32>()],
        gpt in any::<bool>(),
    ) {
        let mut head = bytes;
        if gpt && head.len() > 600 {
            put(&mut head, 512, b"EFI PART");
            put(&mut head, 510, &[0x55, 0xaa]);
        }
        let _ = look_at(&head, sector);
        prop_assert!(starts(&head, sector).len() <= PARTITIONS_MAX);
    }
}
