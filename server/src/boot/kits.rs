//! What machines are booted with at this moment: the default kit's boot programs, in memory, and where every kit's kernel
//! and loader lie. Owns when that changes, and tells DHCP and TFTP. Touches the kits; what changes them blocks.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::choose::Programs;
use super::tftp::Files;
use super::{AUTOEXEC, script};
use crate::kit::{BootFiles, FileMark, ImportSpec, KitError, KitInfo, Kits, Progress, Source};

/// What there is to boot with; another value when a kit is imported or removed.
#[derive(Debug, Clone, Default)]
struct Booting {
    kit: Option<String>,
    programs: Files,
    /// What there is of every kit: machines that began with another one still fetch of that.
    kits: Arc<BTreeMap<String, BootFiles>>,
}

/// The boot kits as machines and an admin meet them. One for the whole server.
#[derive(Debug)]
pub struct BootKits {
    kits: Kits,
    settings: BootSettings,
    booting: watch::Sender<Booting>,
    programs: watch::Sender<Programs>,
    files: watch::Sender<Files>,
}

/// What boot files are made with.
#[derive(Debug)]
pub struct BootSettings {
    /// The `swarmboot-loader` program, which kits are made with.
    pub loader: PathBuf,
    /// Where machines reach us over HTTP.
    pub http: SocketAddr,
    /// The network boot program that an admin prefers, if any.
    pub prefer: Option<String>,
}

/// A kit to be made as an admin asks for it: with this server's own loader, in the place of one of the same name.
#[derive(Debug)]
pub struct Wanted {
    /// Its name; the kernel's release when none.
    pub name: Option<String>,
    /// What to make it from; where two have a file, the later one counts.
    pub sources: Vec<Source>,
    /// The kernel's release, where the sources hold several; the newest when none.
    pub kernel: Option<String>,
}

impl BootKits {
    /// Over `kits`, of which nothing is read before [`BootKits::prepare`].
    #[must_use]
    pub fn new(kits: Kits, settings: BootSettings) -> Self {
        Self {
            kits,
            settings,
            booting: watch::Sender::default(),
            programs: watch::Sender::default(),
            files: watch::Sender::default(),
        }
    }

    /// The kits themselves.
    #[must_use]
    pub fn store(&self) -> &Kits {
        &self.kits
    }

    /// The names of the boot programs that there are, for DHCP.
    #[must_use]
    pub fn programs(&self) -> watch::Receiver<Programs> {
        self.programs.subscribe()
    }

    /// The boot programs themselves, for TFTP.
    #[must_use]
    pub fn files(&self) -> watch::Receiver<Files> {
        self.files.subscribe()
    }

    /// The name of the kit that machines are booted with, if there is one.
    #[must_use]
    pub fn kit(&self) -> Option<String> {
        self.booting.borrow().kit.clone()
    }

    /// Where a file lies that machines boot with, and its mark: `vmlinuz` or `loader.img` of a kit, and nothing else.
    #[must_use]
    pub fn kit_file(&self, kit: &str, file: &str) -> Option<(PathBuf, Option<FileMark>)> {
        let kits = Arc::clone(&self.booting.borrow().kits);
        let kit = kits.get(kit)?;
        match file {
            "vmlinuz" => Some(kit.kernel.clone()),
            "loader.img" => Some(kit.loader.clone()),
            _ => None,
        }
    }

    /// The bytes of a network boot program.
    #[must_use]
    pub fn boot_program(&self, file: &str) -> Option<Bytes> {
        self.booting.borrow().programs.get(file).cloned()
    }

    /// Puts this server's loader into kits that were made with another version of it, and tells what there is to boot
    /// with. Blocking.
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

    /// Makes a kit, which machines are booted with from then on. Blocks for seconds to minutes.
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

    /// Removes a kit. Blocking.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), KitError> {
        self.kits.remove(name)?;
        self.changed();
        Ok(())
    }

    /// Reads the default kit's boot programs into memory and tells DHCP and TFTP. Blocking.
    fn changed(&self) {
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
        self.booting.send_replace(booting);
    }

    /// The default kit's name and its boot programs.
    fn default_programs(&self) -> Result<(String, HashMap<String, Bytes>), KitError> {
        let kit = self.kits.default_kit()?;
        let programs = kit.boot_programs()?.into_iter().map(|(name, bytes)| (name, Bytes::from(bytes)));
        // iPXE that cannot be given a script by DHCP (the signed one) looks for this beside itself.
        let entry = (AUTOEXEC.to_owned(), Bytes::from(script::entry(self.settings.http)));
        Ok((kit.name().to_owned(), programs.chain([entry]).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_given_without_reading_the_kits_index_again() {
        let bench = crate::kit::tests::Bench::imported();
        let settings = BootSettings {
            loader: bench.dir.path().join("loader"),
            http: ([127, 0, 0, 1], 0).into(),
            prefer: None,
        };
        let boot_kits = BootKits::new(bench.kits.clone(), settings);
        boot_kits.prepare();
        let kit = boot_kits.kit().unwrap();
        for index in ["kit.json", "modules.json"] {
            std::fs::write(bench.dir.path().join("kits").join(&kit).join(index), "").unwrap();
        }
        assert!(boot_kits.kit_file(&kit, "vmlinuz").is_some());
        assert!(boot_kits.kit_file(&kit, "loader.img").is_some());
        assert!(boot_kits.kit_file("another", "vmlinuz").is_none());
    }
}
