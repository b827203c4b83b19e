//! Makes a state folder of a backup. Everything is unpacked into a folder beside the state folder, checked, synced, and
//! put into its place with one rename: whatever is interrupted leaves the old state as it was. No server is needed, and
//! none may run there. Touches the state folder and the folder that it is in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::Serialize;

use super::error::BackupError;
use super::form::{CONFIGURATION, FORMAT, HEAD, Head, MANIFEST, Manifest, Member, RECORDS};
use super::members::is_plain;
use super::write::Hashed;

use crate::records;

/// The longest head or manifest, in bytes: a manifest of a million chunks has some 150 MB.
const TEXT_MAX: u64 = 1 << 30;

/// What was restored.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// What the backup says of itself.
    pub head: Head,
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were gone when the backup was written.
    pub gone: Vec<String>,
    /// Where the state is that was there before, with `force`.
    pub aside: Option<PathBuf>,
    /// Where the configuration file of the backup is, if it has one.
    pub configuration: Option<PathBuf>,
}

/// Makes the state folder `state` of the backup that is read from `input`. With `force`, what is there is moved aside.
///
/// # Errors
/// When there is something in `state` and no `force`, a server runs there, or the backup is damaged, incomplete, or of a
/// later version. Then nothing was changed.
pub fn restore(input: impl Read, state: &Path, force: bool) -> Result<Restored, BackupError> {
    // As `PATH/` or `.` it would have no folder beside it.
    let state = &std::path::absolute(state).map_err(BackupError::file(state))?;
    let empty = is_empty(state)?;
    if !empty && !force {
        return Err(BackupError::NotEmpty(state.clone()));
    }
    let _held = hold(state)?;
    let (Some(parent), Some(name)) = (state.parent(), state.file_name()) else {
        return Err(BackupError::NotEmpty(state.clone()));
    };
    let beside =
        |prefix: &str, suffix: &str| parent.join(format!("{prefix}{}{suffix}", name.to_string_lossy()));
    let stage = beside(".", ".restoring");
    match fs::remove_dir_all(&stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(BackupError::file(&stage)(error));
        }
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&stage).map_err(BackupError::file(&stage))?;
    let unpacked = unpack(input, &stage).and_then(|found| settle(&stage, state).map(|()| found));
    let (head, manifest) = match unpacked {
        Ok(found) => found,
        Err(error) => {
            // What is left is removed by the next try.
            drop(fs::remove_dir_all(&stage));
            return Err(error);
        }
    };
    let now = jiff::Timestamp::now().as_millisecond();
    let aside = (!empty).then(|| beside("", &format!(".before-{now}")));
    place(&stage, state, aside.as_deref())?;
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(BackupError::file(parent))?;
    let configuration = manifest.members.iter().any(|member| member.path == CONFIGURATION);
    Ok(Restored {
        head,
        files: manifest.members.len() as u64,
        bytes: manifest.members.iter().map(|member| member.bytes).sum(),
        gone: manifest.gone,
        aside,
        configuration: configuration.then(|| state.join(CONFIGURATION)),
    })
}

/// Whether there is nothing in `state`, or no such folder.
fn is_empty(state: &Path) -> Result<bool, BackupError> {
    match fs::read_dir(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        entries => Ok(entries.map_err(BackupError::file(state))?.next().is_none()),
    }
}

/// Holds the lock that a server has while it runs on `state`.
fn hold(state: &Path) -> Result<Option<File>, BackupError> {
    let lock = state.join("images/lock");
    let Ok(file) = File::open(&lock) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(BackupError::Running(state.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(BackupError::file(&lock)(error)),
    }
}

/// Unpacks all members into `stage` and compares them with the manifest.
fn unpack(input: impl Read, stage: &Path) -> Result<(Head, Manifest), BackupError> {
    let frame = zstd::Decoder::new(input).map_err(BackupError::Stream)?;
    let mut archive = tar::Archive::new(frame);
    let mut entries = archive.entries().map_err(BackupError::Stream)?;
    let mut next = || entries.next().transpose().map_err(BackupError::Stream);
    let first = next()?.ok_or_else(|| BackupError::Damaged("it is empty".to_owned()))?;
    let head: Head = text(first, HEAD)?;
    if head.format > FORMAT {
        return Err(BackupError::Newer { version: head.version, found: head.format, known: FORMAT });
    }
    let mut found = vec![];
    let manifest: Manifest = loop {
        let entry = next()?.ok_or_else(|| BackupError::Damaged("its end is missing".to_owned()))?;
        if path_of(&entry)? == MANIFEST {
            break text(entry, MANIFEST)?;
        }
        found.push(file(entry, stage)?);
    };
    if next()?.is_some() {
        return Err(BackupError::Damaged("something follows its end".to_owned()));
    }
    // To the end of the frame, whose checksum is there.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(BackupError::Stream)?;
    compare(&manifest, found)?;
    records::check(&stage.join(RECORDS)).map_err(BackupError::Records)?;
    Ok((head, manifest))
}

fn compare(manifest: &Manifest, found: Vec<Member>) -> Result<(), BackupError> {
    let mut found: BTreeMap<String, Member> =
        found.into_iter().map(|member| (member.path.clone(), member)).collect();
    for member in &manifest.members {
        match found.remove(&member.path) {
            None => return Err(BackupError::Damaged(format!("{} is missing", member.path))),
            Some(there) if there != *member => {
                return Err(BackupError::Damaged(format!("{} was changed", member.path)));
            }
            Some(_) => {}
        }
    }
    if let Some(path) = found.keys().next() {
        return Err(BackupError::Damaged(format!("{path} does not belong to it")));
    }
    let has = |path: &str| manifest.members.iter().any(|member| member.path == path);
    if !has(RECORDS) || !has("identity.key") {
        return Err(BackupError::Damaged("it has no records or no identity".to_owned()));
    }
    Ok(())
}

fn path_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, BackupError> {
    String::from_utf8(entry.path_bytes().into_owned())
        .ok()
        .filter(|path| is_plain(path) && entry.header().entry_type() == tar::EntryType::Regular)
        .ok_or_else(|| BackupError::Damaged("it has a member that is no file of a state folder".to_owned()))
}

fn text<T: serde::de::DeserializeOwned, R: Read>(
    entry: tar::Entry<'_, R>,
    wanted: &str,
) -> Result<T, BackupError> {
    if path_of(&entry)? != wanted {
        return Err(BackupError::Damaged(format!("it does not begin with {wanted}")));
    }
    let mut content = vec![];
    entry.take(TEXT_MAX).read_to_end(&mut content).map_err(BackupError::Stream)?;
    serde_json::from_slice(&content)
        .map_err(|error| BackupError::Damaged(format!("{wanted} cannot be understood: {error}")))
}

/// Unpacks one member.
fn file<R: Read>(entry: tar::Entry<'_, R>, stage: &Path) -> Result<Member, BackupError> {
    let path = path_of(&entry)?;
    let at = stage.join(&path);
    let mode = entry.header().mode().unwrap_or(0o600) & 0o755;
    if let Some(folder) = at.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(BackupError::file(folder))?;
    }
    // Never over another one: a name that comes twice is damage.
    let new = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&at);
    let mut new = new.map_err(BackupError::file(&at))?;
    let mut content = Hashed { inner: entry, hash: blake3::Hasher::new(), bytes: 0 };
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = content.read(&mut buffer).map_err(BackupError::Stream)?;
        if read == 0 {
            break;
        }
        io::Write::write_all(&mut new, &buffer[..read]).map_err(BackupError::file(&at))?;
    }
    Ok(Member { path, bytes: content.bytes, blake3: content.hash.finalize().to_hex().to_string() })
}

/// Gives everything in `stage` to the owner of `state`, where that is somebody else, and waits until it is on the disk.
fn settle(stage: &Path, state: &Path) -> Result<(), BackupError> {
    let own = fs::metadata(stage).map_err(BackupError::file(stage))?;
    if let Ok(before) = fs::metadata(state)
        && (before.uid(), before.gid()) != (own.uid(), own.gid())
    {
        give(stage, before.uid(), before.gid())?;
    }
    let folder = File::open(stage).map_err(BackupError::file(stage))?;
    // The whole file system: a sync of each of a hundred thousand chunks takes minutes.
    nix::unistd::syncfs(&folder).map_err(|error| BackupError::file(stage)(error.into()))
}

fn give(at: &Path, uid: u32, gid: u32) -> Result<(), BackupError> {
    std::os::unix::fs::lchown(at, Some(uid), Some(gid)).map_err(BackupError::file(at))?;
    if at.is_dir() {
        for entry in fs::read_dir(at).map_err(BackupError::file(at))? {
            give(&entry.map_err(BackupError::file(at))?.path(), uid, gid)?;
        }
    }
    Ok(())
}

/// Puts `stage` into the place of `state`; what was there is then at `aside`.
fn place(stage: &Path, state: &Path, aside: Option<&Path>) -> Result<(), BackupError> {
    let Some(aside) = aside else {
        return fs::rename(stage, state).map_err(BackupError::file(state));
    };
    // The two change places in one system call: at no instant is there no state.
    match renameat2(AT_FDCWD, stage, AT_FDCWD, state, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => fs::rename(stage, aside).map_err(BackupError::file(aside)),
        // The file system cannot do that (NFS). If this is interrupted, both are there under other names.
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
            fs::rename(state, aside).and_then(|()| fs::rename(stage, state)).map_err(BackupError::file(state))
        }
        Err(error) => Err(BackupError::file(state)(error.into())),
    }
}
