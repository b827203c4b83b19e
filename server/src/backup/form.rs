//! Core: the form of a backup: the names of its members, and what its first and its last say. Touches `jiff`'s times only.

use serde::{Deserialize, Serialize};

/// The version of the form that this program writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

/// The first member.
pub(super) const HEAD: &str = "backup.json";
/// The last member.
pub(super) const MANIFEST: &str = "manifest.json";
/// The member with the configuration file.
pub(super) const CONFIGURATION: &str = "configuration.toml";
/// The member with the copy of the records, named as they are in the state folder.
pub(super) const RECORDS: &str = "records.sqlite";

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of its form.
    pub format: u32,
    /// The version of the program that wrote it.
    pub version: String,
    /// When it was begun.
    pub made: jiff::Timestamp,
    /// Whether the images are in it.
    pub images: bool,
}

/// What a backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Every member but the first and this one, in their order.
    pub members: Vec<Member>,
    /// Files that were removed while the backup was written, such as those of an image that was removed.
    pub gone: Vec<String>,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its path in the state folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// The BLAKE3 of its content, in hexadecimal.
    pub blake3: String,
}
