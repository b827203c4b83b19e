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

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::id::MachineId;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, params};

pub use leases::{LeaseBook, LeaseRow};
pub use log::{LogFilter, LogReader};

use crate::fleet::state::{Change, State};

/// Events that are forgotten in one transaction: a fraction of a second.
const FORGOTTEN_AT_ONCE: i64 = 20_000;

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
        make_private(path);
        let mut connection = connect(path).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        // What is deleted or overwritten is written over with zeros: orders hold secrets.
        connection.pragma_update(None, "secure_delete", "on").map_err(failed)?;
        schema::migrate(&mut connection, path)?;
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
        rows::load(&self.connection, |_| None)
    }

    /// All that is known, when `changes` that `before` holds already could not be written. Hardware that they do not touch
    /// is taken from `before`: to read the reports of 2,000 machines again costs seconds for each request while a
    /// disk is full.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load_again(&self, before: &State, changes: &[Change]) -> Result<State, RecordsError> {
        let touched: HashSet<MachineId> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Hardware(id, _) | Change::Forget(id) => Some(*id),
                _ => None,
            })
            .collect();
        let untouched = |id| before.machines.get(&id).filter(|_| !touched.contains(&id));
        rows::load(&self.connection, |id| untouched(id)?.hardware.clone())
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
        transaction.commit().map_err(RecordsError::Write)?;
        let secret = |change: &Change| matches!(change, Change::Deployment(order) if order.request.as_ordered().secrets_removed);
        if changes.iter().any(secret) {
            // The journal still has what was overwritten. A reader may be in the way; then the next time does it.
            let _ = self.connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
        }
        Ok(())
    }

    /// Forgets events from before `until`, but the newest event, which keeps the numbering going. At most
    /// `FORGOTTEN_AT_ONCE`, so that nobody waits for long; how many they were.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn forget_events(&mut self, until: Timestamp) -> Result<usize, RecordsError> {
        let sql = "delete from events where id in (select id from events where at < $1 order by id limit $2)
                   and id < (select max(id) from events)";
        self.connection
            .execute(sql, params![until.as_millisecond(), FORGOTTEN_AT_ONCE])
            .map_err(RecordsError::Write)
    }

    /// Forgets the oldest events while the records hold more than `most` bytes, at most `FORGOTTEN_AT_ONCE`. What is freed
    /// is used again; the file itself does not shrink.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn shrink_events(&mut self, most: u64) -> Result<usize, RecordsError> {
        if self.used_bytes()? <= most {
            return Ok(0);
        }
        let sql = "delete from events where id in (select id from events order by id limit $1)
                   and id < (select max(id) from events)";
        self.connection.execute(sql, params![FORGOTTEN_AT_ONCE]).map_err(RecordsError::Write)
    }

    /// Bytes of the file that hold something.
    fn used_bytes(&self) -> Result<u64, RecordsError> {
        let ask = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = || -> rusqlite::Result<i64> {
            Ok((ask("page_count")? - ask("freelist_count")?).saturating_mul(ask("page_size")?))
        };
        pages().map(rows::unsigned).map_err(RecordsError::Read)
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

/// Orders can hold user-data with secrets in it, so the files are their owner's alone, from the first byte on: made
/// with that mode before SQLite opens them, which gives its journals the mode of the file. Files of an earlier run
/// that are readable for others are changed.
fn make_private(path: &Path) {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let made = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    // Why it cannot be opened, SQLite says in a moment.
    drop(made);
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        let set = std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600));
        if let Err(error) = set
            && error.kind() != std::io::ErrorKind::NotFound
        {
            let file = file.display();
            tracing::warn!(%file, %error, "the mode of a file of the records could not be set to 0600");
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod upgrade_tests;
