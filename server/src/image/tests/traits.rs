//! An image's traits are found in its file systems, also for an image that an earlier version added.

use std::process::Command;

use super::*;
use crate::api::shapes::{BiosBoot, CloudInit, UefiBoot};

const ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// A FAT file system with these files.
fn fat(bytes: usize, files: &[&str]) -> Vec<u8> {
    let mut image = Cursor::new(vec![0; bytes]);
    fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new()).unwrap();
    image.set_position(0);
    let file_system = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    for file in files {
        let root = file_system.root_dir();
        for (at, _) in file.match_indices('/') {
            root.create_dir(&file[..at]).unwrap();
        }
        root.create_file(file).unwrap().write_all(b"loader").unwrap();
    }
    file_system.unmount().unwrap();
    image.into_inner()
}

/// A disk with a GPT and these partitions, each of a type and its bytes.
fn disk(partitions: &[([u8; 16], &[u8])]) -> Vec<u8> {
    let bytes: usize = partitions.iter().map(|(_, bytes)| bytes.len().next_multiple_of(MIB)).sum();
    let mut disk = Cursor::new(vec![0u8; bytes + 2 * MIB]);
    let mut table = gptman::GPT::new_from(&mut disk, 512, [7; 16]).unwrap();
    let mut start = 2048;
    for (number, (kind, bytes)) in (1..).zip(partitions) {
        table[number] = gptman::GPTPartitionEntry {
            partition_type_guid: *kind,
            unique_partition_guid: [u8::try_from(number).unwrap(); 16],
            starting_lba: start,
            ending_lba: start + (bytes.len() / 512) as u64 - 1,
            attribute_bits: 0,
            partition_name: "p".into(),
        };
        let at = usize::try_from(start * 512).unwrap();
        disk.get_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        start += (bytes.len().next_multiple_of(MIB) / 512) as u64;
    }
    table.write_into(&mut disk).unwrap();
    gptman::GPT::write_protective_mbr_into(&mut disk, 512).unwrap();
    disk.into_inner()
}

#[test]
fn uefi_needs_the_fallback_loader() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let good = fat(2 * MIB, &["EFI/BOOT/BOOTX64.EFI"]);
    let lower = fat(2 * MIB, &["efi/boot/bootx64.efi"]);
    let vendor = fat(2 * MIB, &["EFI/debian/grubx64.efi"]);
    let empty = fat(2 * MIB, &[]);
    let noise = noise(3, 2 * MIB);
    let only =
        |vendors: &[&str]| UefiBoot::NoLoader { vendors: vendors.iter().map(ToString::to_string).collect() };
    type Row<'a> = (&'a [([u8; 16], &'a [u8])], Option<UefiBoot>);
    let table: [Row<'_>; 7] = [
        (&[(ESP, &good)], Some(UefiBoot::Yes)),
        (&[(ESP, &lower)], Some(UefiBoot::Yes)),
        (&[(ESP, &vendor)], Some(only(&["debian"]))),
        (&[(ESP, &empty)], Some(only(&[]))),
        (&[(ESP, &vendor), (ESP, &good)], Some(UefiBoot::Yes)),
        (&[([9; 16], &good)], Some(UefiBoot::NoPartition)),
        (&[(ESP, &noise)], None),
    ];
    for (number, (partitions, wanted)) in table.into_iter().enumerate() {
        let image = add(&images, &format!("u{number}"), disk(partitions)).unwrap().image;
        let seen = image.traits.unwrap();
        match wanted {
            Some(wanted) => assert_eq!(seen.uefi, wanted, "row {number}"),
            None => assert!(matches!(seen.uefi, UefiBoot::Unreadable { .. }), "{:?}", seen.uefi),
        }
        assert_eq!(image.boots_uefi, seen.uefi == UefiBoot::Yes);
        assert_eq!((seen.bios, seen.not_personalised), (BiosBoot::NoCode, None));
        assert_eq!(seen.partitions[0].guid.as_deref(), Some("01010101-0101-0101-0101-010101010101"));
    }
}

/// An ext4 file system with these files, made by mke2fs; `None` where that is not installed.
fn ext4(folder: &Path, files: &[(&str, &str)]) -> Option<Vec<u8>> {
    let tree = tempfile::tempdir_in(folder).unwrap();
    for (name, text) in files {
        let path = tree.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let image = tree.path().with_extension("img");
    std::fs::write(&image, vec![0; 8 * MIB]).unwrap();
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-U", "12345678-1234-1234-1234-123456789abc", "-L", "root", "-d"]);
    let made = command.arg(tree.path()).arg(&image).status();
    made.is_ok_and(|status| status.success()).then(|| std::fs::read(image).unwrap())
}

#[test]
fn cloud_init_is_looked_for_in_the_root_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path()).unwrap();
    const ROOT: (&str, &str) = ("etc/os-release", "ID=debian");
    const PROGRAM: (&str, &str) = ("usr/bin/cloud-init", "#!/usr/bin/python3");
    const PIN: &str = "etc/cloud/cloud.cfg.d/99-installer.cfg";
    let file = |file: &str| format!("/{file}");
    let table: [(&[(&str, &str)], CloudInit); 8] = [
        (&[ROOT], CloudInit::No),
        (&[("boot/vmlinuz", "")], CloudInit::Unknown),
        (&[ROOT, PROGRAM], CloudInit::Yes),
        (&[ROOT, ("usr/lib/systemd/system/cloud-init-local.service", "")], CloudInit::Yes),
        (
            &[ROOT, PROGRAM, ("etc/cloud/cloud-init.disabled", "")],
            CloudInit::Disabled { file: file("etc/cloud/cloud-init.disabled") },
        ),
        (
            &[ROOT, PROGRAM, ("etc/cloud/ds-identify.cfg", "policy: disabled\n")],
            CloudInit::Disabled { file: file("etc/cloud/ds-identify.cfg") },
        ),
        (
            &[ROOT, PROGRAM, (PIN, "datasource_list: [None]\n")],
            CloudInit::Elsewhere { file: file(PIN), sources: vec!["None".to_owned()] },
        ),
        (
            &[
                ROOT,
                PROGRAM,
                (PIN, "datasource_list: [NoCloud, None]\n"),
                ("etc/cloud/cloud.cfg.d/10-cloud.cfg", "datasource_list: [Ec2]\n"),
            ],
            CloudInit::Yes,
        ),
    ];
    for (number, (files, wanted)) in table.into_iter().enumerate() {
        let Some(root) = ext4(dir.path(), files) else {
            println!("left out: mke2fs is not installed");
            return;
        };
        let image = add(&images, &format!("c{number}"), disk(&[([3; 16], &root)])).unwrap().image;
        let seen = image.traits.unwrap();
        assert_eq!(seen.cloud_init, wanted, "{files:?}");
        assert_eq!(seen.partitions[0].uuid.as_deref(), Some("12345678-1234-1234-1234-123456789abc"));
        assert_eq!(seen.partitions[0].label.as_deref(), Some("root"));
    }
}

#[test]
fn an_image_of_an_earlier_version_is_looked_at_when_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let added = {
        let images = Images::open(dir.path()).unwrap();
        add(&images, "old", disk(&[(ESP, &fat(2 * MIB, &["EFI/debian/grubx64.efi"]))])).unwrap().image
    };
    let record = dir.path().join("images/names/old.json");
    let mut old: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    old.as_object_mut().unwrap().remove("traits").unwrap();
    old["boots_uefi"] = true.into();
    std::fs::write(&record, old.to_string()).unwrap();

    let images = Images::open(dir.path()).unwrap();
    assert_eq!(images.get("old").unwrap().traits, None);
    assert_eq!(images.traits(added.id).unwrap(), added.traits.clone().unwrap());
    drop(images);
    let images = Images::open(dir.path()).unwrap();
    assert_eq!(images.get("old").unwrap(), added, "kept");
}
