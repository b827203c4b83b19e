//! Backups: everything in the state folder as one file, and a state folder made from one. Owns the form of the file;
//! touches the state folder, the configuration file, and `records` for a copy of the database.
//!
//! A backup is a tar archive in a zstd frame. Its first member is `backup.json` ([`Head`]), so that a program that is too
//! old says so before it has read a terabyte; its last is `manifest.json` ([`Manifest`]) with the BLAKE3 of every member
//! between, so that it is written in one pass and a file that was cut off is noticed. Members are named as in the state
//! folder. It holds the server's keys: whoever has it can sign plans that erase disks.

// Errors.
mod error;

// Core: the form of the file.
mod form;

// Core: which files are part of a backup.
mod members;

// Writes a backup while the server runs.
mod write;

// Makes a state folder of a backup.
mod restore;

pub use self::error::BackupError;
pub use self::form::{Head, Manifest, Member};
pub use self::restore::{Restored, restore};
pub use self::write::Backup;

#[cfg(test)]
mod tests;
