//! The records: the fleet's state, its log and the DHCP leases in SQLite. Owns the database file and all SQL: nothing
//! else in the server knows of it. The fleet uses its trait [`Store`](crate::fleet::store::Store), which this module
//! implements; another database can implement it as well. The SQL is plain for the same reason: `$n` parameters in
//! order, `on conflict … do update`, whole numbers and text only, times as milliseconds since 1970.
//!
//! Writes go through one connection with `synchronous = full`: what was acknowledged survives a power cut
//! (0.14 ms per commit measured, and the fleet commits in groups). Readers of the log have a connection each,
//! which WAL lets read beside the writer. Touches the file, `fleet`'s cores, `dhcp4`'s leases, `api`.

// Errors.
mod error;

// The database file, and connections to it.
mod connection;

// The tables, and the upgrade of older databases.
mod schema;

// The forms of values in columns as words and JSON.
mod stored;

// Conversion of numbers, times, JSON and words in columns.
mod values;

// Writes changes of the state as rows.
mod write;

// Reads the state from rows.
mod read;

// Relays and staged images.
mod relays;

// Answers to orders, for who asks twice.
mod answers;

// Tokens of the API.
mod tokens;

// Profiles.
mod profiles;

// The step log.
mod log;

// The leases of the DHCP server.
mod leases;

// Copies for backups.
mod snapshot;

// The fleet's traits `Store` and `Log`, implemented over SQLite.
mod store;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, params};

pub use error::RecordsError;
pub use leases::LeaseBook;
pub use log::LogReader;
pub use snapshot::{check, snapshot};

use crate::fleet::state::{Change, State};
use crate::fleet::store::KnownHardware;

/// Events that are deleted in one transaction: it takes a fraction of a second.
const FORGOTTEN_AT_ONCE: i64 = 20_000;

/// The writing end of the records: one per server.
#[derive(Debug)]
pub struct Records {
    connection: Connection,
    path: PathBuf,
}

impl Records {
    /// Opens the records in `path`, creates them if there are none, and upgrades older ones.
    ///
    /// # Errors
    /// When the file cannot be opened or upgraded, or is newer than this program.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        let failed = |source| RecordsError::Open { path: path.to_owned(), source };
        connection::make_private(path);
        let mut connection = connection::connect(path).map_err(failed)?;
        let found = schema::found(&connection, path)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        // SQLite overwrites deleted content with zeros: orders hold secrets.
        connection.pragma_update(None, "secure_delete", "on").map_err(failed)?;
        schema::migrate(&mut connection, path, found)?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Reads the state, without the events.
    ///
    /// # Errors
    /// When the database cannot be read; single rows that cannot be read are in the state's `set_aside`.
    pub fn load(&self) -> Result<State, RecordsError> {
        self.load_beside(&KnownHardware::new())
    }

    /// Reads the state, without the events. Hardware in `known` is taken from there and not read.
    ///
    /// # Errors
    /// When the database cannot be read; single rows that cannot be read are in the state's `set_aside`.
    pub fn load_beside(&self, known: &KnownHardware) -> Result<State, RecordsError> {
        read::load(&self.connection, known)
    }

    /// Commits all of `changes` or none of them, and returns when they are synced to the disk.
    ///
    /// # Errors
    /// When they cannot be committed; then none is.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), RecordsError> {
        if changes.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction().map_err(RecordsError::Write)?;
        for change in changes {
            write::write(&transaction, change)?;
        }
        transaction.commit().map_err(RecordsError::Write)?;
        let secret = |change: &Change| match change {
            Change::Deployment(order) => order.request.as_ordered().secrets_removed,
            Change::ProfileGone(_) => true,
            _ => false,
        };
        if changes.iter().any(secret) {
            // The write-ahead log still holds the secrets that were overwritten. A reader may prevent the checkpoint;
            // then a later one does it.
            let _ = self.connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
        }
        Ok(())
    }

    /// Deletes events from before `until`, except the newest of all, from which the numbering continues, and returns
    /// how many: at most `FORGOTTEN_AT_ONCE`, so that no other request waits for long.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub fn forget_events(&mut self, until: Timestamp) -> Result<usize, RecordsError> {
        let oldest = "select id from events where at < $1 order by id limit $2";
        self.forget(oldest, params![until.as_millisecond(), FORGOTTEN_AT_ONCE])
    }

    /// Deletes the oldest events if the records hold more than `most` bytes, at most `FORGOTTEN_AT_ONCE`, and returns
    /// how many. Freed pages are reused; the file itself does not shrink.
    ///
    /// # Errors
    /// When the size cannot be read, or the events cannot be deleted.
    pub fn shrink_events(&mut self, most: u64) -> Result<usize, RecordsError> {
        if self.used_bytes()? <= most {
            return Ok(0);
        }
        self.forget("select id from events order by id limit $1", params![FORGOTTEN_AT_ONCE])
    }

    /// Deletes the events whose numbers the query `oldest` gives, but never the newest of all, and notes how far the
    /// deleted ones reach: who follows the log can then tell what it missed.
    fn forget(&mut self, oldest: &str, values: &[&dyn rusqlite::ToSql]) -> Result<usize, RecordsError> {
        let those = format!("id in ({oldest}) and id < (select max(id) from events)");
        let transaction = self.connection.transaction().map_err(RecordsError::Write)?;
        let sql = format!("select max(id) from events where {those}");
        let last: Option<i64> =
            transaction.query_row(&sql, values, |row| row.get(0)).map_err(RecordsError::Write)?;
        let Some(last) = last else { return Ok(0) };
        write::count(&transaction, log::FORGOTTEN, values::unsigned(last))?;
        let sql = format!("delete from events where {those}");
        let count = transaction.execute(&sql, values).map_err(RecordsError::Write)?;
        transaction.commit().map_err(RecordsError::Write)?;
        Ok(count)
    }

    /// Bytes of the file's pages that are in use.
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
