//! Backups: everything in the state folder as one file, and a state folder made from one. Owns the form of the file;
//! touches the state folder, the configuration file, and `records` for a copy of the database.
//!
//! A backup is a tar archive in a zstd frame. Its first member is `backup.json` ([`Head`]), so that a program that is too
//! old says so before it has read a terabyte; its last is `manifest.json` ([`Manifest`]) with the BLAKE3 of every member
//! between, so that it is written in one pass and a file that was cut off is noticed. Members are named as in the state
//! folder. It holds the server's keys: whoever has it can sign plans that erase disks.

// Errors.
mod error;

// Core: which files are part of a backup.
mod members;

// Writes a backup while the server runs.
mod write;

// Makes a state folder of a backup.
mod restore;

use serde::{Deserialize, Serialize};

pub use self::error::BackupError;
pub use self::restore::{Restored, restore};
pub use self::write::Backup;

/// The version of the form that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// The first member.
const HEAD: &str = "backup.json";
/// The last member.
const MANIFEST: &str = "manifest.json";
/// The member with the configuration file.
const CONFIGURATION: &str = "configuration.toml";
/// The member with the copy of the records, named as they are in the state folder.
const RECORDS: &str = "records.sqlite";

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

#[cfg(test)]
mod tests;
