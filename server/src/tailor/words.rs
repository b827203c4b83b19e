//! Core: descriptions of disks, for refusals. Touches `common`.

use common::hardware::Disk;
use common::plan::DiskIdentity;

/// Describes a disk as it was reported: name, bus, size, marks, and whether it is removable or read-only.
pub(super) fn describe(disk: &Disk) -> String {
    let mut text = format!("{} ({}, {} bytes", disk.name, disk.bus, disk.size);
    for mark in disk.marks() {
        text.push_str(&format!(", {mark}"));
    }
    if disk.serial.trim().is_empty() && disk.wwn.is_empty() && !disk.path.is_empty() {
        text.push_str(&format!(", path {}", disk.path));
    }
    for (is, word) in [(disk.removable, "removable"), (disk.read_only, "read-only")] {
        if is {
            text.push_str(&format!(", {word}"));
        }
    }
    text.push(')');
    text
}

/// Describes a disk by the marks on record, without a kernel name: the machine may not have it any more.
#[must_use]
pub fn known_as(disk: &DiskIdentity) -> String {
    let path = Some(disk.path.trim()).filter(|path| !path.is_empty()).map(|path| format!("path {path}"));
    let marks: String = disk.marks().into_iter().chain(path).map(|mark| format!(", {mark}")).collect();
    format!("{} of {} bytes{marks}", disk.bus, disk.size)
}
