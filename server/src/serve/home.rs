//! The state folder, and the server's identity in it. Touches the folder itself and `identity.key`.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use common::trust::KeyPair;

use crate::fault::Fault;
use crate::whole_file;

/// The state folder, which exists and can be read.
#[derive(Debug)]
pub(super) struct Home {
    /// The folder's path, as configured.
    pub(super) dir: PathBuf,
    /// The server's identity. Machines check every signature of the server against it, so it must outlive the process.
    pub(super) keys: KeyPair,
}

impl Home {
    /// Opens the folder, creating it if needed, and reads the identity or makes a new one.
    pub(super) fn open(dir: &Path) -> Result<Self, Fault> {
        state_folder(dir)?;
        let keys = identity(&dir.join("identity.key"))?;
        Ok(Self { dir: dir.to_owned(), keys })
    }
}

/// Creates the state folder `dir` if it is not there: for its owner alone, because there are keys in it.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn state_folder(dir: &Path) -> Result<(), Fault> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        Fault::failed(format!("cannot make the state folder {}", dir.display()))
            .because(&error)
            .hint("run as root, or choose another folder with --state")
    })
}

/// The key pair in the file `path`; a new one, written there, when there is no such file.
///
/// # Errors
/// When the file holds no key, or cannot be read or written.
pub(crate) fn identity(path: &Path) -> Result<KeyPair, Fault> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let mut secret = [0; 32];
            hex::decode_to_slice(text.trim(), &mut secret).map_err(|error| {
                Fault::failed(format!("{} holds no key", path.display())).because(&error).hint(
                    "put the right file back from a backup; if there is none, remove it: machines that are in the \
                     middle of a job will have to be started again",
                )
            })?;
            Ok(KeyPair::from_secret(secret))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_identity(path),
        Err(error) => Err(Fault::failed(format!("cannot read {}", path.display()))
            .because(&error)
            .hint("only the user that made it may read it: run as that user")),
    }
}

fn make_identity(path: &Path) -> Result<KeyPair, Fault> {
    let keys =
        KeyPair::generate().map_err(|error| Fault::failed("there is no random source").because(&error))?;
    // Whole: a key that is only half written would be refused at every start; and a power cut after the first start must
    // not lose it, or the next would make another.
    let text = format!("{}\n", hex::encode(keys.secret()));
    whole_file::write(path, text.as_bytes(), 0o600)
        .map_err(|error| Fault::failed(format!("cannot write {}", path.display())).because(&error))?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_identity_outlives_the_process_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let first = Home::open(&state).unwrap();
        let second = Home::open(&state).unwrap();
        assert_eq!(first.keys.public(), second.keys.public());
        let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("identity.key"), 0o600);
        assert_eq!(mode("."), 0o700);
    }

    #[test]
    fn a_broken_identity_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.key"), "nonsense").unwrap();
        assert!(Home::open(dir.path()).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("identity.key")).unwrap(), "nonsense");
    }
}
