//! Values in columns: whole numbers, instants as milliseconds since 1970, JSON and words; and the two ways of running a
//! statement.

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction};
use serde::{Serialize, de::DeserializeOwned};

use super::error::RecordsError;

/// Whether something was written.
pub(super) type Written = Result<(), RecordsError>;

/// Runs one statement that changes something.
pub(super) fn run(transaction: &Transaction<'_>, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Written {
    let mut statement = transaction.prepare_cached(sql).map_err(RecordsError::Write)?;
    statement.execute(values).map(|_| ()).map_err(RecordsError::Write)
}

/// Every row of a query.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RecordsError> {
    let mut statement = connection.prepare(sql).map_err(RecordsError::Read)?;
    let rows = statement.query_map([], read).map_err(RecordsError::Read)?;
    rows.collect::<rusqlite::Result<_>>().map_err(RecordsError::Read)
}

/// SQL's numbers are signed; the few that could exceed it are byte counts far below.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The number that [`number`] wrote.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The instant that was written as milliseconds.
pub(super) fn instant(ms: i64) -> Result<Timestamp, RecordsError> {
    let cause = |error: jiff::Error| RecordsError::Value { what: "time", cause: error.to_string() };
    Timestamp::from_millisecond(ms).map_err(cause)
}

/// `value` as JSON text.
pub(super) fn json<T: Serialize>(what: &'static str, value: &T) -> Result<String, RecordsError> {
    serde_json::to_string(value).map_err(|error| RecordsError::Value { what, cause: error.to_string() })
}

/// The value that was written as JSON text.
pub(super) fn parse<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, RecordsError> {
    serde_json::from_str(text).map_err(|error| RecordsError::Value { what, cause: error.to_string() })
}

/// The value whose serde name is `name`.
pub(super) fn word<T: DeserializeOwned>(what: &'static str, name: &str) -> Result<T, RecordsError> {
    parse(what, &format!("\"{name}\""))
}

/// The value that was written by its `Display`.
pub(super) fn text<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &'static str,
    text: &str,
) -> Result<T, RecordsError> {
    text.parse().map_err(|error: T::Err| RecordsError::Value { what, cause: error.to_string() })
}
