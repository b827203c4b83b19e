//! Agent bundles: the agent and just the modules and firmware that one kind of machine needs, as a compressed archive
//! named by its hash. Owns `<state>/bundles`: each is built once, however many machines ask at the same time, and the
//! least recently used are deleted when there are too many. Touches files; blocks.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::id::Hash;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::modules::Needs;
use crate::kit::archive::{Archive, Compression};
use crate::kit::{Kit, KitError};

/// The most bundles that are kept: a fleet of 2,000 machines has a few dozen kinds, and each is about 3 MiB.
const KEPT_MAX: usize = 256;
/// Part of every key: raised when the layout of a bundle changes.
const LAYOUT: &str = "swarmboot bundle 1";
const INDEX: &str = "index.json";

/// Why a bundle cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The folder of bundles or a file in it cannot be read or written.
    #[error("cannot use {}", path.display())]
    Store {
        /// The folder or file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The agent program cannot be read.
    #[error("cannot read the agent program {}", path.display())]
    Agent {
        /// Where the server expects the program.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A module or firmware file cannot be read from the boot kit.
    #[error("cannot take a file from the boot kit")]
    Kit(#[source] KitError),
    /// The archive could not be made.
    #[error("cannot pack the bundle")]
    Pack(#[source] io::Error),
    /// Longer than `BUNDLE_BYTES_MAX`, the most that a loader takes into memory.
    #[error("the bundle has {0} bytes, more than a loader takes")]
    TooLarge(u64),
}

/// An entry of the index: one bundle that was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    hash: Hash,
    bytes: u64,
    /// A counter that each use raises above all others; the lowest are deleted first.
    used: u64,
}

type Slot = Arc<Mutex<()>>;

/// The bundles of one state folder.
#[derive(Debug)]
pub struct Bundles {
    dir: PathBuf,
    agent: PathBuf,
    /// From the hash of the inputs to the bundle built of them. Never locked while a bundle is built.
    kept: Mutex<BTreeMap<Hash, Kept>>,
    /// One lock per key that is being built, so that a rack of equal machines waits for one build.
    building: Mutex<HashMap<Hash, Slot>>,
}

impl Bundles {
    /// The bundles below `state_dir`; new ones are made with the `swarmboot-agent` program at `agent`.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(state_dir: &Path, agent: &Path) -> Result<Self, BundleError> {
        let dir = state_dir.join("bundles");
        fs::create_dir_all(&dir).map_err(store(&dir))?;
        let path = dir.join(INDEX);
        let kept = match fs::read(&path) {
            // Everything in the index can be built again, so an index that cannot be parsed counts as empty.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(BundleError::Store { path, source }),
        };
        Ok(Self { dir, agent: agent.to_owned(), kept: Mutex::new(kept), building: Mutex::default() })
    }

    /// The bundle with `needs` of `kit`: its hash and length. Builds it if it was not built before.
    ///
    /// # Errors
    /// When the agent or a file of the kit cannot be read, or the bundle cannot be made or kept.
    pub fn get_or_build(&self, kit: &Kit, needs: &Needs) -> Result<(Hash, u64), BundleError> {
        let agent = fs::read(&self.agent)
            .map_err(|source| BundleError::Agent { path: self.agent.clone(), source })?;
        let key = key_of(kit, needs, &agent)?;
        let slot = Arc::clone(self.building.lock().entry(key).or_default());
        let built = {
            let _one_at_a_time = slot.lock();
            match self.find(key) {
                Some(found) => Ok(found),
                None => self.build(key, kit, needs, agent),
            }
        };
        let mut building = self.building.lock();
        // Two owners are the map and this call: no other call waits for the lock.
        if Arc::strong_count(&slot) <= 2 {
            building.remove(&key);
        }
        built
    }

    /// Where the bundle `hash` is; `None` if it was deleted, as happens when many others are asked for.
    #[must_use]
    pub fn path(&self, hash: Hash) -> Option<PathBuf> {
        let path = self.dir.join(file_name(hash));
        path.exists().then_some(path)
    }

    fn find(&self, key: Hash) -> Option<(Hash, u64)> {
        let mut kept = self.kept.lock();
        let next = kept.values().map(|kept| kept.used).max().unwrap_or(0) + 1;
        let found = kept.get_mut(&key)?;
        let path = self.dir.join(file_name(found.hash));
        if fs::metadata(path).is_ok_and(|file| file.len() == found.bytes) {
            found.used = next;
            return Some((found.hash, found.bytes));
        }
        kept.remove(&key);
        None
    }

    fn build(&self, key: Hash, kit: &Kit, needs: &Needs, agent: Vec<u8>) -> Result<(Hash, u64), BundleError> {
        let bytes = pack(kit, needs, agent)?;
        let (hash, len) = (Hash::of(&bytes), bytes.len() as u64);
        if len > common::limits::BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge(len));
        }
        self.write(&file_name(hash), &bytes)?;
        let mut kept = self.kept.lock();
        let used = kept.values().map(|kept| kept.used).max().unwrap_or(0) + 1;
        kept.insert(key, Kept { hash, bytes: len, used });
        while kept.len() > KEPT_MAX {
            let Some((&oldest, &gone)) = kept.iter().min_by_key(|(_, kept)| kept.used) else { break };
            kept.remove(&oldest);
            if !kept.values().any(|other| other.hash == gone.hash) {
                let path = self.dir.join(file_name(gone.hash));
                fs::remove_file(&path).map_err(store(&path))?;
            }
        }
        let index = serde_json::to_vec(&*kept).map_err(|error| store(&self.dir)(error.into()))?;
        self.write(INDEX, &index)?;
        Ok((hash, len))
    }

    /// Replaces the file `name` atomically: a loader must never be sent half a bundle.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let path = self.dir.join(name);
        crate::kit::replace_file(&path, bytes).map_err(|error| match error {
            KitError::Write { path, source } | KitError::Read { path, source } => {
                BundleError::Store { path, source }
            }
            other => BundleError::Kit(other),
        })
    }
}

/// The archive's bytes: `/agent`, `/lib/modules/…`, `/lib/firmware/…` and `/lib/modules.json`.
fn pack(kit: &Kit, needs: &Needs, agent: Vec<u8>) -> Result<Vec<u8>, BundleError> {
    let mut archive = Archive::new();
    archive.program("agent", agent);
    let index = kit.modules().cut(needs.modules.iter().map(String::as_str));
    for module in index.modules() {
        let bytes = kit.read(&format!("modules/{}", module.path)).map_err(BundleError::Kit)?;
        archive.file(&format!("lib/modules/{}", module.path), bytes);
    }
    for name in &needs.firmware {
        let bytes = kit.read(&format!("firmware/{name}")).map_err(BundleError::Kit)?;
        archive.file(&format!("lib/firmware/{name}"), bytes);
    }
    let text = serde_json::to_vec(&index).map_err(|error| BundleError::Pack(error.into()))?;
    archive.file("lib/modules.json", text);
    archive.pack(Compression::Zstd, &mut |_| {}).map_err(BundleError::Pack)
}

/// The hash of everything that decides a bundle's bytes.
fn key_of(kit: &Kit, needs: &Needs, agent: &[u8]) -> Result<Hash, BundleError> {
    let modules = needs.modules.iter().filter_map(|name| kit.modules().get(name));
    let modules = modules.map(|module| format!("modules/{}", module.path));
    let firmware = needs.firmware.iter().map(|name| format!("firmware/{name}"));
    let marks: Vec<_> = modules.chain(firmware).map(|file| kit.mark(&file)).collect();
    let inputs = (LAYOUT, kit.kernel(), kit.mark("modules.json"), needs, marks, Hash::of(agent));
    serde_json::to_vec(&inputs).map(|text| Hash::of(&text)).map_err(|error| BundleError::Pack(error.into()))
}

fn file_name(hash: Hash) -> String {
    format!("{hash}.cpio.zst")
}

fn store(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Store { path, source }
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
