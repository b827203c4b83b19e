//! The database file: its permissions, and the settings of every connection to it. Touches files.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Opens a connection to the database, which is created if it is not there, with the settings that all of them share.
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

/// Makes the database readable for its owner only, since orders can hold user-data with secrets. The file is created
/// with that mode before SQLite opens it, and SQLite gives its journals the mode of the file. Files of an earlier run
/// that others can read are changed.
pub(super) fn make_private(path: &Path) {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let made = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    // An error is left to SQLite, which fails to open the file in the next step.
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
