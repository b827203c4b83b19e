//! The database file: who may read it, and how every connection to it behaves. Touches files.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// A connection with the manners that all of them need.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
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
pub(super) fn make_private(path: &Path) {
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
