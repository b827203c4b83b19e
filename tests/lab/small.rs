//! Owns disks that say more than they hold: files on a file system in memory that is too small for them, and loop
//! devices over such files. Who writes to the first hears that the disk is full, who writes to the second that writing
//! failed, both in the middle. Touches mounts and loop devices, and is root's affair.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::names;
use crate::{disk, process};

/// Such a disk. It goes away when this is dropped.
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
        // From here on, what goes wrong takes the mount with it.
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

    /// What is written to.
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

/// Removes those whose folder `is_orphan` names.
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
