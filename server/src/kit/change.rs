//! Opening the kits, importing one, and replacing the loader in one after an upgrade. Touches files; blocks.

use std::fs;
use std::path::Path;

use common::id::Hash;

use super::error::{KitError, Result, reading, writing};
use super::spec::{ImportSpec, Progress};
use super::store::{self, FileMark, KitInfo, Kits, LOADER};
use super::{import, initramfs};

impl Kits {
    /// Opens the kits below `state_dir`; the folder is created if needed.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let dir = state_dir.join("kits");
        fs::create_dir_all(&dir).map_err(writing(&dir))?;
        let kits = Self::at(dir);
        match import::lock(&kits) {
            // If another process is importing, its lock is left alone.
            Ok(_) | Err(KitError::Busy(_)) => Ok(kits),
            Err(error) => Err(error),
        }
    }

    /// The kits below `state_dir`, only to be looked at: nothing is written or locked.
    #[must_use]
    pub fn look(state_dir: &Path) -> Self {
        Self::at(state_dir.join("kits"))
    }

    /// Imports a kit. Blocks for seconds to minutes; an import that fails leaves nothing.
    ///
    /// # Errors
    /// When a source cannot be read, something vital is missing in all of them, the name is taken, or the disk is full.
    pub fn import(&self, spec: &ImportSpec, progress: &mut dyn FnMut(Progress)) -> Result<KitInfo> {
        let name = import::run(self, spec, progress)?;
        self.info(&name)
    }

    /// Builds the loader's initramfs of the kit `name` again if the program at `loader` is not the one inside: for a
    /// server that was upgraded. Returns whether it was built.
    ///
    /// # Errors
    /// When there is no such kit, or a file cannot be read or written.
    pub fn refresh_loader(&self, name: &str, loader: &Path) -> Result<bool> {
        let mut kit = self.get(name)?;
        let program = fs::read(loader).map_err(reading(loader))?;
        let hash = Hash::of(&program);
        if kit.record.loader == hash && kit.loader_img_path().exists() {
            return Ok(false);
        }
        let image = initramfs::build(&kit, &program, &mut |_| {})?;
        store::replace_file(&kit.loader_img_path(), &image)?;
        kit.record.loader = hash;
        kit.record.files.insert(LOADER.to_owned(), FileMark::of(&image));
        kit.save_record()?;
        Ok(true)
    }
}
