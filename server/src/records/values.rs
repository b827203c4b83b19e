//! Conversion of values in columns: whole numbers, times as milliseconds since 1970, JSON and words; and helpers that
//! run a statement. Touches the connection they are given.

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction};
use serde::{Serialize, de::DeserializeOwned};

use super::error::RecordsError;

/// The result of a statement that writes.
pub(super) type Written = Result<(), RecordsError>;

/// Runs one statement that writes.
pub(super) fn run(transaction: &Transaction<'_>, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Written {
    let mut statement = transaction.prepare_cached(sql).map_err(RecordsError::Write)?;
    statement.execute(values).map(|_| ()).map_err(RecordsError::Write)
}

/// All rows of a query without parameters, each as `read` converts it; fails on the first error of `read`.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RecordsError> {
    let mut statement = connection.prepare(sql).map_err(RecordsError::Read)?;
    let rows = statement.query_map([], read).map_err(RecordsError::Read)?;
    rows.collect::<rusqlite::Result<_>>().map_err(RecordsError::Read)
}

/// `value` for a column, where numbers are signed. Capped at the largest, which no byte count comes near.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The reverse of [`number`]; negative values, which it does not write, become 0.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The time that was written as milliseconds since 1970.
pub(super) fn instant(ms: i64) -> Result<Timestamp, RecordsError> {
    let cause = |error: jiff::Error| RecordsError::Value { what: "time", cause: error.to_string() };
    Timestamp::from_millisecond(ms).map_err(cause)
}

/// `value` as JSON text; `what` names it in an error.
pub(super) fn json<T: Serialize>(what: &'static str, value: &T) -> Result<String, RecordsError> {
    serde_json::to_string(value).map_err(|error| RecordsError::Value { what, cause: error.to_string() })
}

/// The reverse of [`json`].
pub(super) fn parse<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, RecordsError> {
    serde_json::from_str(text).map_err(|error| RecordsError::Value { what, cause: error.to_string() })
}

/// The enum variant whose serde name is `name`.
pub(super) fn word<T: DeserializeOwned>(what: &'static str, name: &str) -> Result<T, RecordsError> {
    parse(what, &format!("\"{name}\""))
}

/// The value that was written as text by its `Display`.
pub(super) fn text<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &'static str,
    text: &str,
) -> Result<T, RecordsError> {
    text.parse().map_err(|error: T::Err| RecordsError::Value { what, cause: error.to_string() })
}
