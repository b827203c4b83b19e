//! What a relay keeps over a restart beside its caches: its key, whom it trusts, and the site as it was last told. Owns
//! those files of the state folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use common::trust::{KeyPair, PublicKey};
use common::wire::relay::{SiteState, SiteWork};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::serve::{identity, state_folder};
use crate::whole_file;

/// The state folder.
#[derive(Debug)]
pub(super) struct Home {
    /// Its path, as configured.
    pub(super) dir: PathBuf,
    /// The relay's own key.
    pub(super) keys: KeyPair,
    _lock: File,
}

/// The server that has let this relay in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Enrolment {
    /// The server's key: nothing is believed that another one has signed.
    pub(super) server: PublicKey,
    /// The relay's name there.
    pub(super) name: String,
    /// The site that it is at.
    pub(super) site: String,
    /// Whether the server has revoked it since.
    pub(super) revoked: bool,
}

impl Home {
    /// Opens the folder, creating it and the key if needed.
    ///
    /// # Errors
    /// When it cannot be used, or another relay uses it.
    pub(super) fn open(dir: &Path) -> Result<Self, Fault> {
        state_folder(dir)?;
        let lock = File::create(dir.join("lock")).map_err(|error| unwritten(&dir.join("lock"), &error))?;
        lock.try_lock().map_err(|error| {
            Fault::failed(format!("the state folder {} is in use", dir.display()))
                .because(&error)
                .hint("stop the other relay, or give this one its own --state folder")
        })?;
        Ok(Self { dir: dir.to_owned(), keys: identity(&dir.join(KEY))?, _lock: lock })
    }

    /// The server that has let this relay in; none at the first start.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(super) fn enrolment(&self) -> Result<Option<Enrolment>, Fault> {
        let path = self.dir.join(ENROLMENT);
        read(&path).map_err(|error| {
            Fault::failed(format!("cannot read {}", path.display()))
                .because(&error)
                .hint("if it is damaged, remove it, and start with a new --invite word")
        })
    }

    /// Keeps the server that has let this relay in. What another one told is forgotten.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn enrolled(&self, enrolment: &Enrolment) -> Result<(), Fault> {
        let path = self.dir.join(ENROLMENT);
        if !enrolment.revoked {
            drop(fs::remove_file(self.dir.join(SITE)));
        }
        write(&path, enrolment).map_err(|error| unwritten(&path, &error))
    }

    /// A new key in place of one that was revoked.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn new_key(&mut self) -> Result<(), Fault> {
        let path = self.dir.join(KEY);
        fs::rename(&path, path.with_extension("revoked")).map_err(|error| unwritten(&path, &error))?;
        self.keys = identity(&path)?;
        Ok(())
    }

    /// The site as it was last told; nothing when that cannot be read, because the server tells it again.
    pub(super) fn site(&self) -> SiteState {
        match read(&self.dir.join(SITE)) {
            Ok(site) => site.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "the site's last state cannot be read: machines are not answered until the server has told it");
                SiteState::default()
            }
        }
    }

    /// Where the site is kept, for [`keep_site`].
    pub(super) fn site_path(&self) -> PathBuf {
        self.dir.join(SITE)
    }
}

/// Keeps the site for the next start, without the machines that are to be woken now. Blocks.
pub(super) fn keep_site(path: &Path, site: &SiteState) {
    let work = site.work.clone().map(|work| SiteWork { wake: vec![], ..work });
    if let Err(error) = write(path, &SiteState { work, ..site.clone() }) {
        tracing::warn!(%error, "the site's state could not be kept: a restart without the server knows an older one");
    }
}

const KEY: &str = "relay.key";
const ENROLMENT: &str = "enrolment.json";
const SITE: &str = "site.json";

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    whole_file::write(path, &serde_json::to_vec_pretty(value)?, 0o644)
}

fn unwritten(path: &Path, error: &io::Error) -> Fault {
    Fault::failed(format!("cannot write {}", path.display()))
        .because(error)
        .hint("the state folder must be writable, with room on its disk")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use common::wire::relay::SiteBoot;

    use super::*;

    #[test]
    fn a_relay_knows_itself_and_its_server_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("relay");
        let mut home = Home::open(&state).unwrap();
        let first = home.keys.public();
        assert_eq!(fs::metadata(state.join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Home::open(&state).is_err(), "one relay for each folder");
        assert_eq!(home.enrolment().unwrap(), None);
        let server = KeyPair::from_secret([7; 32]).public();
        let enrolment =
            Enrolment { server, name: "branch".to_owned(), site: "branch".to_owned(), revoked: false };
        home.enrolled(&enrolment).unwrap();
        let boot = Some(SiteBoot { site: "branch".to_owned(), ..SiteBoot::default() });
        keep_site(&home.site_path(), &SiteState { boot: boot.clone(), ..SiteState::default() });
        drop(home);
        home = Home::open(&state).unwrap();
        assert_eq!((home.keys.public(), home.enrolment().unwrap()), (first, Some(enrolment.clone())));
        assert_eq!(home.site().boot, boot);
        home.enrolled(&Enrolment { revoked: true, ..enrolment.clone() }).unwrap();
        assert!(home.enrolment().unwrap().unwrap().revoked);
        home.new_key().unwrap();
        assert_ne!(home.keys.public(), first, "a revoked key is not used again");
        home.enrolled(&enrolment).unwrap();
        assert_eq!(home.site(), SiteState::default(), "what another server told is forgotten");
    }

    #[test]
    fn a_damaged_state_is_told_again_and_a_damaged_enrolment_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        fs::write(dir.path().join(SITE), "{\"boot\":").unwrap();
        fs::write(dir.path().join(ENROLMENT), "{}").unwrap();
        assert_eq!(home.site(), SiteState::default());
        assert!(home.enrolment().unwrap_err().text().contains("--invite"));
    }
}
