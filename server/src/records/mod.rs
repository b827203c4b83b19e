//! Everything that must outlive the process, in SQLite. Owns the database file and all SQL; nothing else in the server
//! speaks SQL or knows of it: the fleet has a [`Store`](crate::fleet::store::Store), which this module implements and a
//! fleet that outgrows one machine can have a second implementation of. The SQL is plain for the same reason: `$n`
//! parameters in order, `on conflict … do update`, whole numbers and text only, instants as milliseconds since 1970.
//!
//! Writes go through one connection with `synchronous = full`: what was acknowledged survives a power cut
//! (0.14 ms per commit measured, and the fleet commits in groups). Readers of the log have a connection each,
//! which WAL lets read beside the writer. Touches the file, `fleet`'s cores, `api`.

// What can go wrong.
mod error;

// The file, and connections to it.
mod connection;

// The tables, and how an older file becomes a newer one.
mod schema;

// What stands in columns as words and JSON.
mod stored;

// Numbers, instants, JSON and words in columns.
mod values;

// Machines, deployments and jobs as rows.
mod write;

// Rows as machines, deployments and jobs.
mod read;

// The step log.
mod log;

// Addresses that the DHCP server gave.
mod leases;

// What the fleet asks of its records.
mod store;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, params};

pub use error::RecordsError;
pub use leases::LeaseBook;
pub use log::LogReader;

use crate::fleet::state::{Change, State};
use crate::fleet::store::KnownHardware;

/// Events that are forgotten in one transaction: a fraction of a second.
const FORGOTTEN_AT_ONCE: i64 = 20_000;

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
        connection::make_private(path);
        let mut connection = connection::connect(path).map_err(failed)?;
        let found = schema::found(&connection, path)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        // What is deleted or overwritten is written over with zeros: orders hold secrets.
        connection.pragma_update(None, "secure_delete", "on").map_err(failed)?;
        schema::migrate(&mut connection, path, found)?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// All that is known, but the events.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load(&self) -> Result<State, RecordsError> {
        self.load_beside(&KnownHardware::new())
    }

    /// All that is known, but the events. Hardware in `known` is taken from there and not read.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load_beside(&self, known: &KnownHardware) -> Result<State, RecordsError> {
        read::load(&self.connection, known)
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
            write::write(&transaction, change)?;
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
        pages().map(values::unsigned).map_err(RecordsError::Read)
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod upgrade_tests;
