//! Everything that must outlive the process, in SQLite. Owns the database file and all SQL; nothing else in
//! the server speaks SQL, so that a fleet that outgrows one machine can have a second implementation of this
//! module. The SQL is plain for the same reason: `$n` parameters in order, `on conflict … do update`, whole
//! numbers and text only, instants as milliseconds since 1970.
//!
//! Writes go through one connection with `synchronous = full`: what was acknowledged survives a power cut
//! (0.14 ms per commit measured, and the fleet commits in groups). Readers of the log have a connection each,
//! which WAL lets read beside the writer. Touches the file, `fleet`'s cores, `api`.

// The tables, and how an older file becomes a newer one.
mod schema;

// Machines, deployments and jobs as rows.
mod rows;

// The step log.
mod log;

// Addresses that the DHCP server gave.
mod leases;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, params};

pub use leases::{LeaseBook, LeaseRow};
pub use log::{LogFilter, LogReader};

use crate::fleet::state::{Change, State};

/// Why the records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The file could not be opened.
    #[error("cannot open the records in {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
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
        /// Why.
        cause: String,
    },
}

/// The writing end of the records: one per server.
#[derive(Debug)]
pub struct Records {
    connection: Connection,
    path: PathBuf,
}

impl Records {
    /// Opens the records in `path`, makes them where there are none, and brings older ones up to date.
    ///
    /// # Errors
    /// When the file cannot be opened or is newer than this program.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        let failed = |source| RecordsError::Open { path: path.to_owned(), source };
        let mut connection = connect(path).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        schema::migrate(&mut connection, path)?;
        restrict(path);
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that is known, but the events.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load(&self) -> Result<State, RecordsError> {
        rows::load(&self.connection)
    }

    /// Writes all of `changes` or none of them, and returns when they are safe on the disk.
    ///
    /// # Errors
    /// When they cannot be written; then nothing was.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), RecordsError> {
        if changes.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction().map_err(RecordsError::Write)?;
        for change in changes {
            rows::write(&transaction, change)?;
        }
        transaction.commit().map_err(RecordsError::Write)
    }

    /// Forgets events from before `until`, but the newest event, which keeps the numbering going.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn forget_events(&mut self, until: Timestamp) -> Result<usize, RecordsError> {
        self.connection
            .execute(
                "delete from events where at < $1 and id < (select max(id) from events)",
                params![until.as_millisecond()],
            )
            .map_err(RecordsError::Write)
    }
}

/// A connection with the manners that all of them need.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Orders can hold user-data with secrets in it, so the file is its owner's alone.
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), %error, "the records' file mode could not be set to 0600");
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod upgrade_tests;
