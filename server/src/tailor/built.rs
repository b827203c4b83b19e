//! Files that are made of other files and named by their hash: each is built once, however many ask for it at the same
//! time, and the least recently used are deleted when there are too many. Owns one folder and its index. Touches files;
//! blocks.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::id::Hash;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::kit::KitError;

const INDEX: &str = "index.json";

/// The folder, or a file in it, cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}", path.display())]
pub struct BuiltError {
    /// The folder or file.
    pub path: PathBuf,
    /// The error of the operating system.
    #[source]
    pub source: io::Error,
}

/// An entry of the index: one file that was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    hash: Hash,
    bytes: u64,
    /// A counter that each use raises above all others; the lowest are deleted first.
    used: u64,
}

type Slot = Arc<Mutex<()>>;

/// The files of one folder.
#[derive(Debug)]
pub struct Built {
    dir: PathBuf,
    ending: &'static str,
    kept_max: usize,
    /// From the hash of the inputs to the file built of them. Never locked while a file is built.
    kept: Mutex<BTreeMap<Hash, Kept>>,
    /// One lock per key that is being built, so that a rack of equal machines waits for one build.
    building: Mutex<HashMap<Hash, Slot>>,
}

impl Built {
    /// The files in `dir`, which is created if need be: at most `kept_max`, whose names end in `ending`.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: PathBuf, ending: &'static str, kept_max: usize) -> Result<Self, BuiltError> {
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let path = dir.join(INDEX);
        let kept = match fs::read(&path) {
            // Everything in the index can be built again, so an index that cannot be parsed counts as empty.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(BuiltError { path, source }),
        };
        Ok(Self { dir, ending, kept_max, kept: Mutex::new(kept), building: Mutex::default() })
    }

    /// The file of the inputs whose hash is `key`: its hash and length. Built by `make` if it is not there.
    ///
    /// # Errors
    /// What `make` fails with, or when the file cannot be written.
    pub fn get_or_build<E: From<BuiltError>>(
        &self,
        key: Hash,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<(Hash, u64), E> {
        let slot = Arc::clone(self.building.lock().entry(key).or_default());
        let built = {
            let _one_at_a_time = slot.lock();
            match self.find(key) {
                Some(found) => Ok(found),
                None => make().and_then(|bytes| self.keep(key, &bytes).map_err(E::from)),
            }
        };
        let mut building = self.building.lock();
        // Two owners are the map and this call: no other call waits for the lock.
        if Arc::strong_count(&slot) <= 2 {
            building.remove(&key);
        }
        built
    }

    /// Where the file `hash` is; `None` if it was deleted, as happens when many others are asked for.
    #[must_use]
    pub fn path(&self, hash: Hash) -> Option<PathBuf> {
        let path = self.dir.join(self.file_name(hash));
        path.exists().then_some(path)
    }

    /// Whether nothing is being built.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.building.lock().is_empty()
    }

    fn find(&self, key: Hash) -> Option<(Hash, u64)> {
        let mut kept = self.kept.lock();
        let next = kept.values().map(|kept| kept.used).max().unwrap_or(0) + 1;
        let found = kept.get_mut(&key)?;
        let path = self.dir.join(self.file_name(found.hash));
        if fs::metadata(path).is_ok_and(|file| file.len() == found.bytes) {
            found.used = next;
            return Some((found.hash, found.bytes));
        }
        kept.remove(&key);
        None
    }

    fn keep(&self, key: Hash, bytes: &[u8]) -> Result<(Hash, u64), BuiltError> {
        let (hash, len) = (Hash::of(bytes), bytes.len() as u64);
        self.write(&self.file_name(hash), bytes)?;
        let mut kept = self.kept.lock();
        let used = kept.values().map(|kept| kept.used).max().unwrap_or(0) + 1;
        kept.insert(key, Kept { hash, bytes: len, used });
        while kept.len() > self.kept_max {
            let Some((&oldest, &gone)) = kept.iter().min_by_key(|(_, kept)| kept.used) else { break };
            kept.remove(&oldest);
            if !kept.values().any(|other| other.hash == gone.hash) {
                let path = self.dir.join(self.file_name(gone.hash));
                fs::remove_file(&path).map_err(failed(&path))?;
            }
        }
        let index = serde_json::to_vec(&*kept).map_err(|error| failed(&self.dir)(error.into()))?;
        self.write(INDEX, &index)?;
        Ok((hash, len))
    }

    /// Replaces the file `name` atomically: a machine must never be sent half of one.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), BuiltError> {
        let path = self.dir.join(name);
        crate::kit::replace_file(&path, bytes).map_err(|error| match error {
            KitError::Write { path, source } | KitError::Read { path, source } => BuiltError { path, source },
            other => BuiltError { path, source: io::Error::other(other) },
        })
    }

    fn file_name(&self, hash: Hash) -> String {
        format!("{hash}{}", self.ending)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BuiltError {
    let path = path.to_owned();
    move |source| BuiltError { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(built: &Built, text: &str) -> (Hash, u64) {
        let bytes = || Ok::<_, BuiltError>(text.as_bytes().to_vec());
        built.get_or_build(Hash::of(text.as_bytes()), bytes).unwrap()
    }

    #[test]
    fn the_least_recently_used_goes_when_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let built = Built::open(dir.path().join("x"), ".img", 2).unwrap();
        let (one, two) = (make(&built, "one").0, make(&built, "two").0);
        make(&built, "one");
        let three = make(&built, "three").0;
        assert!(built.path(one).is_some() && built.path(three).is_some());
        assert!(built.path(two).is_none());
        // After a restart the same, and what fails leaves nothing behind.
        let again = Built::open(dir.path().join("x"), ".img", 2).unwrap();
        let fails = || Err(BuiltError { path: "x".into(), source: io::ErrorKind::Other.into() });
        assert!(again.get_or_build::<BuiltError>(Hash::of(b"two"), fails).is_err());
        assert!(again.path(one).is_some() && again.is_idle());
    }
}
