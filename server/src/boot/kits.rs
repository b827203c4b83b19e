//! What machines boot at the moment: the boot programs of the default kit, in memory, and the paths of every kit's
//! kernel and loader. Owns when that changes, and tells DHCP and TFTP. Touches the kits; what changes them blocks.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use common::id::Hash;
use common::wire::objects::Object;
use common::wire::relay::{BootFile, SiteBoot};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::choose::Programs;
use super::from_peers::Hashed;
use super::tftp::Files;
use super::{AUTOEXEC, script};
use crate::kit::{BootFiles, FileMark, ImportSpec, KitError, KitInfo, Kits, Progress, Source};
use crate::tailor::{Bundles, Loaders, PciId};

/// The file name of a kit's general loader.
const GENERAL: &str = "loader.img";
/// What the file names of small loaders begin and end with; between them is their hash.
const SMALL: (&str, &str) = ("loader-", ".img");
/// The most kinds of NICs whose small loader is remembered: ids are easily forged.
const NICS_MAX: usize = 1024;

/// The most kernels and loaders whose SHA-256 is remembered.
const SHA256_MAX: usize = 1024;

/// What machines can boot; replaced when a kit is imported or removed.
#[derive(Debug, Clone, Default)]
struct Booting {
    kit: Option<String>,
    programs: Files,
    /// The files of every kit: machines that began with another kit still fetch from that one.
    kits: Arc<BTreeMap<String, BootFiles>>,
}

/// The boot kits, for machines and for an admin. One for the whole server.
#[derive(Debug)]
pub struct BootKits {
    kits: Kits,
    settings: BootSettings,
    /// The SHA-256 of kernels and loaders, by their BLAKE3. Kits do not record it: firmware alone wants it.
    sha256: Mutex<HashMap<Hash, [u8; 32]>>,
    loaders: Loaders,
    bundles: Arc<Bundles>,
    /// The hash of the small loader for each NIC of the default kit, none where it has no driver for it; emptied when
    /// that kit changes.
    small: Mutex<HashMap<PciId, Option<Hash>>>,
    booting: watch::Sender<Booting>,
    programs: watch::Sender<Programs>,
    files: watch::Sender<Files>,
}

/// What boot kits and scripts are made with.
#[derive(Debug)]
pub struct BootSettings {
    /// The path of the `swarmboot-loader` program, which is put into kits.
    pub loader: PathBuf,
    /// Where machines reach the server over HTTP.
    pub http: SocketAddr,
    /// The network boot program that an admin prefers, if any.
    pub prefer: Option<String>,
}

/// An import as an admin asks for it: it gets this server's own loader, and replaces a kit of the same name.
#[derive(Debug)]
pub struct Wanted {
    /// The kit's name; `None` for its kernel's release.
    pub name: Option<String>,
    /// The sources of its files; a later one overrides an earlier one.
    pub sources: Vec<Source>,
    /// The kernel's release, where the sources have several; `None` for the newest.
    pub kernel: Option<String>,
}

impl BootKits {
    /// Wraps `kits`, of which small loaders are made with the agent of `bundles`; nothing is read before
    /// [`BootKits::prepare`].
    #[must_use]
    pub fn new(kits: Kits, settings: BootSettings, loaders: Loaders, bundles: Arc<Bundles>) -> Self {
        Self {
            kits,
            settings,
            sha256: Mutex::default(),
            loaders,
            bundles,
            small: Mutex::default(),
            booting: watch::Sender::default(),
            programs: watch::Sender::default(),
            files: watch::Sender::default(),
        }
    }

    /// The store of the kits.
    #[must_use]
    pub fn store(&self) -> &Kits {
        &self.kits
    }

    /// The names of the available boot programs, for DHCP.
    #[must_use]
    pub fn programs(&self) -> watch::Receiver<Programs> {
        self.programs.subscribe()
    }

    /// The boot programs with their bytes, for TFTP.
    #[must_use]
    pub fn files(&self) -> watch::Receiver<Files> {
        self.files.subscribe()
    }

    /// The name of the kit that machines are booted with, if there is one.
    #[must_use]
    pub fn kit(&self) -> Option<String> {
        self.booting.borrow().kit.clone()
    }

    /// The path and mark of a file that machines boot: `vmlinuz` or `loader.img` of a kit, and nothing else.
    #[must_use]
    pub fn kit_file(&self, kit: &str, file: &str) -> Option<(PathBuf, Option<FileMark>)> {
        let kits = Arc::clone(&self.booting.borrow().kits);
        let kit = kits.get(kit)?;
        match file {
            "vmlinuz" => Some(kit.kernel.clone()),
            GENERAL => Some(kit.loader.clone()),
            _ => {
                let hash: Hash = file.strip_prefix(SMALL.0)?.strip_suffix(SMALL.1)?.parse().ok()?;
                let path = self.loaders.path(hash)?;
                let bytes = std::fs::metadata(&path).ok()?.len();
                Some((path, Some(FileMark { bytes, blake3: hash })))
            }
        }
    }

    /// The kernel or a loader of a kit with its hashes; `None` if it is not what was recorded: no neighbour is asked for
    /// it then. Blocks: the first time it is read, 10 MB in a twentieth of a second.
    #[must_use]
    pub fn hashed(&self, kit: &str, file: &str) -> Option<Hashed> {
        let (path, mark) = self.kit_file(kit, file)?;
        let FileMark { bytes, blake3: hash } = mark?;
        let known = self.sha256.lock().get(&hash).copied();
        let sha256 = match known {
            Some(sha256) => sha256,
            None => {
                let read = std::fs::read(path).ok().filter(|read| Hash::of(read) == hash)?;
                let sha256 = Sha256::digest(&read).into();
                let mut all = self.sha256.lock();
                if all.len() >= SHA256_MAX {
                    all.clear();
                }
                all.insert(hash, sha256);
                sha256
            }
        };
        Some(Hashed { object: Object { hash, bytes }, sha256 })
    }

    /// The path of the kernel or loader with this hash, of any kit.
    #[must_use]
    pub fn by_hash(&self, hash: Hash) -> Option<PathBuf> {
        let kits = Arc::clone(&self.booting.borrow().kits);
        let mut files = kits.values().flat_map(|kit| [&kit.kernel, &kit.loader]);
        let found = files.find(|(_, mark)| mark.is_some_and(|mark| mark.blake3 == hash));
        found.map(|(path, _)| path.clone()).or_else(|| self.loaders.path(hash))
    }

    /// The file name of the loader for machines that boot the default kit from `nic`: the small one, which is built
    /// when the first such machine asks, or the general one where the NIC is not known, the kit has no driver for it or
    /// no small one can be built, which is logged. Blocks, at first for seconds.
    #[must_use]
    pub fn loader_for(&self, nic: Option<PciId>) -> String {
        let general = || GENERAL.to_owned();
        let named = |hash: Hash| format!("{}{hash}{}", SMALL.0, SMALL.1);
        let Some(nic) = nic else { return general() };
        match self.small.lock().get(&nic) {
            None => {}
            Some(None) => return general(),
            // One that was deleted for others is built again.
            Some(Some(hash)) if self.loaders.path(*hash).is_none() => {}
            Some(Some(hash)) => return named(*hash),
        }
        let small = self.kits.default_kit().map_err(|error| error.to_string()).and_then(|kit| {
            self.loaders.small(&kit, &self.bundles, nic).map_err(|error| common::causes::with_causes(&error))
        });
        let small = match small {
            Ok(small) => small,
            // Not remembered: a disk that is full now may have room later.
            Err(why) => {
                tracing::warn!(%nic, why, "no small loader can be made: the general one is sent");
                return general();
            }
        };
        match small {
            Some((_, bytes)) => tracing::info!(%nic, bytes, "machines with this NIC get a small loader"),
            None => tracing::info!(%nic, "the kit has no driver for this NIC: the general loader is sent"),
        }
        let hash = small.map(|(hash, _)| hash);
        let mut remembered = self.small.lock();
        if remembered.len() >= NICS_MAX {
            remembered.clear();
        }
        remembered.insert(nic, hash);
        hash.map_or_else(general, named)
    }

    /// The path of the zstd frame of a module or firmware file of any kit, by the hash of the file; `None` when no kit
    /// has it, or it cannot be read, which is logged. Blocks.
    #[must_use]
    pub fn driver(&self, hash: Hash) -> Option<PathBuf> {
        let kits = Arc::clone(&self.booting.borrow().kits);
        let path = kits.values().find_map(|kit| kit.drivers.get(&hash))?;
        self.loaders.driver(path, hash).unwrap_or_else(|error| {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(file = %path.display(), error, "a driver cannot be sent");
            None
        })
    }

    /// The bytes of a network boot program of the default kit.
    #[must_use]
    pub fn boot_program(&self, file: &str) -> Option<Bytes> {
        self.booting.borrow().programs.get(file).cloned()
    }

    /// What a relay is told of the files that machines boot with, without the relay's own name and site. A file whose
    /// hash an earlier version did not record is left out: the relay passes it on instead.
    #[must_use]
    pub fn site_boot(&self) -> SiteBoot {
        let booting = self.booting.borrow().clone();
        let file = |name: &str| {
            let kit = booting.kit.as_ref()?;
            let files = booting.kits.get(kit)?;
            let (_, mark) = if name == "vmlinuz" { &files.kernel } else { &files.loader };
            let FileMark { bytes, blake3 } = (*mark)?;
            Some(BootFile { name: name.to_owned(), hash: blake3, bytes, path: format!("/boot/{kit}/{name}") })
        };
        let programs = booting.programs.iter().filter(|(name, _)| *name != AUTOEXEC);
        let mut programs: Vec<BootFile> = programs.map(|(name, bytes)| program(name, bytes)).collect();
        programs.sort_by(|one, other| one.name.cmp(&other.name));
        SiteBoot {
            files: ["vmlinuz", "loader.img"].into_iter().filter_map(file).collect(),
            programs,
            prefer: self.settings.prefer.clone(),
            ..SiteBoot::default()
        }
    }

    /// Puts this server's loader into kits that were made with another version of it, and publishes what machines can
    /// boot. Blocks.
    pub fn prepare(&self) {
        for kit in self.kits.list().unwrap_or_default() {
            match self.kits.refresh_loader(&kit.name, &self.settings.loader) {
                Ok(true) => tracing::info!(kit = kit.name, "the kit got this version's loader"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        kit = kit.name,
                        error = &error as &dyn std::error::Error,
                        "the kit keeps its old loader"
                    );
                }
            }
        }
        self.changed();
    }

    /// Imports a kit and makes it the default. Blocks for seconds to minutes.
    ///
    /// # Errors
    /// When its sources cannot be read or lack something vital, or it cannot be written.
    pub fn import(&self, wanted: Wanted, progress: &mut dyn FnMut(Progress)) -> Result<KitInfo, KitError> {
        let Wanted { name, sources, kernel } = wanted;
        let loader = self.settings.loader.clone();
        let made =
            self.kits.import(&ImportSpec { name, sources, kernel, loader, replace: true }, progress)?;
        self.kits.set_default(&made.name)?;
        let info = self.kits.info(&made.name)?;
        self.changed();
        Ok(info)
    }

    /// Removes a kit. Blocks.
    ///
    /// # Errors
    /// When there is no kit of that name, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), KitError> {
        self.kits.remove(name)?;
        self.changed();
        Ok(())
    }

    /// Reads the default kit's boot programs into memory and publishes them to DHCP and TFTP. Blocks.
    fn changed(&self) {
        self.small.lock().clear();
        let kits = Arc::new(self.kits.boot_files().unwrap_or_default());
        let booting = match self.default_programs() {
            Ok((kit, programs)) => Booting { kit: Some(kit), programs: Arc::new(programs), kits },
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "machines cannot be booted: no boot kit"
                );
                Booting { kits, ..Booting::default() }
            }
        };
        let names = booting.programs.keys().filter(|name| *name != AUTOEXEC).cloned();
        self.programs.send_replace(Programs::new(names, self.settings.prefer.clone()));
        self.files.send_replace(Arc::clone(&booting.programs));
        let kit = booting.kit.clone();
        self.booting.send_replace(booting);
        // Read and made now, and not when forty machines ask at once: in the benchmark of a site, all of them waited ten
        // seconds for their loader.
        for file in ["vmlinuz", "loader.img"] {
            kit.as_ref().map(|kit| self.hashed(kit, file));
        }
        let made = self.kits.default_kit().map(|kit| self.loaders.prepare(&kit, &self.bundles));
        if let Ok(Err(error)) = made {
            tracing::debug!(error = &error as &dyn std::error::Error, "small loaders cannot be made ahead");
        }
    }

    /// The default kit's name and its boot programs.
    fn default_programs(&self) -> Result<(String, HashMap<String, Bytes>), KitError> {
        let kit = self.kits.default_kit()?;
        let programs = kit.boot_programs()?.into_iter().map(|(name, bytes)| (name, Bytes::from(bytes)));
        // An iPXE that DHCP cannot give a script (the signed one) fetches this file from where it came from.
        let entry = (AUTOEXEC.to_owned(), Bytes::from(script::entry(self.settings.http, None)));
        Ok((kit.name().to_owned(), programs.chain([entry]).collect()))
    }
}

/// A boot program as a relay is told of it. Programs have 1 MB at most: hashing one takes a millisecond.
fn program(name: &str, bytes: &Bytes) -> BootFile {
    BootFile {
        name: name.to_owned(),
        hash: Hash::of(bytes),
        bytes: bytes.len() as u64,
        path: format!("/nbp/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kits of `bench`, with one program as loader and agent.
    fn booting(bench: &crate::kit::tests::Bench) -> BootKits {
        let (state, loader) = (bench.dir.path(), bench.dir.path().join("loader"));
        let bundles = Arc::new(Bundles::open(state, &loader).unwrap());
        let settings = BootSettings { loader, http: ([127, 0, 0, 1], 0).into(), prefer: None };
        let loaders = Loaders::open(state).unwrap();
        let boot_kits = BootKits::new(bench.kits.clone(), settings, loaders, bundles);
        boot_kits.prepare();
        boot_kits
    }

    #[test]
    fn a_kernel_is_given_without_reading_the_kits_index_again() {
        let bench = crate::kit::tests::Bench::imported();
        let boot_kits = booting(&bench);
        let nic = PciId { vendor: 0x10ec, device: 0x8168 };
        let small = boot_kits.loader_for(Some(nic));
        assert!(small.starts_with("loader-"), "{small}");
        assert_eq!(boot_kits.loader_for(Some(PciId { vendor: 1, device: 1 })), "loader.img");
        let kit = boot_kits.kit().unwrap();
        // What was deleted for others is built again.
        std::fs::remove_file(boot_kits.kit_file(&kit, &small).unwrap().0).unwrap();
        assert_eq!(boot_kits.loader_for(Some(nic)), small);
        for index in ["kit.json", "modules.json"] {
            std::fs::write(bench.dir.path().join("kits").join(&kit).join(index), "").unwrap();
        }
        assert!(boot_kits.kit_file(&kit, "vmlinuz").is_some());
        assert!(boot_kits.kit_file(&kit, "loader.img").is_some());
        assert!(boot_kits.kit_file("another", "vmlinuz").is_none());
        let (path, mark) = boot_kits.kit_file(&kit, &small).unwrap();
        assert_eq!(Hash::of(&std::fs::read(path).unwrap()), mark.unwrap().blake3);
        assert_eq!(boot_kits.loader_for(Some(nic)), small);
        assert_eq!(boot_kits.loader_for(None), "loader.img");
        for strange in ["loader-.img", "loader-00.img", "loader-../../../etc/passwd.img"] {
            assert!(boot_kits.kit_file(&kit, strange).is_none(), "{strange}");
        }
    }

    #[test]
    fn kernel_and_loader_of_a_kit_made_before_have_the_hash_that_firmware_checks() {
        let bench = crate::kit::tests::Bench::imported();
        let boot_kits = booting(&bench);
        let kit = boot_kits.kit().unwrap();
        let hashed = |boot_kits: &BootKits, file| boot_kits.hashed(&kit, file);
        let (kernel, loader) =
            (hashed(&boot_kits, "vmlinuz").unwrap(), hashed(&boot_kits, "loader.img").unwrap());
        let small = boot_kits.loader_for(Some(PciId { vendor: 0x10ec, device: 0x8168 }));
        let small = hashed(&boot_kits, &small).unwrap();
        for hashed in [kernel, loader, small] {
            let bytes = std::fs::read(boot_kits.by_hash(hashed.object.hash).unwrap()).unwrap();
            assert_eq!(bytes.len() as u64, hashed.object.bytes);
            let sha256: [u8; 32] = Sha256::digest(&bytes).into();
            assert_eq!(sha256, hashed.sha256);
        }
        assert!(boot_kits.by_hash(Hash([7; 32])).is_none());
        // What was changed on the disk is not vouched for.
        let path = boot_kits.by_hash(kernel.object.hash).unwrap();
        std::fs::write(path, b"another kernel").unwrap();
        let again = booting(&bench);
        assert!(hashed(&again, "vmlinuz").is_none());
    }
}
