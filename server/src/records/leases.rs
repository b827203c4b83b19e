//! The leases of the DHCP server as rows. Uses a connection of its own, so that a lease does not wait for the fleet's
//! commits. Touches the database file.

use std::net::Ipv4Addr;
use std::path::Path;

use rusqlite::{Connection, params};

use super::connection::connect;
use super::error::RecordsError;
use super::values::{all, number, text, unsigned};

/// One lease as a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The leased address; each has one row at the most.
    pub address: Ipv4Addr,
    /// The client that has the lease, in the form of the DHCP server.
    pub holder: String,
    /// When the lease ends, in seconds since 1970.
    pub until: u64,
    /// The state of the lease, in the form of the DHCP server.
    pub state: String,
}

/// Reads and writes leases over its own connection.
#[derive(Debug)]
pub struct LeaseBook(Connection);

impl LeaseBook {
    /// Opens the leases in the records in `path`, which [`super::Records::open`] has created or upgraded before.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        let failed = |source| RecordsError::Open { path: path.to_owned(), source };
        let connection = connect(path).map_err(failed)?;
        connection.pragma_update(None, "synchronous", "normal").map_err(failed)?;
        Ok(Self(connection))
    }

    /// All leases, expired ones as well, in the order of their addresses as text.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load(&self) -> Result<Vec<LeaseRow>, RecordsError> {
        let sql = "select address, holder, until, state from leases order by address";
        let rows = all(&self.0, sql, |row| {
            let until: i64 = row.get(2)?;
            Ok((row.get::<_, String>(0)?, row.get(1)?, unsigned(until), row.get(3)?))
        })?;
        rows.into_iter()
            .map(|(address, holder, until, state)| {
                Ok(LeaseRow { address: text("leased address", &address)?, holder, until, state })
            })
            .collect()
    }

    /// Writes `lease`; it replaces an older one of the same address.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, lease: &LeaseRow) -> Result<(), RecordsError> {
        let sql = "insert into leases (address, holder, until, state) values ($1, $2, $3, $4)
                   on conflict (address) do update set holder = excluded.holder, until = excluded.until,
                       state = excluded.state";
        let mut statement = self.0.prepare_cached(sql).map_err(RecordsError::Write)?;
        let address = lease.address.to_string();
        statement
            .execute(params![address, lease.holder, number(lease.until), lease.state])
            .map(|_| ())
            .map_err(RecordsError::Write)
    }
}
