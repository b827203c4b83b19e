//! The leases of the DHCP server as rows: implements its `LeaseStore`. Uses a connection of its own, so that a lease
//! does not wait for the fleet's commits. Touches the database file and `dhcp4`'s leases.

use std::path::Path;

use rusqlite::{Connection, params};

use super::connection::connect;
use super::error::RecordsError;
use super::values::{all, json, number, text, unsigned, word};
use crate::dhcp4::{Lease, LeaseState, LeaseStore};
use crate::fleet::store::{StoreError, Stored};

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

    /// All leases, expired ones as well, in the order of their addresses as text. One in a state that this version does
    /// not know is left out: its address is free again.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load(&self) -> Result<Vec<Lease>, RecordsError> {
        let sql = "select address, holder, until, state from leases order by address";
        let rows = all(&self.0, sql, |row| {
            let until: i64 = row.get(2)?;
            Ok((row.get::<_, String>(0)?, row.get(1)?, unsigned(until), row.get::<_, String>(3)?))
        })?;
        let mut leases = vec![];
        for (address, holder, until, state) in rows {
            let address = text("leased address", &address)?;
            let Ok(state) = word::<LeaseState>("lease", &state) else { continue };
            leases.push(Lease { address, holder, until, state });
        }
        Ok(leases)
    }

    /// Writes `lease`; it replaces an older one of the same address.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, lease: &Lease) -> Result<(), RecordsError> {
        let sql = "insert into leases (address, holder, until, state) values ($1, $2, $3, $4)
                   on conflict (address) do update set holder = excluded.holder, until = excluded.until,
                       state = excluded.state";
        let mut statement = self.0.prepare_cached(sql).map_err(RecordsError::Write)?;
        let (address, state) = (lease.address.to_string(), json("lease", &lease.state)?);
        statement
            .execute(params![address, lease.holder, number(lease.until), state.trim_matches('"')])
            .map(|_| ())
            .map_err(RecordsError::Write)
    }
}

impl LeaseStore for LeaseBook {
    fn load(&mut self) -> Stored<'_, Vec<Lease>> {
        Box::pin(async move { Self::load(self).map_err(StoreError::new) })
    }

    fn save<'a>(&'a mut self, lease: &'a Lease) -> Stored<'a, ()> {
        Box::pin(async move { Self::save(self, lease).map_err(StoreError::new) })
    }
}
