//! Owns a run's folder, and removes what killed runs have left behind. Touches the temporary folder, and the
//! namespaces, mounts and loop devices that have our names.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::names::{PREFIX, is_orphan};
use crate::process;

/// A run's folder. Dropping it removes it, with everything in it.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// Makes a folder, and removes what killed runs have left behind.
    ///
    /// # Errors
    /// When the folder cannot be made, or this is not root.
    pub fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab needs root, for network namespaces; hint: run it with sudo");
        }
        sweep();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir()
            .context("cannot make the lab's temporary folder")?;
        Ok(Self { folder })
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file with this name in the folder.
    #[must_use]
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Keeps the folder for a person to look at; its path.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

/// Removes the namespaces (with the processes in them), the mounts and the folders of runs whose process has ended.
/// What cannot be removed is left for the next time: it disturbs nothing, because names are never used twice.
pub fn sweep() {
    let listing = process::output("ip", ["netns", "list"]).unwrap_or_default();
    for namespace in listing.lines().filter_map(|line| line.split_whitespace().next()) {
        if is_orphan(namespace) {
            crate::net::remove_namespace(namespace);
        }
    }
    crate::small::sweep(is_orphan);
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_orphan) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
