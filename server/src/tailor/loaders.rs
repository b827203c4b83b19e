//! Small loaders: for machines with one kind of NIC an initramfs that holds what reaches the server over it, and the
//! agent; and the drivers that such a loader lacks, each by its hash. Owns `<state>/loaders`, `<state>/loader-agents` and
//! `<state>/drivers`, each file built once. Touches files; blocks.
//!
//! The agent is loader and agent in one, so that a machine that gets an order has it already. All machines of a site
//! with one kind of NIC boot the same file, whatever disks they have: these drivers follow when the network is up.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use common::id::Hash;
use parking_lot::Mutex;

use super::built::{Built, BuiltError};
use super::bundle::{BundleError, Bundles};
use super::modules::Needs;
use super::nic::{PciId, reaching};
use crate::kit::{Kit, KitError, agent_archive, small_initramfs};

/// The most small loaders that are kept: more than a kernel has drivers of PCI NICs, so that asking for all of them in
/// turn does not have them built again and again. Each takes 3 to 5 MiB.
const LOADERS_MAX: usize = 160;
/// The most drivers and firmware files that are kept: as many as a kit has.
const DRIVERS_MAX: usize = 2048;
/// Part of every key: raised when the layout of a small loader changes.
const LAYOUT: &str = "swarmboot small loader 2";
/// The most archives with an agent that are kept: of this version and the one before, for two kernels' compressions.
const AGENTS_MAX: usize = 4;

/// Why a small loader or a driver cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadersError {
    /// One of the two folders cannot be used.
    #[error(transparent)]
    Store(#[from] BuiltError),
    /// The agent, or the bundle that has it, cannot be had.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file of the boot kit cannot be read, or the initramfs cannot be made.
    #[error("cannot make a loader of the boot kit")]
    Kit(#[from] KitError),
    /// The archive with the agent was deleted while a loader was made.
    #[error("the agent's archive was deleted meanwhile")]
    AgentGone,
    /// A driver of the kit cannot be compressed.
    #[error("cannot compress a driver")]
    Compress(#[source] std::io::Error),
}

/// The small loaders and drivers of one state folder.
#[derive(Debug)]
pub struct Loaders {
    loaders: Built,
    agents: Built,
    drivers: Built,
    /// Held while a loader is made: that takes a processor for seconds, and a rack has several kinds of NICs.
    one_at_a_time: Mutex<()>,
}

impl Loaders {
    /// Those below `state_dir`.
    ///
    /// # Errors
    /// When a folder cannot be made or read.
    pub fn open(state_dir: &Path) -> Result<Self, LoadersError> {
        Ok(Self {
            loaders: Built::open(state_dir.join("loaders"), ".img", LOADERS_MAX)?,
            agents: Built::open(state_dir.join("loader-agents"), ".img", AGENTS_MAX)?,
            drivers: Built::open(state_dir.join("drivers"), ".zst", DRIVERS_MAX)?,
            one_at_a_time: Mutex::default(),
        })
    }

    /// The small loader of `kit` for machines that boot from `nic`, and its length: built if it was not built before.
    /// `None` when the kit has no driver for it.
    ///
    /// # Errors
    /// When the agent or a file of the kit cannot be read, or the loader cannot be made or kept.
    pub fn small(
        &self,
        kit: &Kit,
        bundles: &Bundles,
        nic: PciId,
    ) -> Result<Option<(Hash, u64)>, LoadersError> {
        let Some(modules) = reaching(kit.modules(), nic) else { return Ok(None) };
        let (agent, bundle) = self.prepare(kit, bundles)?;
        // The kit's index has the kernel and every path; the files of a kit do not change under their marks.
        let marks: Vec<_> = kit.marks().collect();
        let key = key_of(&(kit.kernel(), kit.small_compression(), &modules, agent, bundle, marks))?;
        let built = self.loaders.get_or_build(key, || {
            let _turn = self.one_at_a_time.lock();
            let Some(path) = self.agents.path(agent) else { return Err(LoadersError::AgentGone) };
            let agent = std::fs::read(&path).map_err(|source| KitError::Read { path, source })?;
            Ok(small_initramfs(kit, &modules, &agent, bundle)?)
        })?;
        Ok(Some(built))
    }

    /// Makes what all small loaders of `kit` have in common, which takes ten seconds, where it was not made before: the
    /// hashes of the archive with the agent, and of the bundle with that agent.
    ///
    /// # Errors
    /// When the agent or a file of the kit cannot be read, or something cannot be made or kept.
    pub fn prepare(&self, kit: &Kit, bundles: &Bundles) -> Result<(Hash, Hash), LoadersError> {
        let agent = bundles.agent()?;
        let key = key_of(&(kit.small_compression(), Hash::of(&agent)))?;
        let (archive, _) = self.agents.get_or_build(key, || {
            let _turn = self.one_at_a_time.lock();
            Ok::<_, LoadersError>(agent_archive(kit, agent)?)
        })?;
        let (bundle, _) = bundles.get_or_build(kit, &Needs::default())?;
        Ok((archive, bundle))
    }

    /// Where the small loader `hash` is; `None` if it was deleted.
    #[must_use]
    pub fn path(&self, hash: Hash) -> Option<PathBuf> {
        self.loaders.path(hash)
    }

    /// Where the zstd frame of the file of a kit at `path` is, a driver or firmware whose hash is `hash`.
    ///
    /// # Errors
    /// When it cannot be read, or has changed since the import, or the frame cannot be kept.
    pub fn driver(&self, path: &Path, hash: Hash) -> Result<Option<PathBuf>, LoadersError> {
        let (frame, _) = self.drivers.get_or_build(hash, || {
            let bytes =
                std::fs::read(path).map_err(|source| KitError::Read { path: path.to_owned(), source })?;
            if Hash::of(&bytes) != hash {
                return Err(LoadersError::Kit(KitError::Changed(path.to_owned())));
            }
            compressed(&bytes).map_err(LoadersError::Compress)
        })?;
        Ok(self.drivers.path(frame))
    }
}

/// The key of what is made of `inputs`.
fn key_of(inputs: &impl serde::Serialize) -> Result<Hash, LoadersError> {
    let text = serde_json::to_vec(&(LAYOUT, inputs)).map_err(|error| BundleError::Pack(error.into()))?;
    Ok(Hash::of(&text))
}

fn compressed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    zstd::stream::read::Encoder::new(bytes, 19)?.read_to_end(&mut frame)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::kit::tests::Bench;

    const REALTEK: PciId = PciId { vendor: 0x10ec, device: 0x8168 };

    #[test]
    fn one_loader_is_built_for_a_kind_of_nic_and_none_for_an_unknown() {
        let bench = Bench::imported();
        let kit = bench.kits.default_kit().unwrap();
        let agent = bench.dir.path().join("agent");
        fs::write(&agent, b"agent").unwrap();
        let bundles = Bundles::open(bench.dir.path(), &agent).unwrap();
        let loaders = Loaders::open(bench.dir.path()).unwrap();
        let built: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| loaders.small(&kit, &bundles, REALTEK).unwrap().unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(built.windows(2).all(|pair| pair[0] == pair[1]));
        let path = loaders.path(built[0].0).unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let again = Loaders::open(bench.dir.path()).unwrap();
        assert_eq!(again.small(&kit, &bundles, REALTEK).unwrap(), Some(built[0]));
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
        let unknown = PciId { vendor: 1, device: 2 };
        assert_eq!(loaders.small(&kit, &bundles, unknown).unwrap(), None);
        // Another agent is another loader.
        fs::write(&agent, b"newer agent").unwrap();
        assert_ne!(again.small(&kit, &bundles, REALTEK).unwrap(), Some(built[0]));
    }

    #[test]
    fn a_driver_is_sent_compressed_and_only_unchanged() {
        let bench = Bench::imported();
        let kit = bench.kits.default_kit().unwrap();
        let loaders = Loaders::open(bench.dir.path()).unwrap();
        let file = "modules/kernel/drivers/scsi/sd_mod.ko";
        let (bytes, hash) = (kit.read(file).unwrap(), kit.mark(file).unwrap().blake3);
        let path = kit.path(file);
        let frame = fs::read(loaders.driver(&path, hash).unwrap().unwrap()).unwrap();
        assert_eq!(zstd::decode_all(&frame[..]).unwrap(), bytes);
        let firmware = kit.path("firmware/rtl_nic/a.fw");
        assert!(matches!(
            loaders.driver(&firmware, Hash::of(b"other")),
            Err(LoadersError::Kit(KitError::Changed(_)))
        ));
    }
}
