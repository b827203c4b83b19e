//! Agent bundles: the agent and just the modules and firmware that one kind of machine needs, as a compressed archive
//! named by its hash. Owns `<state>/bundles`, each built once. Touches files; blocks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use common::id::Hash;

use super::built::{Built, BuiltError};
use super::modules::Needs;
use crate::kit::archive::{Archive, Compression};
use crate::kit::{Kit, KitError};

/// The most bundles that are kept: a fleet of 2,000 machines has a few dozen kinds, and each is about 3 MiB.
const KEPT_MAX: usize = 256;
/// Part of every key: raised when the layout of a bundle changes.
const LAYOUT: &str = "swarmboot bundle 1";

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

impl From<BuiltError> for BundleError {
    fn from(BuiltError { path, source }: BuiltError) -> Self {
        Self::Store { path, source }
    }
}

/// The bundles of one state folder.
#[derive(Debug)]
pub struct Bundles {
    agent: PathBuf,
    built: Built,
}

impl Bundles {
    /// The bundles below `state_dir`; new ones are made with the `swarmboot-agent` program at `agent`.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(state_dir: &Path, agent: &Path) -> Result<Self, BundleError> {
        let built = Built::open(state_dir.join("bundles"), ".cpio.zst", KEPT_MAX)?;
        Ok(Self { agent: agent.to_owned(), built })
    }

    /// The bundle with `needs` of `kit`: its hash and length. Builds it if it was not built before.
    ///
    /// # Errors
    /// When the agent or a file of the kit cannot be read, or the bundle cannot be made or kept.
    pub fn get_or_build(&self, kit: &Kit, needs: &Needs) -> Result<(Hash, u64), BundleError> {
        let agent = self.agent()?;
        let key = key_of(kit, needs, &agent)?;
        self.built.get_or_build(key, || {
            let bytes = pack(kit, needs, agent)?;
            let len = bytes.len() as u64;
            if len > common::limits::BUNDLE_BYTES_MAX { Err(BundleError::TooLarge(len)) } else { Ok(bytes) }
        })
    }

    /// The bytes of the agent program.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn agent(&self) -> Result<Vec<u8>, BundleError> {
        fs::read(&self.agent).map_err(|source| BundleError::Agent { path: self.agent.clone(), source })
    }

    /// Where the bundle `hash` is; `None` if it was deleted, as happens when many others are asked for.
    #[must_use]
    pub fn path(&self, hash: Hash) -> Option<PathBuf> {
        self.built.path(hash)
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

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
