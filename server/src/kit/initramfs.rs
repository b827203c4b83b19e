//! Builds the loader's initramfs: the loader as `/init`, every network driver of the kit and what is needed to see
//! disks. Owns its contents. Touches the kit's files, to read.

use common::modules::ModuleIndex;

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

/// Builds the initramfs with `program` as the loader. The same kit and program give the same bytes.
pub(crate) fn build(kit: &Kit, program: &[u8], progress: &mut dyn FnMut(Progress)) -> Result<Vec<u8>> {
    let cannot = |source| KitError::Write { path: LOADER.into(), source };
    let mut archive = Archive::new();
    for folder in ["dev", "proc", "run", "sys", "tmp"] {
        archive.folder(folder);
    }
    // The kernel opens it for the loader before the loader can mount anything.
    archive.device("dev/console", 5, 1);
    archive.program("init", program.to_vec());
    let index = loader_modules(&kit.modules);
    for module in index.modules() {
        archive.file(&format!("lib/modules/{}", module.path), kit.read(&format!("modules/{}", module.path))?);
        for name in firmware_of(kit, &module.firmware) {
            archive.file(&format!("lib/firmware/{name}"), kit.read(&format!("firmware/{name}"))?);
        }
    }
    let text = serde_json::to_vec(&index).map_err(|error| cannot(error.into()))?;
    archive.file("lib/modules.json", text);
    let total = archive.content_bytes();
    let mut report = |done| progress(Progress::Compressing { done, total });
    archive.pack(kit.record.compression, &mut report).map_err(cannot)
}

/// The firmware files of the kit that `wanted` names; some of its entries are patterns.
pub(crate) fn firmware_of<'a>(kit: &'a Kit, wanted: &'a [String]) -> impl Iterator<Item = &'a str> {
    kit.firmware()
        .filter(move |name| wanted.iter().any(|pattern| common::modules::alias_matches(pattern, name)))
}
