//! Why the records could not be read or written. Touches nothing.

use std::path::PathBuf;

/// Why the records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The file could not be opened.
    #[error("cannot open the records in {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error underneath.
        #[source]
        source: rusqlite::Error,
    },
    /// Written by a later swarmboot.
    #[error("the records in {} have schema {found}, newer than this program's {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema it has.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// A change could not be written.
    #[error("cannot write the records")]
    Write(#[source] rusqlite::Error),
    /// They could not be read.
    #[error("cannot read the records")]
    Read(#[source] rusqlite::Error),
    /// A value that no version of this program writes.
    #[error("the records hold a {what} that cannot be read: {cause}")]
    Value {
        /// Which value.
        what: &'static str,
        /// What the value says instead of what it should.
        cause: String,
    },
}
