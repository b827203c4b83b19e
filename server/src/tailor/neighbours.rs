//! Core: warnings about the other disks of a machine. An OS finds its root by a UUID and its CIDATA by a label, not by
//! the disk; and a BIOS starts its first disk, which need not be the one that was written. Touches `common` and the
//! warnings of `api`.

use common::disks::{Disk, Volume};
use common::hardware::{Firmware, HardwareReport};
use common::plan::DiskIdentity;

use crate::api::shapes::{PartitionMarks, Warning};

/// The warnings about the disks beside `target` when an image with the partitions `image` is to be written.
#[must_use]
pub fn warnings(report: &HardwareReport, target: &DiskIdentity, image: &[PartitionMarks]) -> Vec<Warning> {
    // An agent as an ordinary process starts nothing.
    if report.firmware == Firmware::None {
        return vec![];
    }
    let bios = report.firmware == Firmware::Bios;
    let place = report.disks.iter().position(|disk| target.matches(disk)).unwrap_or(0);
    let others = report.disks.iter().enumerate().filter(|(_, disk)| !target.matches(disk));
    let mut warnings = vec![];
    for (at, disk) in others {
        let name = shown(disk);
        if disk.contents.may_boot() {
            warnings.push(if bios {
                Warning::OtherDiskBoots { disk: name.clone() }
            } else {
                Warning::OtherDiskMayBoot { disk: name.clone() }
            });
        } else if bios && at < place && !disk.removable {
            warnings.push(Warning::NotFirstDisk { first: name.clone() });
        }
        let seed = disk.volumes.iter().find(|volume| volume.is_seed());
        if let Some(volume) = seed {
            let label = volume.label.clone();
            warnings.push(Warning::OtherSeed { disk: name.clone(), partition: volume.partition, label });
        }
        let twin = disk.volumes.iter().find(|volume| image.iter().any(|own| is_twin(own, volume)));
        if let Some(volume) = twin {
            let uuid = volume.uuid.clone();
            warnings.push(Warning::SameUuid { disk: name, partition: volume.partition, uuid });
        }
    }
    // This warning is given only once, for the first disk.
    let mut first = true;
    warnings.retain(|warning| !matches!(warning, Warning::NotFirstDisk { .. }) || std::mem::take(&mut first));
    warnings
}

/// Whether both have one UUID. The serial number of a FAT, of 32 bits, is no UUID and does not count: it is the same in
/// every image that one tool made.
fn is_twin(own: &PartitionMarks, other: &Volume) -> bool {
    const UUID_CHARACTERS: usize = 36;
    other.uuid.len() == UUID_CHARACTERS && own.uuid.as_ref() == Some(&other.uuid)
}

/// A disk as an admin would look for it: its name, model and serial number.
#[must_use]
pub fn shown(disk: &Disk) -> String {
    let marks = [disk.model.as_str(), disk.serial.as_str()].join(" ");
    format!("{} {}", disk.name, marks.trim()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "5b0a0000-0000-4000-8000-00000000000a";

    fn volume(partition: u32, kind: &str, label: &str, uuid: &str) -> Volume {
        Volume { partition, kind: kind.into(), label: label.into(), uuid: uuid.into() }
    }

    fn disk(name: &str, contents: &str, volumes: &[Volume]) -> Disk {
        serde_json::from_value(serde_json::json!({
            "name": name, "bus": "virtio", "size": 1 << 30, "sector_bytes": 512, "serial": name,
            "contents": contents, "volumes": volumes,
        }))
        .unwrap()
    }

    fn words(firmware: &str, disks: &[Disk], target: usize) -> Vec<String> {
        let report: HardwareReport = serde_json::from_value(serde_json::json!({
            "version": 1, "reporter": "t", "firmware": firmware, "memory_bytes": 1,
            "key": common::trust::KeyPair::from_secret([1; 32]).public(), "disks": disks,
        }))
        .unwrap();
        let marks = |number, uuid: &str| PartitionMarks {
            number,
            uuid: Some(uuid.to_owned()),
            ..PartitionMarks::default()
        };
        let image = [marks(2, "5B00-0001"), marks(3, UUID)];
        let word = |warning: &Warning| {
            let value = serde_json::to_value(warning).unwrap();
            format!(
                "{}{}",
                value["warning"].as_str().unwrap(),
                if warning.stops().is_some() { "!" } else { "" }
            )
        };
        warnings(&report, &DiskIdentity::of(&disks[target]), &image).iter().map(word).collect()
    }

    /// What is tried, the firmware, the disks, which of them is the target, and what is said; `!` refuses.
    type Row<'a> = (&'a str, &'a str, Vec<Disk>, usize, &'a [&'a str]);

    #[test]
    fn what_is_said_of_the_other_disks() {
        let old = || disk("a", "bootable", &[volume(3, "ext4", "", "b")]);
        let blank = |name: &str| disk(name, "blank", &[]);
        let seeded =
            || disk("a", "bootable", &[volume(3, "ext4", "", UUID), volume(4, "vfat", "CIDATA", "1")]);
        let table: Vec<Row<'_>> = vec![
            ("one disk", "bios", vec![old()], 0, &[]),
            ("E4c BIOS: an old OS first", "bios", vec![old(), blank("b")], 1, &["other-disk-boots!"]),
            ("an old OS second", "bios", vec![blank("b"), old()], 0, &["other-disk-boots!"]),
            ("E4c UEFI", "uefi", vec![old(), blank("b")], 1, &["other-disk-may-boot"]),
            (
                "E4b: a blank disk first",
                "bios",
                vec![blank("a"), blank("b"), blank("c")],
                2,
                &["not-first-disk!"],
            ),
            ("the same with UEFI", "uefi", vec![blank("a"), blank("b")], 1, &[]),
            (
                "D1: the same image on both",
                "uefi",
                vec![seeded(), blank("b")],
                1,
                &["other-disk-may-boot", "other-seed!", "same-uuid!"],
            ),
            (
                "a data disk",
                "uefi",
                vec![blank("b"), disk("a", "data", &[volume(0, "ext4", "x", "c")])],
                0,
                &[],
            ),
            (
                "a configuration drive",
                "uefi",
                vec![blank("b"), disk("a", "data", &[volume(0, "iso9660", "config-2", "")])],
                0,
                &["other-seed!"],
            ),
            ("an ordinary process", "none", vec![seeded(), blank("b")], 1, &[]),
        ];
        for (what, firmware, disks, target, wanted) in table {
            assert_eq!(words(firmware, &disks, target), wanted, "{what}");
        }
    }
}
