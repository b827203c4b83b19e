//! Profiles as rows. What one says is kept in the form of an order. Touches the transaction or the row that it is given.

use rusqlite::{Row, Transaction, params};

use super::error::RecordsError;
use super::stored::StoredOrder;
use super::values::{Written, instant, json, number, parse, run, unsigned};
use crate::api::shapes::DeployOrder;
use crate::fleet::profile::Profile;

/// The query whose rows [`profile`] reads.
pub(super) const PROFILES: &str = "select id, name, added, added_by, wish from profiles order by id";

pub(super) fn write(transaction: &Transaction<'_>, profile: &Profile) -> Written {
    run(
        transaction,
        "insert into profiles (id, name, added, added_by, wish) values ($1, $2, $3, $4, $5)",
        params![
            number(profile.number),
            profile.name,
            profile.added.as_millisecond(),
            profile.by,
            json("profile", &StoredOrder::from(&profile.wish))?,
        ],
    )
}

pub(super) fn remove(transaction: &Transaction<'_>, id: u64) -> Written {
    run(transaction, "delete from profiles where id = $1", params![number(id)])
}

/// A profile from its row. One that cannot be read is set aside: nothing is ordered by it.
pub(super) fn profile(row: &Row<'_>) -> rusqlite::Result<Result<Profile, RecordsError>> {
    let (id, added): (i64, i64) = (row.get(0)?, row.get(2)?);
    let (name, by, wish): (String, String, String) = (row.get(1)?, row.get(3)?, row.get(4)?);
    Ok((|| {
        Ok(Profile {
            number: unsigned(id),
            name,
            added: instant(added)?,
            by,
            wish: DeployOrder::from(parse::<StoredOrder>("profile", &wish)?),
        })
    })())
}
