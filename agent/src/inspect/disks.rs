//! Disks, by marks that stay when names swap, and what is on them. Opens disks for reading only. Touches
//! `/sys/block` and `/dev` under the root it is given.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use common::hardware::{Bus, Contents, Disk};

use super::contents::{self, HEAD_BYTES, PARTITION_BYTES};
use super::{names_in, number, text, tidy};

/// Block devices that are no disks: memory, layers over disks, optical and floppy drives, remote ones.
const NO_DISKS: [&str; 10] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtdblock", "drbd"];

/// How long one disk may take to be read: a dying one must not keep the machine from reporting.
const READING: Duration = Duration::from_secs(15);

/// The disks, sorted by name, each with what is on it.
#[must_use]
pub fn list(root: &Path) -> Vec<Disk> {
    let block = root.join("sys/block");
    let mut disks: Vec<Disk> =
        names_in(&block).into_iter().filter_map(|name| describe(root, &name)).collect();
    for disk in &mut disks {
        (disk.contents, disk.found) = look_at(device_file(root, &disk.name), disk.sector_bytes);
    }
    disks
}

/// The disk with the kernel's name `name`, without a look at its contents; none when it is no disk, or a
/// drive without a medium.
#[must_use]
pub fn describe(root: &Path, name: &str) -> Option<Disk> {
    // eMMC's boot areas, and the hidden paths below a multipath NVMe disk.
    let part_of_one = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    let dir = root.join("sys/block").join(name);
    if NO_DISKS.iter().any(|prefix| name.starts_with(prefix))
        || part_of_one
        || number(&dir.join("hidden")) == Some(1)
    {
        return None;
    }
    // In units of 512 bytes, whatever the disk's sectors are.
    let size = number(&dir.join("size"))?.saturating_mul(512);
    if size == 0 {
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
        removable: number(&dir.join("removable")) == Some(1),
        read_only: number(&dir.join("ro")) == Some(1),
        contents: Contents::Unreadable,
        found: vec![],
        name: tidy(name),
    })
}

/// The device file of the disk `name`. sysfs writes `!` for a `/` in a name (`cciss!c0d0`).
#[must_use]
pub fn device_file(root: &Path, name: &str) -> PathBuf {
    root.join("dev").join(name.replace('!', "/"))
}

/// Where the disk is plugged in: its device's place in the tree of devices.
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
    // SCSI disks say who made them apart; libata says "ATA" there.
    match text(&dir.join("device/vendor")).as_str() {
        "" | "ATA" => model,
        // A PCI vendor id, where `device` is the virtio device.
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

/// Reads what is on the device, in a thread of its own, so that one that hangs is given up. Such a thread
/// ends when the kernel gives the read up.
fn look_at(device: PathBuf, sector_bytes: u32) -> (Contents, Vec<String>) {
    let (answer, read) = mpsc::sync_channel(1);
    let look = move || {
        let _ = answer.send(read_device(&device, sector_bytes));
    };
    let started = std::thread::Builder::new().name("inspect-disk".to_owned()).spawn(look);
    let seen = started.ok().and_then(|_| read.recv_timeout(READING).ok()).flatten();
    seen.unwrap_or((Contents::Unreadable, vec![]))
}

fn read_device(device: &Path, sector_bytes: u32) -> Option<(Contents, Vec<String>)> {
    let file = File::open(device).ok()?;
    let head = read_at(&file, 0, HEAD_BYTES)?;
    let (contents, mut found) = contents::look(&head, sector_bytes);
    for (number, start) in contents::partitions(&head, sector_bytes) {
        let inside = read_at(&file, start, PARTITION_BYTES).unwrap_or_default();
        found.extend(
            contents::signatures(&inside).into_iter().map(|name| format!("partition {number}: {name}")),
        );
    }
    Some((contents, found))
}

/// Up to `len` bytes from `offset`, fewer at the end of the device.
fn read_at(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut got = 0;
    while got < len {
        match file.read_at(&mut bytes[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    bytes.truncate(got);
    Some(bytes)
}
