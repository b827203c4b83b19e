//! The errors of the records. Touches nothing.

use std::path::PathBuf;

/// Why the records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The database could not be opened or upgraded.
    #[error("cannot open the records in {}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
    /// The copy of the database could not be made.
    #[error("cannot write {}", path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// What the operating system answered.
        #[source]
        source: std::io::Error,
    },
    /// The database was written by a later version of swarmboot.
    #[error("the records in {} have schema {found}, newer than this program's {known}", path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The newest schema version that this program knows.
        known: i64,
    },
    /// A statement that writes failed.
    #[error("cannot write the records")]
    Write(#[source] rusqlite::Error),
    /// A statement that reads failed.
    #[error("cannot read the records")]
    Read(#[source] rusqlite::Error),
    /// A value that this version does not understand.
    #[error("the records hold a {what} that cannot be read: {cause}")]
    Value {
        /// What the value is, such as "job state".
        what: &'static str,
        /// The value, or the parser's error.
        cause: String,
    },
}
