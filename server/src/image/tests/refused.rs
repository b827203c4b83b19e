//! What `image add` refuses, before it can be ordered: tables that are not readable, bare file systems, files that are
//! no disk image, and inputs that need more memory than is allowed.

use super::super::source::SourceError;
use super::*;

/// Adds an image without any option.
fn plainly(images: &Images, bytes: Vec<u8>) -> Result<Added, ImageError> {
    let spec =
        AddSpec { name: "x".to_owned(), source: from_bytes(bytes), sector_size: None, no_table: false };
    images.add(spec, &mut |_| {})
}

fn gpt() -> Vec<u8> {
    super::super::facts::tests::gpt_disk(512, 4, [1; 16], false)
}

/// An MBR with one entry of this type, first sector and number of sectors.
fn mbr(kind: u8, start: u32, sectors: u32) -> Vec<u8> {
    let mut disk = vec![0; 4 * MIB];
    disk[450] = kind;
    disk[454..458].copy_from_slice(&start.to_le_bytes());
    disk[458..462].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[test]
fn tables_that_nobody_reads() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut disk = gpt();
        change(&mut disk);
        disk
    };
    let table: [(Vec<u8>, &str); 6] = [
        (changed(|disk| disk[572] ^= 0xff), "the checksum of the GPT's header is wrong"),
        (changed(|disk| disk[512..1024].fill(0)), "announces a GPT that is not there"),
        (changed(|disk| disk[446..512].fill(0)), "no protective MBR"),
        (mbr(0xee, 1, 8191), "announces a GPT that is not there"),
        (mbr(0x83, 0xffff_f000, u32::MAX), "partition 1 ends behind the last sector that an MBR can name"),
        // The end is missing: refused for an MBR as for a GPT.
        (mbr(0x83, 2048, 16384), "is cut short: its partition 1 ends at byte 9437184, the image at 4194304"),
    ];
    for (disk, words) in table {
        let error = plainly(&images, disk).unwrap_err();
        assert!(told(&error).contains(words), "{words}: {}", told(&error));
        assert!(error.hint().is_some(), "{words}");
    }
    assert!(bench.keys().is_empty());
    assert!(plainly(&images, gpt()).is_ok());
    // An ordinary MBR over a valid GPT counts as an MBR, for this reader as for firmware.
    let mut stale = gpt();
    stale[..512].copy_from_slice(&mbr(0x83, 2048, 2048)[..512]);
    let spec =
        AddSpec { name: "stale".to_owned(), source: from_bytes(stale), sector_size: None, no_table: false };
    let image = images.add(spec, &mut |_| {}).unwrap().image;
    assert_eq!(image.partition_table, super::super::PartitionTable::Mbr);
}

#[test]
fn no_table_has_to_be_meant() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let with = |at: usize, mark: &[u8]| {
        let mut bytes = vec![0; MIB];
        bytes[at..at + mark.len()].copy_from_slice(mark);
        bytes
    };
    let table: [(Vec<u8>, &str); 6] = [
        (with(0x438, &[0x53, 0xef]), ": all of it is one ext file system"),
        (with(0, b"LUKS\xba\xbe"), ": all of it is one LUKS container"),
        (with(512, b"LABELONE"), ": all of it is one LVM physical volume"),
        (with(0, b"hsqs"), ": all of it is one squashfs file system"),
        (with(0x8001, b"CD001"), ": all of it is one ISO 9660 file system"),
        (noise(9, 4096), "no partition table that is known"),
    ];
    for (number, (bytes, words)) in table.into_iter().enumerate() {
        let error = plainly(&images, bytes.clone()).unwrap_err();
        assert!(
            told(&error).ends_with(words) && error.hint().unwrap().contains("--no-table"),
            "{}",
            told(&error)
        );
        assert!(add(&images, &format!("n{number}"), bytes).is_ok(), "it can be said that it is meant");
    }
    for no_table in [true, false] {
        let spec =
            AddSpec { name: "z".into(), source: from_bytes(vec![0; MIB]), sector_size: None, no_table };
        let error = images.add(spec, &mut |_| {}).unwrap_err();
        assert!(matches!(
            (no_table, error),
            (true, ImageError::Zeros { .. }) | (false, ImageError::NoTable { .. })
        ));
    }
}

#[test]
fn what_only_its_end_tells() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let mut footer = vec![0; 512];
    for (mark, name) in [(&b"conectix"[..], "fixed VHD"), (b"koly", "dmg")] {
        footer[..mark.len()].copy_from_slice(mark);
        // With the footer alone in its chunk, and at the end of one.
        for len in [4 * MIB, 4 * MIB + 512] {
            let mut disk = gpt();
            disk.resize(len, 7);
            let error = add(&images, "x", [&disk[..], &footer].concat()).unwrap_err();
            assert!(
                told(&error).contains(name) && error.hint().unwrap().contains("qemu-img"),
                "{}",
                told(&error)
            );
        }
    }
    assert!(bench.keys().is_empty());
}

#[test]
fn what_is_sound_and_needs_too_much_is_not_called_damaged() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let mut long = zstd::Encoder::new(Vec::new(), 1).unwrap();
    long.window_log(28).unwrap();
    long.write_all(&gpt()).unwrap();
    let mut huge = xz(&noise(1, 300_000));
    huge[16] = 37;
    let sum = {
        let mut crc = flate2::Crc::new();
        crc.update(&huge[12..20]);
        crc.sum()
    };
    huge[20..24].copy_from_slice(&sum.to_le_bytes());
    let table = [
        (long.finish().unwrap(), "needs a window of 256 MiB, and 128 MiB are allowed", "zstd -dc --long=31"),
        (huge, "needs a window of 1536 MiB, and 1024 MiB are allowed", "xz -dc"),
    ];
    for (packed, words, cure) in table {
        let error = add(&images, "x", packed).unwrap_err();
        assert!(told(&error).contains(words) && error.hint().unwrap().contains(cure), "{}", told(&error));
    }
    // A frame whose header names dictionary 9.
    let error = add(&images, "x", b"\x28\xb5\x2f\xfd\x01\x58\x09\x01\0\0".to_vec()).unwrap_err();
    assert!(
        matches!(error, ImageError::Source { source: SourceError::Dictionary(9), .. }),
        "{}",
        told(&error)
    );
    assert!(error.hint().unwrap().contains("-D DICTIONARY"));
    assert!(bench.keys().is_empty());
}

#[test]
fn what_cannot_be_personalised_is_said() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let mut full = mbr(0x83, 2048, 8);
    for at in [466, 482, 498] {
        (full[at], full[at + 5], full[at + 8]) = (0x83, 1, 8);
    }
    let can = |added: Added| added.image.traits.unwrap().not_personalised;
    let why = can(plainly(&images, full).unwrap()).unwrap();
    assert!(why.starts_with("all 4 partition entries"), "{why}");
    let spec =
        AddSpec { name: "g".to_owned(), source: from_bytes(gpt()), sector_size: None, no_table: false };
    assert_eq!(can(images.add(spec, &mut |_| {}).unwrap()), None);
}
