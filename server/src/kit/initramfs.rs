//! Builds the loader's initramfs, of which there are two kinds: the general one has every network driver of the kit and
//! what is needed to see disks; a small one has what reaches the server over one kind of NIC, and the agent, which is
//! the loader, too. Owns their contents. Touches the kit's files, to read.

use std::collections::BTreeMap;

use common::id::Hash;
use common::modules::{INIT, LOADER_KIT, LoaderKit, Module, ModuleIndex, RemoteFile};

use super::archive::Archive;
use super::choose;
use super::error::{KitError, Result};
use super::spec::Progress;
use super::store::{Kit, LOADER};

/// The part of `index` that the loader's initramfs has.
pub(crate) fn loader_modules(index: &ModuleIndex) -> ModuleIndex {
    let wanted = index.modules().iter().filter(|module| choose::part_of(&module.path).is_some());
    index.cut(wanted.map(|module| module.name.as_str()))
}

/// Builds the general initramfs with `program` as the loader. The same kit and program give the same bytes.
pub(crate) fn build(kit: &Kit, program: &[u8], progress: &mut dyn FnMut(Progress)) -> Result<Vec<u8>> {
    let index = loader_modules(&kit.modules);
    let mut archive = skeleton(&index)?;
    archive.program(INIT, program.to_vec());
    for module in index.modules() {
        for (place, file) in files_of(kit, module) {
            archive.file(&place, kit.read(&file)?);
        }
    }
    about(&mut archive, &LoaderKit { drivers: kit.drivers(), ..LoaderKit::default() })?;
    let total = archive.content_bytes();
    let mut report = |done| progress(Progress::Compressing { done, total });
    archive.pack(kit.record.compression, &mut report).map_err(cannot)
}

/// The part that all small initramfs of a kit have in common: `agent` as the first program. It takes seconds, the rest
/// of a small initramfs a tenth of that. The same inputs give the same bytes.
///
/// # Errors
/// When the archive cannot be made.
pub fn agent_archive(kit: &Kit, agent: Vec<u8>) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.program(INIT, agent);
    archive.pack(kit.small_compression(), &mut |_| {}).map_err(cannot)
}

/// Builds a small initramfs of the modules of these names and `agent`, an [`agent_archive`]; the bundle `bundle` has that
/// agent as well. It names the files of the kit that the general one has besides. Linux unpacks archives one after the
/// other, each compressed by itself (Documentation/driver-api/early-userspace/buffer-format.rst). The same inputs give
/// the same bytes.
///
/// # Errors
/// When a file of the kit cannot be read, or the archive cannot be made.
pub fn small_initramfs(kit: &Kit, modules: &[String], agent: &[u8], bundle: Hash) -> Result<Vec<u8>> {
    let index = loader_modules(&kit.modules);
    let mut archive = skeleton(&index)?;
    let mut remote = BTreeMap::new();
    for module in index.modules() {
        for (place, file) in files_of(kit, module) {
            if modules.contains(&module.name) {
                archive.file(&place, kit.read(&file)?);
            } else if let Some(mark) = kit.mark(&file) {
                remote.insert(place, RemoteFile { bytes: mark.bytes, hash: mark.blake3 });
            }
        }
    }
    // Firmware that several modules want may be there for one of them.
    remote.retain(|place, _| !archive.has(place));
    about(&mut archive, &LoaderKit { drivers: kit.drivers(), agent: Some(bundle), remote })?;
    let mut bytes = archive.pack(kit.small_compression(), &mut |_| {}).map_err(cannot)?;
    bytes.extend_from_slice(agent);
    Ok(bytes)
}

/// What both kinds have: folders, the console, and the index of the modules that the loader may want.
fn skeleton(index: &ModuleIndex) -> Result<Archive> {
    let mut archive = Archive::new();
    for folder in ["dev", "proc", "run", "sys", "tmp"] {
        archive.folder(folder);
    }
    // The kernel opens it for the loader before the loader can mount anything.
    archive.device("dev/console", 5, 1);
    let text = serde_json::to_vec(index).map_err(|error| cannot(error.into()))?;
    archive.file("lib/modules.json", text);
    Ok(archive)
}

fn about(archive: &mut Archive, loader: &LoaderKit) -> Result<()> {
    archive.file(LOADER_KIT, serde_json::to_vec(loader).map_err(|error| cannot(error.into()))?);
    Ok(())
}

/// The files of `module`: itself and its firmware, each by its place in an initramfs and in the kit.
fn files_of(kit: &Kit, module: &Module) -> Vec<(String, String)> {
    let own = (format!("lib/modules/{}", module.path), format!("modules/{}", module.path));
    let firmware = firmware_of(kit, &module.firmware);
    let firmware = firmware.map(|name| (format!("lib/firmware/{name}"), format!("firmware/{name}")));
    std::iter::once(own).chain(firmware).collect()
}

/// The firmware files of the kit that `wanted` names; some of its entries are patterns.
pub(crate) fn firmware_of<'a>(kit: &'a Kit, wanted: &'a [String]) -> impl Iterator<Item = &'a str> {
    kit.firmware()
        .filter(move |name| wanted.iter().any(|pattern| common::modules::alias_matches(pattern, name)))
}

fn cannot(source: std::io::Error) -> KitError {
    KitError::Write { path: LOADER.into(), source }
}
