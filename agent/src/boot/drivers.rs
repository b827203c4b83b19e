//! Kernel modules for the machine's devices: reads the buses, loads the modules that the devices ask for, and reads the
//! buses again, since a driver brings new devices (a PCI function becomes a virtio device, a host adapter finds disks).
//!
//! A module that does not load is no error: it is reported, and the machine goes on without it. Touches `/sys/bus`, the
//! modules below one folder, and the kernel's module call.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::modules::{Module, ModuleIndex};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::inspect::devices::modaliases;

/// The interval at which the buses are read while devices may still appear.
const LOOK: Duration = Duration::from_millis(50);

/// The longest module index that is read, in bytes: Debian's whole kernel makes about 6 MiB.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Modules that not every kernel has a device ask for: disks behind SCSI hosts, memory cards, and the UEFI variables,
/// which tell whether Secure Boot is on.
const ALWAYS: [&str; 3] = ["sd_mod", "mmc_block", "efivarfs"];

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
    dir: PathBuf,
    asked: HashSet<String>,
    tried: HashSet<String>,
    loaded: u32,
    /// How many of those the kernel did not have before.
    added: u32,
    failed: Vec<String>,
}

impl Drivers {
    /// Opens the modules below `root`: the index `lib/modules.json` and the files in `lib/modules`.
    ///
    /// # Errors
    /// When the index is missing or malformed.
    pub fn open(root: &Path) -> Result<Self, DriversError> {
        let path = root.join("lib/modules.json");
        let failed = |source| DriversError::Index { path: path.clone(), source };
        if fs::metadata(&path).map_err(failed)?.len() > INDEX_BYTES_MAX {
            return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
        }
        let text = fs::read(&path).map_err(failed)?;
        let index = serde_json::from_slice(&text)
            .map_err(|source| DriversError::Content { path: path.clone(), source })?;
        Ok(Self {
            index,
            dir: root.join("lib/modules"),
            asked: HashSet::new(),
            tried: HashSet::new(),
            loaded: 0,
            added: 0,
            failed: vec![],
        })
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

    /// Loads the modules for all devices, until no new device has appeared for `quiet`, at most for `patience`.
    pub fn settle(&mut self, quiet: Duration, patience: Duration) {
        for name in ALWAYS {
            self.load_with_needs(name);
        }
        self.look_until(quiet, patience);
    }

    /// As [`Drivers::settle`], but does not wait where the kernel has the modules for all devices already, since then no
    /// device can appear because of this: a bundle has most often no others than the loader, and a machine that waits for
    /// an order is to start its agent at once.
    pub fn settle_added(&mut self, quiet: Duration, patience: Duration) {
        for name in ALWAYS {
            self.load_with_needs(name);
        }
        self.load_new();
        if self.added > 0 {
            self.look_until(quiet, patience);
        }
    }

    fn look_until(&mut self, quiet: Duration, patience: Duration) {
        let begun = Instant::now();
        let mut last_new = begun;
        loop {
            // The buses are read before the clock: on a slow machine a single module takes longer than `quiet`.
            if self.load_new() > 0 {
                last_new = Instant::now();
            }
            if last_new.elapsed() >= quiet || begun.elapsed() >= patience {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Loads the modules for devices that are new since the last call. Returns how many new devices there were.
    fn load_new(&mut self) -> usize {
        let new: Vec<String> = modaliases(Path::new("/"))
            .into_iter()
            .filter(|modalias| self.asked.insert(modalias.clone()))
            .collect();
        for modalias in &new {
            let wanted: Vec<String> = self.index.wanted(modalias).into_iter().map(str::to_owned).collect();
            for name in wanted {
                self.load_with_needs(&name);
            }
        }
        new.len()
    }

    fn load_with_needs(&mut self, name: &str) {
        let order: Vec<Module> = self.index.load_order(name).into_iter().cloned().collect();
        for module in order {
            if !self.tried.insert(module.name.clone()) {
                continue;
            }
            match load(&module.name, &self.dir.join(&module.path)) {
                Ok(added) => {
                    self.loaded += 1;
                    self.added += u32::from(added);
                }
                // There is no such hardware after all, or another driver has it: usual where several modules match.
                Err(Errno::ENODEV) => {}
                Err(errno) => self.failed.push(format!("{}: {}", module.name, explain(errno))),
            }
        }
    }
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
