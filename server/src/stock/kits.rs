//! The admin's way to the boot kits: what the import says, in the admin's words, and telling the doors when the
//! kits have changed. Touches the kits.

use common::causes;
use common::wire::http::Refused;
use jiff::Timestamp;

use super::Stock;
use crate::api::shapes::{KitImport, KitShown, KitSource};
use crate::http::{KitAdmin, OnProgress};
use crate::kit::{ImportSpec, KitError, KitInfo, Progress, Source};

impl KitAdmin for Stock {
    fn list(&self) -> Result<Vec<KitShown>, Refused> {
        let kits = self.kits.list().map_err(|error| refused(&error))?;
        Ok(kits.into_iter().map(shown).collect())
    }

    fn show(&self, name: &str) -> Result<KitShown, Refused> {
        self.kits.info(name).map(shown).map_err(|error| refused(&error))
    }

    fn import(&self, import: &KitImport, progress: OnProgress<'_>) -> Result<KitShown, Refused> {
        let spec = ImportSpec {
            name: import.name.clone(),
            sources: import.sources.iter().map(source).collect(),
            kernel: import.kernel.clone(),
            loader: self.loader.clone(),
            replace: true,
        };
        let info = self
            .kits
            .import(&spec, &mut |so_far| {
                let (done, total, text) = words(so_far);
                progress(done, total, text);
            })
            .and_then(|info| self.kits.set_default(&info.name).and_then(|()| self.kits.info(&info.name)))
            .map_err(|error| refused(&error))?;
        self.kits_changed();
        Ok(shown(info))
    }

    fn remove(&self, name: &str) -> Result<(), Refused> {
        self.kits.remove(name).map_err(|error| refused(&error))?;
        self.kits_changed();
        Ok(())
    }
}

fn source(source: &KitSource) -> Source {
    match source {
        KitSource::Host => Source::Host,
        KitSource::Folder(path) | KitSource::Deb(path) => Source::Path(path.clone()),
    }
}

fn words(progress: Progress) -> (u64, Option<u64>, String) {
    match progress {
        Progress::Unpacking { package, bytes } => (bytes, None, format!("unpacking {package}")),
        Progress::Modules { done } => (done as u64, None, "modules read".to_owned()),
        Progress::Compressing { done, total } => (done, Some(total), "compressing the loader".to_owned()),
        Progress::Syncing => (0, None, "waiting for the disk".to_owned()),
    }
}

fn refused(error: &KitError) -> Refused {
    Refused { error: error.to_string(), cause: causes::behind(error), hint: error.hint() }
}

fn shown(info: KitInfo) -> KitShown {
    let imported = i64::try_from(info.imported_at).ok().and_then(|at| Timestamp::from_second(at).ok());
    KitShown {
        name: info.name,
        kernel: info.kernel,
        architecture: info.architecture,
        in_use: info.default,
        imported: imported.unwrap_or_default(),
        modules: info.modules as u64,
        firmware_files: info.firmware as u64,
        boot_programs: info.boot_programs,
        kernel_bytes: info.kernel_bytes,
        loader_bytes: info.loader_bytes,
        missing: info.warnings,
    }
}
