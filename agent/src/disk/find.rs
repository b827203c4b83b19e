//! Chooses the plan's disk among those seen, and opens it. The choice is pure; opening touches `device`. Everything
//! that can be refused is refused before the first write.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use common::hardware::{Bus, Disk};
use common::plan::DiskIdentity;
use common::text::some_of;

use super::device::{self, Device as _, FileDevice, Place};
use crate::inspect;
use crate::inspect::reading::{Wanted, what_is_on};

/// The most disks that an error names: a storage server has hundreds.
const NAMED_MAX: usize = 16;

/// Why no disk is written to. Found out before the first write.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No disk has the plan's marks.
    #[error("no disk is {wanted}; seen: {seen}")]
    Missing {
        /// The plan's marks, for the log.
        wanted: String,
        /// The disks that were seen, for the log.
        seen: String,
    },
    /// Several disks have the plan's marks.
    #[error("{count} disks are {wanted}; seen: {seen}")]
    Several {
        /// How many have them.
        count: usize,
        /// The plan's marks, for the log.
        wanted: String,
        /// The disks that were seen, for the log.
        seen: String,
    },
    /// The one disk is read-only: a switch on a card, a snapshot, a failed medium.
    #[error("{disk} is read-only")]
    ReadOnly {
        /// The disk's name and marks, for the log.
        disk: String,
    },
    /// The image is larger than the disk.
    #[error("the image has {image} bytes, {disk} only {size}")]
    TooSmall {
        /// The disk's name and marks, for the log.
        disk: String,
        /// Size of the disk in bytes.
        size: u64,
        /// Size of the image in bytes.
        image: u64,
    },
    /// Image and disk have different sector sizes: the partition table would be read at the wrong places.
    #[error("the image is made for sectors of {image} bytes, {disk} has sectors of {disk_sector}")]
    Sector {
        /// The disk's name and marks, for the log.
        disk: String,
        /// The disk's logical sector size in bytes.
        disk_sector: u32,
        /// The sector size in bytes that the image was made for.
        image: u32,
    },
    /// The device has another size than when it was reported.
    #[error("{path} has {now} bytes now, {reported} were reported")]
    Changed {
        /// The path of the file or device.
        path: PathBuf,
        /// Size of the opened device in bytes.
        now: u64,
        /// Size in the report, in bytes.
        reported: u64,
    },
    /// The opened device is another disk than the plan's: a cable, a hot swap or a link reset gave its name away.
    #[error("what was opened is not the disk that is meant any more: {wanted} is meant, {now} is there")]
    Swapped {
        /// The plan's marks, for the log.
        wanted: String,
        /// What is there now, for the log.
        now: String,
    },
    /// The disk could not be opened exclusively.
    #[error("cannot open {path} for writing (mounted, or part of a RAID or volume group?)")]
    Open {
        /// The path of the file or device.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// The file or device could not be read.
    #[error("cannot read {path}")]
    Look {
        /// The path of the file or device.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// A file to be created has no size.
    #[error("{path} is not there or empty: give the disk a size with --size")]
    NoSize {
        /// The path of the file or device.
        path: PathBuf,
    },
}

/// The one disk among `seen` that has the marks of `wanted`, and can hold an image of `image_bytes` made for sectors of
/// `image_sector` bytes.
///
/// # Errors
/// When there is not exactly one, or it cannot hold the image.
pub fn choose<'a>(
    wanted: &DiskIdentity,
    seen: &'a [Disk],
    image_bytes: u64,
    image_sector: u32,
) -> Result<&'a Disk, TargetError> {
    let matching: Vec<&Disk> = seen.iter().filter(|disk| wanted.matches(disk)).collect();
    let in_words = || (marks(wanted), list(seen));
    let disk = match matching.as_slice() {
        [disk] => *disk,
        [] => {
            let (wanted, seen) = in_words();
            return Err(TargetError::Missing { wanted, seen });
        }
        several => {
            let (wanted, seen) = in_words();
            return Err(TargetError::Several { count: several.len(), wanted, seen });
        }
    };
    let name = describe(disk);
    if disk.read_only {
        return Err(TargetError::ReadOnly { disk: name });
    }
    if disk.sector_bytes != image_sector {
        return Err(TargetError::Sector { disk: name, disk_sector: disk.sector_bytes, image: image_sector });
    }
    if disk.size < image_bytes {
        return Err(TargetError::TooSmall { disk: name, size: disk.size, image: image_bytes });
    }
    Ok(disk)
}

/// Opens `disk` exclusively, and checks that it still has the size that was seen. Whether it is still the same disk is
/// for [`is_still`] to check.
///
/// # Errors
/// When it is in use, or has changed since it was seen.
pub fn open(disk: &Disk) -> Result<FileDevice, TargetError> {
    let path = device_path(disk);
    let opened = FileDevice::open(&path, disk.rotational)
        .map_err(|cause| TargetError::Open { path: path.clone(), cause })?
        .called(describe(disk));
    if opened.size() != disk.size {
        return Err(TargetError::Changed { path, now: opened.size(), reported: disk.size });
    }
    if opened.sector_bytes() != disk.sector_bytes {
        let name = describe(disk);
        let (disk_sector, image) = (opened.sector_bytes(), disk.sector_bytes);
        return Err(TargetError::Sector { disk: name, disk_sector, image });
    }
    Ok(opened)
}

/// Checks that the opened device at `place` is the disk `wanted`, by all its marks as they are now: names and numbers
/// are given to another disk when one is gone. To be called with the **opened** device, and again right before the
/// first write.
///
/// # Errors
/// When it is another disk, or gone.
pub fn is_still(root: &Path, place: Place, wanted: &DiskIdentity) -> Result<(), TargetError> {
    let swapped = |now: String| TargetError::Swapped { wanted: marks(wanted), now };
    match place {
        Place::Block { .. } | Place::Plain { .. } if wanted.bus == Bus::File => {
            let path = PathBuf::from(&wanted.path);
            let there = std::fs::metadata(&path).map_err(|cause| TargetError::Look { path, cause })?;
            if place == Place::of(&there) { Ok(()) } else { Err(swapped("another file".to_owned())) }
        }
        Place::Block { major, minor } => match inspect::disks::numbered(root, major, minor) {
            Some(now) if wanted.matches(&now) => Ok(()),
            Some(now) => Err(swapped(describe(&now))),
            None => Err(swapped(format!("no disk with the numbers {major}:{minor}"))),
        },
        Place::Plain { .. } => Err(swapped("a plain file".to_owned())),
        Place::Memory => Ok(()),
    }
}

fn device_path(disk: &Disk) -> PathBuf {
    match disk.bus {
        Bus::File => PathBuf::from(&disk.path),
        _ => inspect::disks::device_file(Path::new("/"), &disk.name),
    }
}

/// Describes the file or device at `path` as the only disk of an ordinary process. A file that is missing, empty or
/// shorter than `size` is extended to that length.
///
/// # Errors
/// When it is neither a plain file nor a block device, cannot be read, or has no size.
pub fn as_disk(path: &Path, size: Option<u64>) -> Result<Disk, TargetError> {
    let look = |cause| TargetError::Look { path: path.to_owned(), cause };
    if !device::is_block_device(path) {
        let grown = OpenOptions::new().create(size.is_some()).read(true).append(true).open(path);
        let file = match grown {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(TargetError::NoSize { path: path.to_owned() });
            }
            other => other.map_err(look)?,
        };
        let now = file.metadata().map_err(look)?.len();
        if now < size.unwrap_or(0) {
            file.set_len(size.unwrap_or(0)).map_err(look)?;
        }
    }
    let facts = device::facts(path).map_err(look)?;
    if facts.size == 0 {
        return Err(TargetError::NoSize { path: path.to_owned() });
    }
    let path = path.canonicalize().map_err(look)?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let wanted = Wanted { device: path.clone(), size: facts.size, sector_bytes: facts.sector_bytes };
    let (contents, found, volumes) = what_is_on(&wanted);
    Ok(Disk {
        name,
        bus: Bus::File,
        size: facts.size,
        sector_bytes: facts.sector_bytes,
        model: String::new(),
        serial: String::new(),
        wwn: String::new(),
        path: path.to_string_lossy().into_owned(),
        rotational: false,
        removable: false,
        read_only: facts.read_only,
        contents,
        found,
        volumes,
    })
}

fn marks(wanted: &DiskIdentity) -> String {
    let mut words = vec![format!("{} bytes", wanted.size)];
    words.extend(wanted.marks());
    words.extend((!wanted.path.is_empty()).then(|| format!("at {}", wanted.path)));
    format!("{} disk with {}", wanted.bus, words.join(", "))
}

fn describe(disk: &Disk) -> String {
    format!("{} ({})", disk.name, marks(&DiskIdentity::of(disk)))
}

fn list(seen: &[Disk]) -> String {
    if seen.is_empty() {
        return "no disk at all".to_owned();
    }
    some_of(seen.iter().map(describe), NAMED_MAX, "; ")
}

#[cfg(test)]
mod tests {
    use common::hardware::Contents;
    use common::testing;

    use super::*;

    fn disk(name: &str, serial: &str) -> Disk {
        Disk {
            size: 8 << 20,
            model: "M".to_owned(),
            serial: serial.to_owned(),
            path: format!("port {name}"),
            ..testing::disk(name)
        }
    }

    #[test]
    fn exactly_one_suitable_disk_or_none() {
        let wanted = DiskIdentity::of(&disk("sda", "S1"));
        let read_only = Disk { read_only: true, ..disk("sda", "S1") };
        // (disks seen, image bytes, image sector, what the error has to say; empty where the disk is chosen)
        let table = [
            (vec![disk("sdb", "S1"), disk("sda", "S2")], 8 << 20, 512, ""),
            (vec![], 1, 512, "no disk at all"),
            (vec![disk("sda", "S2")], 1, 512, "serial S2"),
            (vec![disk("sda", "S1"), disk("sdb", "S1")], 1, 512, "2 disks are"),
            (vec![read_only], 1, 512, "read-only"),
            (vec![disk("sda", "S1")], (8 << 20) + 512, 512, "only 8388608"),
            (vec![disk("sda", "S1")], 1, 4096, "sectors of 4096"),
        ];
        for (seen, bytes, sector, said) in table {
            match choose(&wanted, &seen, bytes, sector) {
                Ok(disk) => assert!(said.is_empty() && disk.name == "sdb"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!said.is_empty() && text.contains(said), "{text} should say {said}");
                }
            }
        }
    }

    /// A sysfs with two disks of one model that differ only in their serial numbers.
    fn two_disks() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (name, number, serial) in [("sda", "8:0", "S1"), ("sdb", "8:16", "S2")] {
            let dir = tree.path().join("sys/devices/pci0").join(name);
            std::fs::create_dir_all(dir.join("device")).unwrap();
            for (file, text) in [("size", "16384"), ("removable", "0"), ("ro", "0"), ("serial", serial)] {
                std::fs::write(dir.join(file), text).unwrap();
            }
            std::fs::write(dir.join("device/model"), "M").unwrap();
            for folder in ["sys/block", "sys/dev/block"] {
                std::fs::create_dir_all(tree.path().join(folder)).unwrap();
            }
            std::os::unix::fs::symlink(&dir, tree.path().join("sys/block").join(name)).unwrap();
            std::os::unix::fs::symlink(&dir, tree.path().join("sys/dev/block").join(number)).unwrap();
        }
        let part = tree.path().join("sys/devices/pci0/sda/sda1");
        std::fs::create_dir_all(&part).unwrap();
        std::fs::write(part.join("partition"), "1").unwrap();
        std::os::unix::fs::symlink(&part, tree.path().join("sys/dev/block/8:1")).unwrap();
        tree
    }

    /// A hot swap or a link reset between the listing and the opening gives the name to another disk of the
    /// same model and size: only the serial number of the opened one tells.
    #[test]
    fn another_disk_under_the_same_name_is_not_written() {
        let tree = two_disks();
        let root = tree.path();
        let seen = inspect::disks::describe(root, "sda").unwrap();
        let wanted = DiskIdentity::of(&seen);
        assert_eq!(wanted.serial, "S1");
        let block = |major, minor| Place::Block { major, minor };
        assert!(is_still(root, block(8, 0), &wanted).is_ok());
        for (place, said) in [
            (block(8, 16), "serial S2"),
            (block(8, 1), "no disk with the numbers 8:1"),
            (block(9, 9), "no disk with the numbers 9:9"),
            (Place::Plain { file_system: 1, inode: 1 }, "a plain file"),
        ] {
            let error = is_still(root, place, &wanted).unwrap_err();
            assert!(matches!(error, TargetError::Swapped { .. }));
            assert!(error.to_string().contains("serial S1") && error.to_string().contains(said), "{error}");
        }
        // The same numbers, another disk in the slot.
        std::fs::write(root.join("sys/devices/pci0/sda/serial"), "S3").unwrap();
        assert!(is_still(root, block(8, 0), &wanted).is_err());
    }

    #[test]
    fn another_file_under_the_same_name_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let made = as_disk(&path, Some(4 << 20)).unwrap();
        let wanted = DiskIdentity::of(&made);
        let opened = open(&made).unwrap();
        assert!(opened.words().contains("4194304 bytes"), "{}", opened.words());
        assert!(is_still(Path::new("/"), opened.place(), &wanted).is_ok());
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        assert!(is_still(Path::new("/"), opened.place(), &wanted).is_err(), "gone");
        as_disk(&path, Some(4 << 20)).unwrap();
        let error = is_still(Path::new("/"), opened.place(), &wanted).unwrap_err();
        assert!(matches!(error, TargetError::Swapped { .. }), "{error}");
    }

    #[test]
    fn a_thousand_disks_do_not_make_an_endless_refusal() {
        let seen: Vec<Disk> = (0..1000).map(|at| disk(&format!("sd{at}"), "S2")).collect();
        let wanted = DiskIdentity::of(&disk("sda", "S1"));
        let text = choose(&wanted, &seen, 1, 512).unwrap_err().to_string();
        assert!(text.contains("and 984 more") && text.len() < 2000, "{text}");
    }

    #[test]
    fn a_file_is_made_as_long_as_asked_and_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        assert!(matches!(as_disk(&path, None), Err(TargetError::NoSize { .. })));
        assert!(!path.exists(), "nothing is made without a size");
        let made = as_disk(&path, Some(4 << 20)).unwrap();
        assert_eq!((made.size, made.contents, made.bus), (4 << 20, Contents::Blank, Bus::File));
        assert_eq!(as_disk(&path, Some(1 << 20)).unwrap().size, 4 << 20, "never made shorter");
        assert!(open(&made).is_ok());
        assert!(matches!(open(&Disk { size: 1, ..made }), Err(TargetError::Changed { .. })));
        assert!(as_disk(Path::new("/dev/null"), Some(1)).is_err());
    }
}
