//! The agent bundle, a zstd-compressed cpio archive (newc): unpacks it into a fresh folder in memory.
//!
//! Its bytes have the hash that the signed plan names, so they are the server's own; even so only plain files and
//! folders are unpacked, no path leads outside, and the sizes are bounded, so that a fault in the server is an error
//! here and does not fill the memory. Touches one folder.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use common::limits::BUNDLE_BYTES_MAX;
use common::modules::is_inside;
use cpio::NewcReader;

#[cfg(test)]
mod tests;

/// The most bytes that are unpacked of a bundle. Modules and firmware compress to a third.
const UNPACKED_BYTES_MAX: u64 = 4 * BUNDLE_BYTES_MAX;

/// The most files and folders in a bundle: more than a whole kernel has modules and firmware.
const ENTRIES_MAX: u32 = 20_000;

/// The agent's path in the bundle.
pub const AGENT: &str = "agent";

const KIND: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// Why a bundle could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The archive is cut short, or is not a zstd-compressed cpio archive.
    #[error("the agent bundle is no archive that can be read")]
    Archive(#[source] io::Error),
    /// It has an entry that is not allowed: a path that leads outside, a device or link, or too many entries.
    #[error("the agent bundle holds {0}")]
    Entry(String),
    /// A file cannot be written: memory is full, most likely.
    #[error("cannot unpack {}", path.display())]
    Write {
        /// The file that was being unpacked.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The archive has no file `agent`.
    #[error("the agent bundle holds no agent")]
    NoAgent,
}

/// Unpacks the bundle `bytes` into `dir`, which is emptied first. Returns the agent's path.
///
/// # Errors
/// When the archive is damaged, has an entry that is not allowed, or does not fit into memory.
pub fn unpack(bytes: &[u8], dir: &Path) -> Result<PathBuf, BundleError> {
    let failed = |source| BundleError::Write { path: dir.to_owned(), source };
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::create_dir_all(dir).map_err(failed)?;
    let plain = zstd::stream::read::Decoder::new(bytes).map_err(BundleError::Archive)?;
    let mut rest: Box<dyn Read + '_> = Box::new(plain.take(UNPACKED_BYTES_MAX));
    for _ in 0..ENTRIES_MAX {
        let mut entry = NewcReader::new(rest).map_err(BundleError::Archive)?;
        if entry.entry().is_trailer() {
            let agent = dir.join(AGENT);
            return if agent.is_file() { Ok(agent) } else { Err(BundleError::NoAgent) };
        }
        unpack_entry(&mut entry, dir)?;
        rest = entry.finish().map_err(BundleError::Archive)?;
    }
    Err(BundleError::Entry(format!("more than {ENTRIES_MAX} files")))
}

fn unpack_entry<R: Read>(entry: &mut NewcReader<R>, dir: &Path) -> Result<(), BundleError> {
    let (name, mode) = (entry.entry().name().to_owned(), entry.entry().mode());
    if name == "." {
        return Ok(());
    }
    if !is_inside(&name) {
        return Err(BundleError::Entry(format!("the path {name:?}, which leads outside")));
    }
    let path = dir.join(&name);
    let failed = |source| BundleError::Write { path: path.clone(), source };
    match mode & KIND {
        FOLDER => fs::create_dir_all(&path).map_err(failed),
        FILE => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(failed)?;
            }
            // Of the mode only whether it is a program is taken over, never set-user-id or the like.
            let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).map_err(failed)?;
            let wanted = u64::from(entry.entry().file_size());
            let got = io::copy(entry, &mut file).map_err(failed)?;
            if got != wanted {
                return Err(BundleError::Archive(io::ErrorKind::UnexpectedEof.into()));
            }
            file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)
        }
        _ => Err(BundleError::Entry(format!("{name:?}, which is no plain file and no folder"))),
    }
}
