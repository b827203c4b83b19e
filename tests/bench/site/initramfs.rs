//! What a loader finds in its initramfs: which agent came with it, the index of modules, and which files it has to fetch
//! for its devices. The machines of a run share one unpacked copy of each initramfs, in the run's folder: with thirty on
//! two processors it is not the line that would be measured. Touches that folder; runs xz or zstd, and cpio.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use common::hardware::Device;
use common::id::Hash;
use common::modules::{LOADER_KIT, LoaderKit, ModuleIndex, RemoteFile, alias_matches};

/// Where an initramfs has the index of its modules.
const INDEX: &str = "lib/modules.json";
/// What the loader loads beside the modules for the devices: that for UEFI's variables, and that for the disks of an AHCI
/// controller, which asks for none.
const BESIDE: [&str; 2] = ["efivarfs", "sd_mod"];

/// An initramfs of the loader.
#[derive(Debug)]
pub(crate) struct Initramfs {
    /// What it says of its boot kit.
    pub(crate) kit: LoaderKit,
    index: ModuleIndex,
}

impl Initramfs {
    /// Reads the initramfs `bytes`, of which a folder below `shared` keeps what is looked at.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub(crate) fn read(bytes: &[u8], shared: &Path) -> Result<Self> {
        let folder = shared.join(format!("initramfs-{}", Hash::of(bytes).short()));
        if !folder.exists() {
            let own = shared.join(format!("unpacking-{}", std::process::id()));
            unpack(bytes, &own)?;
            // Another machine may have been faster.
            if fs::rename(&own, &folder).is_err() {
                fs::remove_dir_all(&own)?;
            }
        }
        let kit = match fs::read(folder.join(LOADER_KIT)) {
            Ok(text) => serde_json::from_slice(&text).context("the kit of the initramfs")?,
            Err(_) => LoaderKit::default(),
        };
        let index = fs::read(folder.join(INDEX)).context("the initramfs has no index of modules")?;
        Ok(Self { kit, index: serde_json::from_slice(&index).context("the index of modules")? })
    }

    /// The files that the loader fetches for `devices` before it reports, by their paths.
    pub(crate) fn lacking(&self, devices: &[Device]) -> BTreeMap<String, RemoteFile> {
        let wanted = devices.iter().flat_map(|device| self.index.wanted(&device.modalias));
        let names: Vec<&str> = wanted.chain(BESIDE).collect();
        let mut files = BTreeMap::new();
        for module in self.index.load_order_of(names) {
            let path = format!("lib/modules/{}", module.path);
            let Some(file) = self.kit.remote.get(&path) else { continue };
            let named = |path: &str| {
                let name = path.strip_prefix("lib/firmware/");
                name.is_some_and(|name| module.firmware.iter().any(|pattern| alias_matches(pattern, name)))
            };
            let firmware = self.kit.remote.iter().filter(|(path, _)| named(path));
            files.extend(firmware.map(|(path, file)| (path.clone(), *file)));
            files.insert(path, *file);
        }
        files
    }
}

fn unpack(bytes: &[u8], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let program = match bytes {
        [0xfd, b'7', b'z', ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => bail!("an initramfs that is neither xz nor zstd"),
    };
    // Behind the archive with what is looked at may be another one, where cpio stops reading.
    let pipe = format!(
        "{program} -dc >whole && cpio -id --quiet --no-absolute-filenames {INDEX} {LOADER_KIT} <whole && rm whole"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &pipe]).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = command.spawn()?;
    running.stdin.take().context("no pipe")?.write_all(bytes)?;
    let status = running.wait()?;
    ensure!(status.success(), "the initramfs cannot be unpacked: {status}");
    Ok(())
}
