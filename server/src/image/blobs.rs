//! Storage of named blobs: the trait under the image store, which an S3-compatible store can implement as well. Owns,
//! for blobs in files, the folder of the image store: its lock, atomic writes, and temporary files. Knows nothing of
//! images. Touches files.
//!
//! A blob is written to a temporary file, synced, and renamed, so that a crash leaves the old blob, the new one or
//! none. Names of new files are synced once per import (`settle`), because syncing a folder after every chunk would
//! double the commits to the journal for nothing: nothing refers to a chunk before that.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::error::ImageError;
use super::hint::io_hint;

/// Blobs by key. Keys are made by this program only: `chunks/ab/<hash>`, `manifests/<hash>`, `names/<name>`, `unclean`.
/// One process at a time: the implementation refuses to be opened by a second server, and dropping it allows another
/// one. Methods block, and are called from many threads at once.
pub trait Blobs: Send + Sync + fmt::Debug {
    /// The blob under `key`; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read. Of the kind `InvalidData` when it is known to be damaged where it lies, so that only
    /// putting it again helps; no other error says anything of the blob. A blob with other bytes than were put may come
    /// without an error: whoever gets it checks it.
    fn get(&self, key: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the blob under `key`, atomically.
    ///
    /// # Errors
    /// When it cannot be written; then what was there is still there.
    fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes the blob under `key`, if there is one; returns how many bytes it had.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn delete(&self, key: &str) -> io::Result<u64>;

    /// All keys that begin with `folder`, which is a path without a slash at its end; sorted.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Returns when all blobs that were put or deleted so far survive a power cut. An implementation that is durable on
    /// `put` has nothing to do.
    ///
    /// # Errors
    /// When syncing fails; the next call tries it again.
    fn settle(&self) -> io::Result<()> {
        Ok(())
    }

    /// A new, empty file without a name, which is deleted when it is closed: for an image that has to be read out of
    /// order while it is added. It may become as large as the image is.
    ///
    /// # Errors
    /// When it cannot be created.
    fn scratch(&self) -> io::Result<File>;

    /// What an admin can do about `error`, which one of the other methods gave; unless said otherwise, what helps where
    /// the blobs are files.
    fn hint(&self, error: &io::Error) -> Option<String> {
        io_hint(error)
    }

    /// What an admin has to check when blobs are gone or have other bytes than were put, as what follows the word
    /// "check" in a sentence; unless said otherwise, what is to be checked where the blobs are files.
    fn to_check(&self) -> &'static str {
        "the disk under the state folder"
    }
}

impl dyn Blobs + '_ {
    /// The error that `what` cannot be read, with what helps.
    pub(super) fn not_read(&self, what: impl Into<String>, source: io::Error) -> ImageError {
        ImageError::Read { what: what.into(), hint: self.hint(&source), source }
    }

    /// The error that `what` cannot be written, with what helps.
    pub(super) fn not_written(&self, what: impl Into<String>, source: io::Error) -> ImageError {
        ImageError::Write { what: what.into(), hint: self.hint(&source), source }
    }
}

/// Blobs as files under one folder.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    scratch: PathBuf,
    /// Folders with new or removed names that are not synced yet.
    unsettled: Mutex<BTreeSet<PathBuf>>,
    /// Held while folders are synced: a second caller waits, because what the first syncs is not durable before that.
    settling: Mutex<()>,
    /// The lock on the folder, until this is dropped.
    _lock: File,
}

impl Files {
    /// Opens `root`, creates it if needed, and deletes temporary files that a crash left.
    ///
    /// # Errors
    /// When it cannot be created or read, or another process has it open.
    pub(super) fn open(root: &Path) -> Result<Self, ImageError> {
        let place = || root.display().to_string();
        let failed = |source: io::Error| ImageError::Open { place: place(), hint: io_hint(&source), source };
        fs::create_dir_all(root).map_err(failed)?;
        let lock = File::create(root.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let hint = Some("stop the other one, or give this one its own --state folder".to_owned());
                return Err(ImageError::Locked { place: place(), hint });
            }
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let scratch = root.join("tmp");
        match fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(&scratch).map_err(failed)?;
        Ok(Self {
            root: root.to_owned(),
            scratch,
            unsettled: Mutex::default(),
            settling: Mutex::default(),
            _lock: lock,
        })
    }

    fn touched(&self, folder: &Path) {
        self.unsettled.lock().insert(folder.to_owned());
    }

    /// The folder of `path`, created if it is missing.
    fn folder_of(&self, path: &Path) -> io::Result<PathBuf> {
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            for made in folder.ancestors().skip(1).take_while(|made| made.starts_with(&self.root)) {
                self.touched(made);
            }
        }
        Ok(folder)
    }
}

impl Blobs for Files {
    fn get(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.root.join(key)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(as_damage(error)),
        }
    }

    fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.root.join(key);
        let folder = self.folder_of(&path)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.scratch)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        self.touched(&folder);
        Ok(())
    }

    fn delete(&self, key: &str) -> io::Result<u64> {
        let path = self.root.join(key);
        let bytes = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        fs::remove_file(&path)?;
        if let Some(folder) = path.parent() {
            self.touched(folder);
        }
        Ok(bytes)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(self.root.join(&folder)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                // A name that is not UTF-8 was not made by this program.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let key = format!("{folder}/{name}");
                if entry.file_type()?.is_dir() { folders.push(key) } else { keys.push(key) }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    fn settle(&self) -> io::Result<()> {
        let _alone = self.settling.lock();
        let folders = std::mem::take(&mut *self.unsettled.lock());
        let mut failed = None;
        for folder in folders {
            let synced = File::open(&folder).and_then(|open| open.sync_all());
            // The other folders are synced all the same, and this one is tried again: its names are not durable yet. A
            // folder that was deleted has no names to sync.
            match synced {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.touched(&folder);
                    failed = failed.or(Some(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn scratch(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.scratch)
    }
}

/// A sector that cannot be read is damage, and only writing it again helps; the words stay those of the system.
fn as_damage(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(nix::libc::EIO) {
        return io::Error::new(io::ErrorKind::InvalidData, error);
    }
    error
}

#[cfg(test)]
mod tests {
    use common::id::{Hash, ImageId};

    use super::*;

    #[test]
    fn a_sector_that_cannot_be_read_is_damage_in_the_words_of_the_system() {
        let error = io::Error::from_raw_os_error;
        let unread = as_damage(error(nix::libc::EIO));
        assert_eq!(unread.kind(), io::ErrorKind::InvalidData);
        assert_eq!(common::causes::with_causes(&unread), error(nix::libc::EIO).to_string());
        assert_eq!(as_damage(error(nix::libc::EMFILE)).raw_os_error(), Some(nix::libc::EMFILE));
    }

    #[test]
    fn what_helps_with_files_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let files: Box<dyn Blobs> = Box::new(Files::open(dir.path()).unwrap());
        let full = files.not_written("x", io::ErrorKind::StorageFull.into());
        assert!(full.hint().unwrap().contains("disk is full"));
        let lost = ImageError::ManifestMissing { id: ImageId(Hash::of(b"")), check: files.to_check() };
        assert_eq!(
            lost.hint().unwrap(),
            "check the disk under the state folder, then remove the image and add it again"
        );
        let locked = Files::open(dir.path()).unwrap_err();
        assert_eq!(
            locked.to_string(),
            format!("the image store {} is in use by another swarmboot", dir.path().display())
        );
        assert!(locked.hint().unwrap().contains("--state folder"));
    }

    #[test]
    fn a_folder_that_cannot_be_synced_is_tried_again_and_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        files.put("chunks/aa/a", b"a").unwrap();
        files.put("chunks/bb/b", b"b").unwrap();
        // A name that is too long cannot be opened by root either, and is sorted last.
        let long = dir.path().join("a".repeat(300));
        files.touched(&long);
        assert!(files.settle().is_err());
        let left: Vec<PathBuf> = files.unsettled.lock().iter().cloned().collect();
        assert!(left.contains(&long) && !left.contains(&dir.path().join("chunks/bb")), "{left:?}");
        assert!(files.settle().is_err(), "said again until it works");
    }

    #[test]
    fn what_a_crash_left_in_scratch_is_gone_after_opening() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        fs::write(files.scratch.join("half"), b"x").unwrap();
        drop(files);
        let again = Files::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(&again.scratch).unwrap().count(), 0);
    }
}
