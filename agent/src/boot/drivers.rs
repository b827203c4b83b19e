//! Kernel modules for the machine's devices: reads the buses, loads the modules that the devices ask for, and reads the
//! buses again, since a driver brings new devices (a PCI function becomes a virtio device, a host adapter finds disks).
//! What a small loader lacks is fetched from the server, by the hashes that came with it.
//!
//! A module that does not load is no error: it is reported, and the machine goes on without it. Touches `/sys/bus`, the
//! modules and firmware below one folder, and the kernel's module call.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::id::Hash;
use common::modules::{LOADER_KIT, LoaderKit, Module, ModuleIndex, alias_matches, is_inside};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use serde::de::DeserializeOwned;

use crate::fetch::{FetchError, Server};
use crate::inspect::devices::modaliases;

/// The interval at which the buses are read while devices may still appear.
const LOOK: Duration = Duration::from_millis(50);

/// The longest module index that is read, in bytes: Debian's whole kernel makes about 6 MiB.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Modules that not every kernel has a device ask for, each with the one that brings such devices: disks behind SCSI
/// hosts, and memory cards. One that would have to be fetched is, once that other one is loaded.
const BEHIND: [(&str, &str); 2] = [("sd_mod", "scsi_mod"), ("mmc_block", "mmc_core")];

/// The UEFI variables, which tell whether Secure Boot is on; no device asks for their module.
const VARIABLES: &str = "efivarfs";

/// Modules by which hooks mount a new root. No device asks for them: a bundle has those that its plan needs.
const FOR_HOOKS: [&str; 4] = ["loop", "ext4", "xfs", "btrfs"];

/// The longest `/lib/kit.json` that is read, in bytes: a kit of Debian's whole kernel makes 40 KiB.
const KIT_BYTES_MAX: u64 = 4 << 20;

/// Why no module can be loaded.
#[derive(Debug, thiserror::Error)]
pub enum DriversError {
    /// The module index cannot be read, or is too long.
    #[error("cannot read {}", path.display())]
    Index {
        /// The path of the index.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The module index is malformed.
    #[error("{} is no module index", path.display())]
    Content {
        /// The path of the index.
        path: PathBuf,
        /// Where and why the JSON does not parse.
        #[source]
        source: serde_json::Error,
    },
}

/// The modules of one archive, and which of them were tried.
#[derive(Debug)]
pub struct Drivers {
    index: ModuleIndex,
    root: PathBuf,
    /// What the archive says of its kit; nothing in a bundle.
    kit: LoaderKit,
    asked: HashSet<String>,
    tried: HashSet<String>,
    /// Modules that devices ask for and that have to be fetched first.
    lacking: BTreeSet<String>,
    loaded: u32,
    /// How many of those the kernel did not have before.
    added: u32,
    failed: Vec<String>,
}

impl Drivers {
    /// Opens the modules below `root`: the index `lib/modules.json` and the files in `lib/modules`, and in an initramfs
    /// `lib/kit.json`.
    ///
    /// # Errors
    /// When the index is missing, or one of them is malformed.
    pub fn open(root: &Path) -> Result<Self, DriversError> {
        let index = read(&root.join("lib/modules.json"), INDEX_BYTES_MAX)?;
        let kit = match read(&root.join(LOADER_KIT), KIT_BYTES_MAX) {
            Err(DriversError::Index { source, .. }) if source.kind() == ErrorKind::NotFound => {
                LoaderKit::default()
            }
            read => read?,
        };
        Ok(Self {
            index,
            root: root.to_owned(),
            kit,
            asked: HashSet::new(),
            tried: HashSet::new(),
            lacking: BTreeSet::new(),
            loaded: 0,
            added: 0,
            failed: vec![],
        })
    }

    /// The bundle whose agent this very program is; none for a loader that is no agent.
    #[must_use]
    pub fn agent(&self) -> Option<Hash> {
        self.kit.agent
    }

    /// Whether there is no module at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.modules().is_empty()
    }

    /// The kernel release that the modules are for.
    #[must_use]
    pub fn kernel(&self) -> &str {
        self.index.kernel()
    }

    /// How many modules were loaded so far, with those that others depend on.
    #[must_use]
    pub fn loaded(&self) -> u32 {
        self.loaded
    }

    /// The modules that failed to load since the last call, each with its reason.
    #[must_use]
    pub fn take_failed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.failed)
    }

    /// Loads the modules for all devices, until no new device has appeared for `quiet`, at most for `patience`. Those
    /// that are not there are fetched from `server`; without one they are put off.
    ///
    /// # Errors
    /// When a module cannot be fetched; a later call tries it again.
    pub fn settle(
        &mut self,
        quiet: Duration,
        patience: Duration,
        server: Option<&Server>,
    ) -> Result<(), FetchError> {
        self.load_with_needs(VARIABLES, server)?;
        for name in std::mem::take(&mut self.lacking) {
            self.load_with_needs(&name, server)?;
        }
        self.look_until(quiet, patience, server)
    }

    /// As [`Drivers::settle`], but does not wait where the kernel has the modules for all devices already, since then no
    /// device can appear because of this: a bundle has most often no others than the loader, and a machine that waits for
    /// an order is to start its agent at once. For a bundle, which has all its files: nothing is fetched.
    pub fn settle_added(&mut self, quiet: Duration, patience: Duration) {
        // Only fetching can fail.
        let _ = self.load_with_needs(VARIABLES, None);
        for name in FOR_HOOKS {
            let _ = self.load_with_needs(name, None);
        }
        let _ = self.load_new(None);
        if self.added > 0 {
            let _ = self.look_until(quiet, patience, None);
        }
    }

    fn look_until(
        &mut self,
        quiet: Duration,
        patience: Duration,
        server: Option<&Server>,
    ) -> Result<(), FetchError> {
        let begun = Instant::now();
        let mut last_new = begun;
        loop {
            // The buses are read before the clock: on a slow machine a single module takes longer than `quiet`.
            if self.load_new(server)? > 0 {
                last_new = Instant::now();
            }
            if last_new.elapsed() >= quiet || begun.elapsed() >= patience {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Deletes what is not needed any more: all modules, and the firmware of those that were not loaded. A driver asks
    /// for its firmware again when its card is reset.
    pub fn forget(&self) {
        // What cannot be deleted takes memory and does no other harm.
        let _ = fs::remove_dir_all(self.root.join("lib/modules"));
        let used: Vec<&String> = self
            .index
            .modules()
            .iter()
            .filter(|module| self.tried.contains(&module.name))
            .flat_map(|module| &module.firmware)
            .collect();
        let firmware = self.root.join("lib/firmware");
        for file in files_below(&firmware) {
            let Some(name) = file.strip_prefix(&firmware).ok().and_then(Path::to_str) else { continue };
            if !used.iter().any(|pattern| alias_matches(pattern, name)) {
                let _ = fs::remove_file(&file);
            }
        }
    }

    /// Loads the modules for devices that are new since the last call. Returns how many new devices there were.
    fn load_new(&mut self, server: Option<&Server>) -> Result<usize, FetchError> {
        let new: Vec<String> = modaliases(Path::new("/"))
            .into_iter()
            .filter(|modalias| self.asked.insert(modalias.clone()))
            .collect();
        let wanted: BTreeSet<String> =
            new.iter().flat_map(|modalias| self.index.wanted(modalias)).map(str::to_owned).collect();
        // Noted first: if one cannot be fetched, the others are not forgotten.
        let lacking: Vec<String> = wanted.iter().filter(|name| self.is_lacking(name)).cloned().collect();
        self.lacking.extend(lacking);
        for name in wanted {
            self.load_with_needs(&name, server)?;
        }
        for (name, before) in BEHIND {
            if self.tried.contains(before) || !self.is_lacking(name) {
                self.load_with_needs(name, server)?;
            }
        }
        Ok(new.len())
    }

    /// Whether `name`, or a module that it needs, has to be fetched first.
    fn is_lacking(&self, name: &str) -> bool {
        self.index.load_order(name).iter().any(|module| self.lacks(module))
    }

    fn lacks(&self, module: &Module) -> bool {
        let path = format!("lib/modules/{}", module.path);
        self.kit.remote.contains_key(&path) && !self.root.join(path).exists()
    }

    fn load_with_needs(&mut self, name: &str, server: Option<&Server>) -> Result<(), FetchError> {
        if self.tried.contains(name) {
            return Ok(());
        }
        let order: Vec<Module> = self.index.load_order(name).into_iter().cloned().collect();
        if order.iter().any(|module| self.lacks(module)) {
            self.lacking.insert(name.to_owned());
            let Some(server) = server else { return Ok(()) };
            for module in &order {
                self.fetch(module, server)?;
            }
        }
        self.lacking.remove(name);
        for module in order {
            if !self.tried.insert(module.name.clone()) {
                continue;
            }
            match load(&module.name, &self.root.join("lib/modules").join(&module.path)) {
                Ok(added) => {
                    self.loaded += 1;
                    self.added += u32::from(added);
                }
                // There is no such hardware after all, or another driver has it: usual where several modules match.
                Err(Errno::ENODEV) => {}
                Err(errno) => self.failed.push(format!("{}: {}", module.name, explain(errno))),
            }
        }
        Ok(())
    }

    /// Fetches what is not there of `module`: its firmware, and then the module itself, by which it is known to be
    /// whole.
    fn fetch(&mut self, module: &Module, server: &Server) -> Result<(), FetchError> {
        if !self.lacks(module) {
            return Ok(());
        }
        let own = format!("lib/modules/{}", module.path);
        let named = |path: &str| {
            let name = path.strip_prefix("lib/firmware/");
            name.is_some_and(|name| module.firmware.iter().any(|pattern| alias_matches(pattern, name)))
        };
        let firmware = self.kit.remote.iter().filter(|(path, _)| named(path));
        let module = self.kit.remote.get_key_value(&own);
        for (path, file) in firmware.chain(module) {
            let place = self.root.join(path);
            if !is_inside(path) || place.exists() {
                continue;
            }
            let bytes = server.driver(*file)?;
            let parent = place.parent().unwrap_or(&self.root);
            if let Err(error) = fs::create_dir_all(parent).and_then(|()| fs::write(&place, bytes)) {
                // Memory is full, most likely; the module then fails to load with its own reason.
                let _ = fs::remove_file(&place);
                self.failed.push(format!("{path}: {error}"));
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Reads the JSON file `path`, of at most `max` bytes.
fn read<T: DeserializeOwned>(path: &Path, max: u64) -> Result<T, DriversError> {
    let failed = |source| DriversError::Index { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > max {
        return Err(failed(ErrorKind::FileTooLarge.into()));
    }
    let text = fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|source| DriversError::Content { path: path.to_owned(), source })
}

/// All files below `dir`; none where it cannot be read.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (vec![], vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files
}

/// Loads the module `name` from `file`; false if the kernel had it before, which it says only after reading the file.
fn load(name: &str, file: &Path) -> Result<bool, Errno> {
    if Path::new("/sys/module").join(name).is_dir() {
        return Ok(false);
    }
    let open = File::open(file).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    match finit_module(&open, c"", ModuleInitFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The kernel's error of loading a module, in a person's terms.
fn explain(errno: Errno) -> String {
    match errno {
        Errno::ENOEXEC => "not for this kernel".to_owned(),
        Errno::EKEYREJECTED | Errno::EPERM => "refused by Secure Boot: not signed for this kernel".to_owned(),
        Errno::ENOENT => "not there, or something that it needs is not".to_owned(),
        other => other.desc().to_owned(),
    }
}

#[cfg(test)]
mod tests;
