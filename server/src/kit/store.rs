//! The store of kits, and one kit. Owns `<state>/kits`: only complete kits are visible, since an import appears by one
//! rename. Touches files.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::id::Hash;
use common::modules::ModuleIndex;
use serde::{Deserialize, Serialize};

use super::current::Current;
use super::error::{KitError, Result, reading, writing};
use super::ipxe;

/// The version of `kit.json` that this program writes and reads.
const FORMAT: u32 = 1;
const DEFAULT_MARK: &str = "default";
/// The file with a kit's record, in its folder.
pub(super) const INDEX: &str = "kit.json";
pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const LOADER: &str = "loader.img";
pub(crate) const MODULES: &str = "modules.json";

/// Length and hash of one file of a kit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// The file's length in bytes.
    pub bytes: u64,
    /// The BLAKE3 hash of its bytes.
    pub blake3: Hash,
}

impl FileMark {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, blake3: Hash::of(bytes) }
    }
}

/// `kit.json`: the record of a kit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) name: String,
    pub(crate) kernel: String,
    pub(crate) architecture: String,
    pub(crate) imported_at: u64,
    pub(crate) sources: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// How the loader's initramfs is compressed, for when it is made again.
    pub(crate) compression: super::archive::Compression,
    /// Whether its kernel can unpack xz, which makes small loaders a tenth smaller than zstd; kits of earlier versions
    /// do not say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) xz: bool,
    /// The hash of the loader program inside `loader.img`.
    pub(crate) loader: Hash,
    /// Every file but this one, by its path in the kit.
    pub(crate) files: BTreeMap<String, FileMark>,
}

/// What is known of a kit without reading its module index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KitInfo {
    /// The kit's name, which is also its folder's.
    pub name: String,
    /// Whether machines are booted with it.
    pub default: bool,
    /// The kernel's release, such as `6.1.0-9-amd64`.
    pub kernel: String,
    /// The processors that it is for: `x86_64`.
    pub architecture: String,
    /// When it was imported, in seconds since 1970.
    pub imported_at: u64,
    /// Its sources, in words.
    pub sources: Vec<String>,
    /// How many modules it has.
    pub modules: usize,
    /// How many firmware files it has.
    pub firmware: usize,
    /// The file names of its network boot programs.
    pub boot_programs: Vec<String>,
    /// The version of its iPXE for UEFI; none where the program does not tell.
    pub ipxe: Option<String>,
    /// Whether that iPXE can check what it fetches from other machines.
    pub verifies: bool,
    /// Bytes of the kernel.
    pub kernel_bytes: u64,
    /// Bytes of the loader's initramfs, compressed.
    pub loader_bytes: u64,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// What is missing but not vital, each with what to do about it.
    pub warnings: Vec<String>,
}

/// The kits of one state folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kits {
    dir: PathBuf,
    stop: Arc<AtomicBool>,
    /// The cache of the default kit.
    current: Arc<Current<Kit>>,
}

impl Kits {
    /// The kits in the folder `dir`, which exists.
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir, stop: Arc::default(), current: Arc::default() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Cancels a running import, which fails with `KitError::Stopped` at the next file or module, or when the loader is
    /// compressed.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// When the server is stopping.
    pub(super) fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(KitError::Stopped) } else { Ok(()) }
    }

    /// All kits, the newest import first.
    ///
    /// # Errors
    /// When the folder or a `kit.json` cannot be read.
    pub fn list(&self) -> Result<Vec<KitInfo>> {
        let default = self.default_name()?;
        let records = self.records()?;
        Ok(records.iter().map(|record| self.info_of(record, default.as_deref())).collect())
    }

    /// What is known of the kit `name`.
    ///
    /// # Errors
    /// When there is no such kit, or it cannot be read.
    pub fn info(&self, name: &str) -> Result<KitInfo> {
        let default = self.default_name()?;
        Ok(self.info_of(&self.record(name)?, default.as_deref()))
    }

    /// The kit `name`, with its module index.
    ///
    /// # Errors
    /// When there is no such kit, or it cannot be read.
    pub fn get(&self, name: &str) -> Result<Kit> {
        let record = self.record(name)?;
        let dir = self.dir.join(name);
        let path = dir.join(MODULES);
        let text = fs::read(&path).map_err(reading(&path))?;
        let modules = serde_json::from_slice(&text).map_err(|source| KitError::Index { path, source })?;
        Ok(Kit { dir, record, modules })
    }

    /// The kit that machines are booted with: the marked one, else the newest. Cached until something changes on the
    /// disk, no matter which process changes it.
    ///
    /// # Errors
    /// When there is no kit, or it cannot be read.
    pub fn default_kit(&self) -> Result<Arc<Kit>> {
        let choose = || self.default_name()?.ok_or(KitError::None);
        self.current.get(&self.dir, (DEFAULT_MARK, INDEX), choose, |name| self.get(name))
    }

    /// Marks the kit `name` as the default.
    ///
    /// # Errors
    /// When there is no such kit, or the mark cannot be written.
    pub fn set_default(&self, name: &str) -> Result<()> {
        self.record(name)?;
        replace_file(&self.dir.join(DEFAULT_MARK), name.as_bytes())
    }

    /// The kernel and loader of every kit, for HTTP, which serves them more often than kits change.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn boot_files(&self) -> Result<BTreeMap<String, BootFiles>> {
        let served = |record: Record| {
            let dir = self.dir.join(&record.name);
            let file = |name: &str| (dir.join(name), record.files.get(name).copied());
            let (kernel, loader) = (file(KERNEL), file(LOADER));
            let is_driver = |path: &str| path.starts_with("modules/") || path.starts_with("firmware/");
            let drivers = record.files.iter().filter(|(path, _)| is_driver(path));
            let drivers = drivers.map(|(path, mark)| (mark.blake3, dir.join(path))).collect();
            (record.name.clone(), BootFiles { kernel, loader, drivers })
        };
        Ok(self.records()?.into_iter().map(served).collect())
    }

    /// Removes the kit `name`, damaged or not. The caller ensures that no machine is being booted with it.
    ///
    /// # Errors
    /// When there is no such kit, or its files cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        match self.record(name) {
            // A kit that cannot be read may be removed, too.
            Ok(_) | Err(KitError::Index { .. }) => {}
            Err(error) => return Err(error),
        }
        // Renamed first: a kit that is half removed must not be listed.
        let doomed = self.dir.join(format!(".removed-{name}"));
        match fs::remove_dir_all(&doomed) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(KitError::Write { path: doomed, source });
            }
            _ => {}
        }
        fs::rename(self.dir.join(name), &doomed).map_err(writing(&doomed))?;
        fs::remove_dir_all(&doomed).map_err(writing(&doomed))
    }

    fn info_of(&self, record: &Record, default: Option<&str>) -> KitInfo {
        let count = |folder: &str| record.files.keys().filter(|path| path.starts_with(folder)).count();
        let bytes = |file: &str| record.files.get(file).map_or(0, |mark| mark.bytes);
        // The one that is preferred for UEFI; a program that cannot be read names no version.
        let program =
            ["boot/snponly.efi", "boot/ipxe.efi"].into_iter().find(|file| record.files.contains_key(*file));
        let program = program.and_then(|file| fs::read(self.dir.join(&record.name).join(file)).ok());
        let ipxe = program.and_then(|bytes| ipxe::version(&bytes));
        KitInfo {
            name: record.name.clone(),
            default: default == Some(&record.name),
            kernel: record.kernel.clone(),
            architecture: record.architecture.clone(),
            imported_at: record.imported_at,
            sources: record.sources.clone(),
            modules: count("modules/"),
            firmware: count("firmware/"),
            boot_programs: record
                .files
                .keys()
                .filter_map(|path| path.strip_prefix("boot/").map(str::to_owned))
                .collect(),
            verifies: ipxe.as_deref().is_some_and(ipxe::verifies),
            ipxe,
            kernel_bytes: bytes(KERNEL),
            loader_bytes: bytes(LOADER),
            total_bytes: record.files.values().map(|mark| mark.bytes).sum(),
            warnings: record.warnings.clone(),
        }
    }

    fn default_name(&self) -> Result<Option<String>> {
        let records = self.records()?;
        let path = self.dir.join(DEFAULT_MARK);
        let marked = match fs::read_to_string(&path) {
            Ok(name) => Some(name.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(KitError::Read { path, source }),
        };
        let marked = marked.filter(|name| records.iter().any(|record| record.name == *name));
        Ok(marked.or_else(|| records.first().map(|record| record.name.clone())))
    }

    /// The records of all kits, the newest first.
    fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(reading(&self.dir))? {
            let name = entry.map_err(reading(&self.dir))?.file_name();
            if let Some(name) = name.to_str()
                && check_name(name).is_ok()
                && self.dir.join(name).join(INDEX).exists()
            {
                match self.record(name) {
                    Ok(record) => records.push(record),
                    // A damaged kit must not keep the others from being listed.
                    Err(error) => tracing::warn!(
                        kit = name,
                        error = &error as &dyn std::error::Error,
                        "a boot kit is left out; `swarmboot kit remove` and a new import mend it"
                    ),
                }
            }
        }
        records.sort_by(|a, b| b.imported_at.cmp(&a.imported_at).then_with(|| a.name.cmp(&b.name)));
        Ok(records)
    }

    fn record(&self, name: &str) -> Result<Record> {
        check_name(name)?;
        let path = self.dir.join(name).join(INDEX);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let known = self.records()?.into_iter().map(|record| record.name).collect();
                return Err(KitError::Unknown { name: name.to_owned(), known });
            }
            Err(source) => return Err(KitError::Read { path, source }),
        };
        let record: Record =
            serde_json::from_slice(&text).map_err(|source| KitError::Index { path: path.clone(), source })?;
        if record.format != FORMAT {
            let wrong = format!("format {}; this program reads format {FORMAT}", record.format);
            return Err(KitError::Index { path, source: serde::de::Error::custom(wrong) });
        }
        Ok(record)
    }
}

/// The files of a kit that machines fetch over HTTP, each with its path and mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// The kernel; no mark in a kit whose record lacks it.
    pub kernel: (PathBuf, Option<FileMark>),
    /// The loader's initramfs; no mark in a kit whose record lacks it.
    pub loader: (PathBuf, Option<FileMark>),
    /// Modules and firmware, by their hashes.
    pub drivers: HashMap<Hash, PathBuf>,
}

/// One kit, with its record and module index in memory.
#[derive(Debug, Clone)]
pub struct Kit {
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    pub(crate) modules: ModuleIndex,
}

impl Kit {
    /// The kit's name, which is also its folder's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The release of its kernel.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.record.kernel
    }

    /// The path of its kernel.
    #[must_use]
    pub fn kernel_path(&self) -> PathBuf {
        self.dir.join(KERNEL)
    }

    /// The path of its loader's initramfs.
    #[must_use]
    pub fn loader_img_path(&self) -> PathBuf {
        self.dir.join(LOADER)
    }

    /// The index of its modules: what each depends on and which hardware it is for.
    #[must_use]
    pub fn modules(&self) -> &ModuleIndex {
        &self.modules
    }

    /// The names of its firmware files, relative to `/lib/firmware`, ascending.
    pub fn firmware(&self) -> impl Iterator<Item = &str> {
        self.record.files.keys().filter_map(|path| path.strip_prefix("firmware/"))
    }

    /// Its network boot programs by name (`undionly.kpxe`, `ipxe.efi`, `snponly.efi`), each under 2 MiB.
    ///
    /// # Errors
    /// When one cannot be read, or has another hash than at the import.
    pub fn boot_programs(&self) -> Result<HashMap<String, Vec<u8>>> {
        let names = self.record.files.keys().filter_map(|path| path.strip_prefix("boot/"));
        names.map(|name| Ok((name.to_owned(), self.read(&format!("boot/{name}"))?))).collect()
    }

    /// The bytes of one of its files, checked against the hash that was taken at import.
    ///
    /// # Errors
    /// When it cannot be read, or has another hash than at the import.
    pub fn read(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(file);
        let mark = self.record.files.get(file).ok_or_else(|| KitError::Changed(path.clone()))?;
        let bytes = fs::read(&path).map_err(reading(&path))?;
        if FileMark::of(&bytes) == *mark { Ok(bytes) } else { Err(KitError::Changed(path)) }
    }

    /// The length and hash of each of its files at the import, by its path in the kit, ascending.
    pub fn marks(&self) -> impl Iterator<Item = (&str, FileMark)> {
        let files = self.record.files.iter().filter(|(path, _)| *path != LOADER);
        files.map(|(path, mark)| (path.as_str(), *mark))
    }

    /// The hash of its index of modules, by which machine and server see that they mean the same drivers.
    #[must_use]
    pub fn drivers(&self) -> Option<Hash> {
        self.mark(MODULES).map(|mark| mark.blake3)
    }

    /// Where a file of the kit is.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// How its small loaders are compressed.
    #[must_use]
    pub fn small_compression(&self) -> super::archive::Compression {
        if self.record.xz { super::archive::Compression::Xz } else { self.record.compression }
    }

    /// The length and hash that a file of the kit had at the import; `None` if it is no part of the kit.
    #[must_use]
    pub fn mark(&self, file: &str) -> Option<FileMark> {
        self.record.files.get(file).copied()
    }

    pub(crate) fn save_record(&self) -> Result<()> {
        let path = self.dir.join(INDEX);
        let text = serde_json::to_vec_pretty(&self.record)
            .map_err(|source| KitError::Index { path: path.clone(), source })?;
        replace_file(&path, &text)
    }
}

impl Record {
    pub(crate) fn new(name: String, kernel: String, sources: Vec<String>, imported_at: u64) -> Self {
        Self {
            format: FORMAT,
            name,
            kernel,
            architecture: "x86_64".to_owned(),
            imported_at,
            sources,
            warnings: vec![],
            compression: super::archive::Compression::Zstd,
            xz: false,
            loader: Hash([0; 32]),
            files: BTreeMap::new(),
        }
    }
}

/// Checks that `name` can be a kit's: a plain folder name that is safe in a URL.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && name.len() <= 64 && name != DEFAULT_MARK && name.chars().all(plain) {
        Ok(())
    } else {
        Err(KitError::Name(common::limits::cut(name, 80).to_owned()))
    }
}

/// Writes `bytes` to a temporary file and renames it to `path`: a reader sees the old or the new bytes, never a part.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(writing(dir))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(writing(path))?;
    file.persist(path).map_err(|error| KitError::Write { path: path.to_owned(), source: error.error })?;
    sync_dir(dir)
}

/// Syncs the folder `dir`, so that the names in it are durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(writing(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_folder_name() {
        for good in ["a", "debian-12", "6.1.0-56-amd64", "x_y"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for wrong in ["", ".", "..", ".x", "a/b", "A", "default", "a b", "-a", &"a".repeat(65)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_kit_is_said_with_a_hint() {
        let state = tempfile::tempdir().unwrap();
        let kits = Kits::open(state.path()).unwrap();
        assert_eq!(kits.list().unwrap(), []);
        let error = kits.default_kit().unwrap_err();
        assert!(matches!(error, KitError::None) && error.hint().unwrap().contains("kit import"));
        assert!(matches!(kits.get("x").unwrap_err(), KitError::Unknown { .. }));
    }
}
