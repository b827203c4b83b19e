//! Core: what an admin can do about an error of the file system. Blobs that are no files have hints of their own.
//! Touches nothing.

use std::io;

/// What helps against an error of the file system.
pub(super) fn io_hint(error: &io::Error) -> Option<String> {
    let text = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: remove images that are not needed, or move the state folder (--state) to a larger disk"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the state folder is on a file system that is mounted read-only",
        io::ErrorKind::PermissionDenied => "run it as a user that may read and write there",
        io::ErrorKind::NotFound => "check the path",
        _ => return None,
    };
    Some(text.to_owned())
}
