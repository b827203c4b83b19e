//! Owns disks that are smaller than they say: files on a file system in memory without room for them, and loop devices
//! over such files. Writing to the first fails because the disk is full, writing to the second fails with an I/O error,
//! both in the middle. Needs root; touches mounts and loop devices.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::names;
use crate::{disk, process};

/// Such a disk. Dropping it removes it.
#[derive(Debug)]
pub struct Small {
    mount: PathBuf,
    file: PathBuf,
    device: Option<PathBuf>,
}

impl Small {
    /// A file of `bytes` in a new folder `name` of `folder`, with room for `room` bytes.
    ///
    /// # Errors
    /// When this is not root.
    pub fn file(folder: &Path, name: &str, bytes: u64, room: u64) -> Result<Self> {
        let mount = folder.join(name);
        std::fs::create_dir(&mount)?;
        let size = format!("size={room}");
        let words = ["-t", "tmpfs", "-o", &size, names::PREFIX].map(std::ffi::OsStr::new);
        process::output("mount", words.into_iter().chain([mount.as_os_str()]))?;
        // From here on an error drops `small`, which unmounts the file system.
        let small = Self { file: mount.join("disk"), mount, device: None };
        disk::blank(&small.file, bytes)?;
        Ok(small)
    }

    /// A loop device over such a file.
    ///
    /// # Errors
    /// When this is not root, or the kernel has no loop devices.
    pub fn device(folder: &Path, name: &str, bytes: u64, room: u64) -> Result<Self> {
        let mut small = Self::file(folder, name, bytes, room)?;
        let words = ["--find", "--show"].map(std::ffi::OsStr::new);
        let device = process::output("losetup", words.into_iter().chain([small.file.as_os_str()]))?;
        small.device = Some(PathBuf::from(device.trim()));
        Ok(small)
    }

    /// The path to write to: the file or the loop device.
    #[must_use]
    pub fn target(&self) -> &Path {
        self.device.as_deref().unwrap_or(&self.file)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            process::output("losetup", ["--detach".as_ref(), device.as_os_str()]).ok();
        }
        process::output("umount", ["--lazy".as_ref(), self.mount.as_os_str()]).ok();
    }
}

/// Removes such disks whose folder has a name of `is_orphan`.
pub(crate) fn sweep(is_orphan: fn(&str) -> bool) {
    let orphan = |path: &&str| path.split('/').any(is_orphan);
    let loops = process::output("losetup", ["--list", "--noheadings", "--output", "NAME,BACK-FILE"]);
    for line in loops.unwrap_or_default().lines() {
        if let Some((device, _)) = line.trim().split_once(' ').filter(|(_, file)| orphan(&file.trim())) {
            process::output("losetup", ["--detach", device]).ok();
        }
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(orphan) {
        process::output("umount", ["--lazy", mount]).ok();
    }
}
