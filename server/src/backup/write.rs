//! Writes a backup while the server runs. Touches the state folder, where the copy of the records lies meanwhile.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::BackupError;
use super::form::{CONFIGURATION, FORMAT, HEAD, Head, MANIFEST, Manifest, Member, RECORDS};
use super::members::{Part, part};

use crate::api::WriteBackup;
use crate::records;

/// The lock that one backup holds at a time.
const LOCK: &str = ".backup.lock";
/// How the folder begins in which the copy of the records lies.
const SCRATCH: &str = ".backup-";
/// Chunks are compressed already; what is not is text, of which the fastest level takes most.
const LEVEL: i32 = 1;

/// What backups are made of.
#[derive(Debug, Clone)]
pub struct Backup {
    /// The state folder.
    pub state: PathBuf,
    /// The configuration file, if one was read.
    pub configuration: Option<PathBuf>,
}

impl Backup {
    /// Writes a backup to `out`, with the images or without. Blocks for as long as the disk and `out` take. The server
    /// goes on meanwhile: the records are those of one instant, images are added whole or not at all, and what is removed
    /// meanwhile is named in the manifest.
    ///
    /// # Errors
    /// When another one is being written, something cannot be read, or `out` fails.
    pub fn write(&self, images: bool, out: &mut dyn Write) -> Result<(), BackupError> {
        let lock = self.state.join(LOCK);
        let held = File::create(&lock).map_err(BackupError::file(&lock))?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::Busy),
            Err(TryLockError::Error(error)) => return Err(BackupError::file(&lock)(error)),
        }
        self.sweep()?;
        let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&self.state);
        let scratch = scratch.map_err(BackupError::file(&self.state))?;
        let copy = scratch.path().join(RECORDS);
        // First: what the records name is then in the folders that are read after them.
        records::snapshot(&self.state.join(RECORDS), &copy).map_err(BackupError::Records)?;
        let mut found = vec![];
        collect(&self.state, "", images, &mut found)?;

        let mut archive = Archive::new(out)?;
        let head = Head {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            made: jiff::Timestamp::now(),
            images,
        };
        archive.text(HEAD, &head)?;
        archive.file(RECORDS, &copy)?;
        drop(scratch);
        if let Some(configuration) = &self.configuration {
            archive.file(CONFIGURATION, configuration)?;
        }
        for path in found {
            archive.file(&path, &self.state.join(&path))?;
        }
        archive.end()
    }

    /// The same as the API takes it.
    #[must_use]
    pub fn door(self) -> WriteBackup {
        Arc::new(move |images, out| self.write(images, out).map_err(Into::into))
    }

    /// Removes the copies of the records that killed servers left.
    fn sweep(&self) -> Result<(), BackupError> {
        for entry in fs::read_dir(&self.state).map_err(BackupError::file(&self.state))? {
            let entry = entry.map_err(BackupError::file(&self.state))?;
            let left = entry.file_name().to_string_lossy().starts_with(SCRATCH);
            if left && entry.path().is_dir() {
                fs::remove_dir_all(entry.path()).map_err(BackupError::file(&entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Adds to `found` the paths of all files below `folder` that are part of a backup. Folders are read from the last name
/// to the first, because `names` of the image store say what is in `manifests`, and these what is in `chunks`: whatever
/// is added meanwhile is then there whole or not named.
fn collect(state: &Path, folder: &str, images: bool, found: &mut Vec<String>) -> Result<(), BackupError> {
    let at = state.join(folder);
    let entries = match fs::read_dir(&at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(BackupError::file(&at))?,
    };
    let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(BackupError::file(&at))?;
    entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.file_name()));
    for entry in entries {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let error = io::Error::new(io::ErrorKind::InvalidData, "its name is no text");
            return Err(BackupError::file(&entry.path())(error));
        };
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        if part(&path, images) != Part::Whole {
            continue;
        }
        // Links are neither made by the server nor followed here.
        match entry.file_type().map_err(BackupError::file(&entry.path()))? {
            kind if kind.is_dir() => collect(state, &path, images, found)?,
            kind if kind.is_file() => found.push(path),
            _ => tracing::warn!(path, "neither file nor folder: not part of the backup"),
        }
    }
    Ok(())
}

/// The archive while it is written.
struct Archive<'a> {
    tar: tar::Builder<zstd::Encoder<'a, &'a mut dyn Write>>,
    manifest: Manifest,
}

impl<'a> Archive<'a> {
    fn new(out: &'a mut dyn Write) -> Result<Self, BackupError> {
        let frame = zstd::Encoder::new(out, LEVEL).map_err(BackupError::Stream)?;
        Ok(Self { tar: tar::Builder::new(frame), manifest: Manifest::default() })
    }

    fn text(&mut self, name: &str, content: &impl serde::Serialize) -> Result<(), BackupError> {
        let text = serde_json::to_vec_pretty(content).map_err(|error| BackupError::Stream(error.into()))?;
        self.put(name, 0o600, text.len() as u64, &mut text.as_slice()).map_err(BackupError::Stream)
    }

    fn put(&mut self, name: &str, mode: u32, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(mode);
        header.set_size(bytes);
        self.tar.append_data(&mut header, name, content)
    }

    /// Adds the file at `from`; one that is gone is noted.
    fn file(&mut self, name: &str, from: &Path) -> Result<(), BackupError> {
        let file = match File::open(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.manifest.gone.push(name.to_owned());
                return Ok(());
            }
            file => file.map_err(BackupError::file(from))?,
        };
        let about = file.metadata().map_err(BackupError::file(from))?;
        let (bytes, mode) = (about.len(), about.permissions().mode() & 0o777);
        let mut content = Hashed { inner: file.take(bytes), hash: blake3::Hasher::new(), bytes: 0 };
        self.put(name, mode, bytes, &mut content).map_err(BackupError::Stream)?;
        if content.bytes != bytes {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read");
            return Err(BackupError::file(from)(error));
        }
        let blake3 = content.hash.finalize().to_hex().to_string();
        self.manifest.members.push(Member { path: name.to_owned(), bytes, blake3 });
        Ok(())
    }

    fn end(mut self) -> Result<(), BackupError> {
        let manifest = std::mem::take(&mut self.manifest);
        self.text(MANIFEST, &manifest)?;
        let frame = self.tar.into_inner().map_err(BackupError::Stream)?;
        frame.finish().and_then(Write::flush).map_err(BackupError::Stream)
    }
}

/// Hashes what is read through it.
pub(super) struct Hashed<R> {
    pub(super) inner: R,
    pub(super) hash: blake3::Hasher,
    pub(super) bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.hash.update(&into[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}
