//! A copy of the records as they are at one instant, made while the fleet writes on, and the check of such a copy. Touches
//! both files.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::params;

use super::connection::connect;
use super::error::RecordsError;
use super::schema;

/// Writes what the records in `path` hold now to the new file `into`, for its owner alone. The writer is not held up: a
/// reader has its own view of the database. `vacuum into` and not the backup API, because that begins again whenever
/// something is committed meanwhile.
///
/// # Errors
/// When the records cannot be read, or the copy cannot be written.
pub fn snapshot(path: &Path, into: &Path) -> Result<(), RecordsError> {
    let failed = |source| RecordsError::Open { path: path.to_owned(), source };
    // Orders hold secrets: SQLite takes an empty file, with the mode that it has.
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(into);
    made.map_err(|error| RecordsError::Copy { path: into.to_owned(), source: error })?;
    let connection = connect(path).map_err(failed)?;
    connection.execute("vacuum into $1", params![into.to_string_lossy()]).map_err(RecordsError::Read)?;
    Ok(())
}

/// Checks that the file in `path` holds records that this program can open, now or after its upgrade. It is not changed.
///
/// # Errors
/// When it is damaged, no database, or of a later version.
pub fn check(path: &Path) -> Result<(), RecordsError> {
    let failed = |source| RecordsError::Open { path: path.to_owned(), source };
    let connection = connect(path).map_err(failed)?;
    if schema::found(&connection, path)? == 0 {
        return Err(RecordsError::Value { what: "schema", cause: "there is none".to_owned() });
    }
    let found: String =
        connection.query_row("pragma quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found == "ok" { Ok(()) } else { Err(RecordsError::Value { what: "page", cause: found }) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::fleet::state::Change;
    use crate::records::Records;

    #[test]
    fn a_copy_is_whole_private_and_of_one_instant() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("records.sqlite"), dir.path().join("copy"));
        let mut records = Records::open(&path).unwrap();
        let frozen = |reason: &str| {
            let since = jiff::Timestamp::UNIX_EPOCH;
            Change::Frozen(Some(crate::api::shapes::Frozen { since, reason: Some(reason.to_owned()) }))
        };
        records.commit(&[frozen("before")]).unwrap();
        snapshot(&path, &copy).unwrap();
        records.commit(&[frozen("after")]).unwrap();
        check(&copy).unwrap();
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        let state = Records::open(&copy).unwrap().load().unwrap();
        assert_eq!(state.frozen.unwrap().reason.as_deref(), Some("before"));
        assert!(matches!(snapshot(&path, &copy), Err(RecordsError::Copy { .. })), "nothing is overwritten");
    }

    #[test]
    fn what_is_no_copy_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.sqlite");
        std::fs::write(&path, b"").unwrap();
        assert!(check(&path).is_err(), "an empty file");
        std::fs::write(&path, [7; 8192]).unwrap();
        assert!(check(&path).is_err(), "no database");
    }
}
