//! Core: which files of the state folder are part of a backup. A folder that a later version adds is part of it without a
//! change here; only what can be made again is left out. Touches `form`.

use super::form::{CONFIGURATION, HEAD, MANIFEST, RECORDS};

/// Folders right in the state folder that hold only what is made again when it is needed.
const MADE_AGAIN: &[&str] = &["bundles", "loaders", "loader-agents", "drivers"];

/// Files and folders of the image store that are left out without images: with what remains, the images are known by
/// name, and adding one of them again mends it.
const CHUNKS: &[&str] = &["images/chunks", "images/deltas"];

/// What is done with a file or folder, by its path in the state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It is part of the backup.
    Whole,
    /// It is not, nor is anything in it.
    Not,
    /// The backup has a copy of it that is of one instant.
    Copied,
}

/// Whether what is at `path` is part of a backup with or without `images`.
pub(super) fn part(path: &str, images: bool) -> Part {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_part = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix);
    if path == RECORDS {
        return Part::Copied;
    }
    let made_again = MADE_AGAIN.contains(&path) || (!images && CHUNKS.contains(&path));
    // The database's journals; locks, folders of unfinished work, and files that are being written.
    let unfinished = path.starts_with("records.sqlite-")
        || name.starts_with('.')
        || name == "lock"
        || path == "images/tmp"
        || is_part(".part")
        || [HEAD, MANIFEST, CONFIGURATION].contains(&path);
    if made_again || unfinished { Part::Not } else { Part::Whole }
}

/// Whether `path` may be the name of a member: a relative path without `.`, `..` and empty parts.
pub(super) fn is_plain(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !["", ".", ".."].contains(&part)) && !path.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_again_is_part() {
        let table = [
            ("identity.key", Part::Whole, Part::Whole),
            ("tls.key", Part::Whole, Part::Whole),
            ("records.sqlite", Part::Copied, Part::Copied),
            ("records.sqlite-wal", Part::Not, Part::Not),
            ("identity.part", Part::Not, Part::Not),
            ("kits/6.1/kernel", Part::Whole, Part::Whole),
            ("kits/.import-12", Part::Not, Part::Not),
            ("images/names/debian.json", Part::Whole, Part::Whole),
            ("images/chunks", Part::Whole, Part::Not),
            ("images/lock", Part::Not, Part::Not),
            ("bundles", Part::Not, Part::Not),
            ("something new", Part::Whole, Part::Whole),
        ];
        for (path, with, without) in table {
            assert_eq!((part(path, true), part(path, false)), (with, without), "{path}");
        }
    }

    #[test]
    fn a_member_cannot_leave_the_folder() {
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\0b"] {
            assert!(!is_plain(path), "{path:?}");
        }
        assert!(is_plain("images/names/a b.json"));
    }
}
