//! Lists disks, by marks that stay when names change, and what is on them. Opens disks for reading only. Touches
//! `/sys/block` and `/dev` under the root it is given.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::hardware::{Bus, Contents, Disk};

use super::files::{names_in, number, text, tidy};
use super::reading::{self, Wanted};

/// Prefixes of block devices that are not disks: memory, layers over disks, optical and floppy drives, remote ones.
const NO_DISKS: [&str; 13] =
    ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "rbd", "mtdblock", "ubiblock", "drbd", "bcache"];

/// The timeout of reading all disks together: dying ones must not keep the machine from reporting.
const READING: Duration = Duration::from_secs(15);

/// The text in the report for a disk that did not answer in that time.
const SILENT: &str = "does not answer";

/// The disks, sorted by name, each with what is on it.
#[must_use]
pub fn list(root: &Path) -> Vec<Disk> {
    list_within(root, READING)
}

/// The disks; reading all of them together may take as long as `within`.
pub(super) fn list_within(root: &Path, within: Duration) -> Vec<Disk> {
    let names = names_in(&root.join("sys/block"));
    let mut disks: Vec<Disk> = names.into_iter().filter_map(|name| describe(root, &name)).collect();
    let wanted: Vec<Wanted> = disks
        .iter()
        .map(|disk| Wanted {
            device: device_file(root, &disk.name),
            size: disk.size,
            sector_bytes: disk.sector_bytes,
        })
        .collect();
    for (disk, seen) in disks.iter_mut().zip(reading::all(&wanted, within)) {
        let silent = || (Contents::Unreadable, vec![SILENT.to_owned()], vec![]);
        (disk.contents, disk.found, disk.volumes) = seen.unwrap_or_else(silent);
    }
    disks
}

/// The disk that the kernel names `name`, without reading its contents; none when it is not a disk, or is a drive
/// without a medium.
#[must_use]
pub fn describe(root: &Path, name: &str) -> Option<Disk> {
    let dir = root.join("sys/block").join(name);
    if NO_DISKS.iter().any(|prefix| name.starts_with(prefix))
        || is_part(name)
        || number(&dir.join("hidden")) == Some(1)
    {
        return None;
    }
    // In units of 512 bytes, whatever the disk's sectors are.
    let size = number(&dir.join("size"))?.saturating_mul(512);
    let removable = number(&dir.join("removable")) == Some(1);
    // A card reader without a card. A drive that is built in and shows no bytes is one whose sectors Linux does not
    // read (520 or 528 bytes): it is listed, so that a person sees why it cannot be used.
    if size == 0 && removable {
        return None;
    }
    let path = place(root, &dir);
    let sector_bytes =
        number(&dir.join("queue/logical_block_size")).and_then(|bytes| u32::try_from(bytes).ok());
    Some(Disk {
        bus: bus(name, &path),
        size,
        sector_bytes: sector_bytes.unwrap_or(512),
        model: model(&dir),
        serial: serial(&dir),
        wwn: [dir.join("wwid"), dir.join("device/wwid")]
            .iter()
            .map(|file| one_spaced(&text(file)))
            .find(|t| !t.is_empty())
            .unwrap_or_default(),
        path,
        rotational: number(&dir.join("queue/rotational")) == Some(1),
        removable,
        read_only: number(&dir.join("ro")) == Some(1),
        contents: Contents::Unreadable,
        found: vec![],
        volumes: vec![],
        name: tidy(name),
    })
}

/// The disk that has these device numbers now, without reading its contents; none when there is none, or when it is a
/// partition or no disk. Names are given again as soon as a disk is gone, and so are numbers: only the disk's own marks
/// tell whether it is the one that was meant.
#[must_use]
pub fn numbered(root: &Path, major: u64, minor: u64) -> Option<Disk> {
    let device = fs::canonicalize(root.join(format!("sys/dev/block/{major}:{minor}"))).ok()?;
    describe(root, device.file_name()?.to_str()?)
}

/// Whether `name` is a part of an eMMC that is no disk of its own: its boot areas, its replay-protected memory
/// and its general purpose partitions (`mmcblk0boot0`, `mmcblk0rpmb`, `mmcblk0gp0`).
fn is_part(name: &str) -> bool {
    name.strip_prefix("mmcblk").is_some_and(|number| !number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The device file of the disk `name`. sysfs writes `!` for a `/` in a name (`cciss!c0d0`).
#[must_use]
pub fn device_file(root: &Path, name: &str) -> PathBuf {
    root.join("dev").join(name.replace('!', "/"))
}

/// The path of the disk's device in the kernel's device tree: where it is plugged in.
fn place(root: &Path, dir: &Path) -> String {
    let tree = fs::canonicalize(root.join("sys/devices")).unwrap_or_default();
    let device = fs::canonicalize(dir.join("device")).unwrap_or_default();
    device.strip_prefix(&tree).map(|path| tidy(&path.to_string_lossy())).unwrap_or_default()
}

fn bus(name: &str, path: &str) -> Bus {
    let has = |prefix: &str| {
        path.split('/').any(|part| {
            part.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    if name.starts_with("nvme") {
        Bus::Nvme
    } else if name.starts_with("vd") {
        Bus::Virtio
    } else if name.starts_with("mmcblk") {
        Bus::Mmc
    } else if has("usb") {
        Bus::Usb
    } else if has("ata") {
        Bus::Ata
    } else if name.starts_with("sd") {
        Bus::Scsi
    } else {
        Bus::Other
    }
}

fn model(dir: &Path) -> String {
    let model = one_spaced(&text(&dir.join("device/model")));
    let model = if model.is_empty() { text(&dir.join("device/name")) } else { model };
    // SCSI disks give their vendor in a file of its own; libata says "ATA" there.
    match text(&dir.join("device/vendor")).as_str() {
        "" | "ATA" => model,
        // Under virtio `vendor` is a PCI vendor id.
        vendor if vendor.starts_with("0x") => model,
        vendor => tidy(&format!("{vendor} {model}")),
    }
}

fn serial(dir: &Path) -> String {
    let plain = [dir.join("serial"), dir.join("device/serial")];
    let plain = plain.iter().map(|file| text(file)).find(|text| !text.is_empty());
    plain.unwrap_or_else(|| unit_serial(&fs::read(dir.join("device/vpd_pg80")).unwrap_or_default()))
}

/// The serial number in SCSI's vital product data page 0x80: four bytes of header, then text.
fn unit_serial(page: &[u8]) -> String {
    let Some((&[_, 0x80, high, low], rest)) = page.split_first_chunk::<4>() else { return String::new() };
    let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
    tidy(String::from_utf8_lossy(&rest[..len]).trim_matches(['\0', ' ']))
}

/// Names that SCSI pads with spaces (`t10.ATA     QEMU HARDDISK   …`), with one space for each run.
fn one_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
