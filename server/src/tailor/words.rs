//! Core: a disk in words, for refusals. Touches `common`.

use common::hardware::Disk;
use common::plan::DiskIdentity;

/// A disk as it was reported.
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

/// A disk by the marks that it is known by; it may not be there.
#[must_use]
pub fn known_as(disk: &DiskIdentity) -> String {
    let path = Some(disk.path.trim()).filter(|path| !path.is_empty()).map(|path| format!("path {path}"));
    let marks: String = disk.marks().into_iter().chain(path).map(|mark| format!(", {mark}")).collect();
    format!("{} of {} bytes{marks}", disk.bus, disk.size)
}
