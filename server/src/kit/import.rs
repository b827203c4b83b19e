//! Imports a kit from sources, in steps. Owns their order, and that an import which fails leaves nothing: everything is
//! written in a temporary folder beside the kits, synced, and renamed into place. Touches files and the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use common::id::Hash;
use common::modules::{Module, ModuleIndex, alias_matches, module_name};
use common::text::some_of;

use super::choose::{self, BOOT_PROGRAMS, Part};
use super::error::{KitError, Result, reading, writing};
use super::spec::{ImportSpec, Progress, Source};
use super::store::{self, FileMark, Kit, Kits, Record};
use super::tree::{Tree, uncompressed_name};
use super::{deb, initramfs, ipxe, kernel, modinfo, place};

/// How many names of a list a warning has: a kernel has hundreds of firmware files.
const NAMED_MAX: usize = 12;

/// Called with how far an import is; an error of it cancels the import.
type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> Result<()>;

/// Imports a kit and returns its name.
pub(crate) fn run(kits: &Kits, spec: &ImportSpec, progress: &mut dyn FnMut(Progress)) -> Result<String> {
    if let Some(name) = &spec.name {
        store::check_name(name)?;
        refuse_taken(kits, name, spec.replace)?;
    }
    // Each report of progress also checks whether the server is stopping.
    let progress: OnProgress<'_> = &mut |at| {
        progress(at);
        kits.go_on()
    };
    let program = fs::read(&spec.loader).map_err(reading(&spec.loader))?;
    let _lock = lock(kits)?;
    let work =
        tempfile::Builder::new().prefix(".import-").tempdir_in(kits.dir()).map_err(writing(kits.dir()))?;
    let tree = gather(spec, work.path(), progress)?;
    let places = spec.sources.iter().map(describe).collect::<Vec<_>>();

    let release = choose_kernel(&tree, spec.kernel.as_deref(), &places)?;
    let name = spec.name.clone().unwrap_or_else(|| release.to_lowercase());
    store::check_name(&name)?;
    refuse_taken(kits, &name, spec.replace)?;

    let dir = work.path().join("kit");
    let mut draft = Draft::new(dir, Record::new(name.clone(), release.clone(), places, now()))?;
    draft.add_kernel(&tree)?;
    let modules = draft.add_modules(&tree, progress)?;
    draft.add_firmware(&tree, &modules)?;
    kits.go_on()?;
    draft.add_boot_programs(&tree)?;
    let kit = draft.add_loader(modules, &program, progress)?;
    kit.save_record()?;
    progress(Progress::Syncing)?;
    place::put(kits.dir(), &kit.dir, kit.name())?;
    Ok(name)
}

/// Allows one import at a time; deletes what a killed import has left.
pub(super) fn lock(kits: &Kits) -> Result<nix::fcntl::Flock<fs::File>> {
    let path = kits.dir().join(".lock");
    let file = fs::File::create(&path).map_err(writing(&path))?;
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|_| KitError::Busy(kits.dir().to_owned()))?;
    place::recover(kits.dir())?;
    Ok(lock)
}

fn refuse_taken(kits: &Kits, name: &str, replace: bool) -> Result<()> {
    if !replace && kits.dir().join(name).exists() { Err(KitError::Exists(name.to_owned())) } else { Ok(()) }
}

fn describe(source: &Source) -> String {
    match source {
        Source::Host => "this host".to_owned(),
        Source::Path(path) => path.display().to_string(),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn gather(spec: &ImportSpec, work: &Path, progress: OnProgress<'_>) -> Result<Tree> {
    let mut tree = Tree::default();
    for (number, source) in spec.sources.iter().enumerate() {
        let path = match source {
            Source::Host => Path::new("/"),
            Source::Path(path) => path,
        };
        let kind = fs::metadata(path).map_err(reading(path))?;
        if kind.is_dir() {
            tree.add_root(path, *source == Source::Host)?;
        } else if path.extension().is_some_and(|ending| ending == "deb") {
            let into = work.join(format!("package-{number}"));
            fs::create_dir(&into).map_err(writing(&into))?;
            let package = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            deb::unpack(path, &into, &mut tree, &mut |bytes| {
                progress(Progress::Unpacking { package: package.clone(), bytes })
            })?;
        } else if ipxe::is_archive(path) {
            let into = work.join(format!("ipxe-{number}"));
            fs::create_dir(&into).map_err(writing(&into))?;
            ipxe::unpack(path, &into, &mut tree)?;
        } else {
            return Err(KitError::Source(path.to_owned()));
        }
    }
    Ok(tree)
}

/// The paths where the kernel `release` may be: Debian's, then Fedora's.
fn kernel_places(release: &str) -> [String; 2] {
    [format!("boot/vmlinuz-{release}"), format!("lib/modules/{release}/vmlinuz")]
}

fn choose_kernel(tree: &Tree, wanted: Option<&str>, places: &[String]) -> Result<String> {
    let in_boot = tree.below("boot/vmlinuz-").filter_map(|path| path.strip_prefix("boot/vmlinuz-"));
    let with_modules = tree
        .below("lib/modules/")
        .filter_map(|path| path.strip_prefix("lib/modules/")?.strip_suffix("/vmlinuz"));
    let mut found: Vec<String> =
        in_boot.chain(with_modules).filter(|name| !name.contains('/')).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    let has_modules =
        |release: &String| tree.below(&format!("lib/modules/{release}/kernel/")).next().is_some();
    if let Some(wanted) = wanted {
        let Some(release) = found.iter().find(|release| *release == wanted) else {
            return Err(KitError::NoSuchKernel { wanted: wanted.to_owned(), found });
        };
        return if has_modules(release) {
            Ok(wanted.to_owned())
        } else {
            Err(KitError::NoModules(wanted.to_owned()))
        };
    }
    let whole: Vec<String> = found.iter().filter(|release| has_modules(release)).cloned().collect();
    match (choose::newest(&whole), choose::newest(&found)) {
        (Some(release), _) => Ok(release.clone()),
        (None, Some(bare)) => Err(KitError::NoModules(bare.clone())),
        (None, None) => Err(KitError::NoKernel { sources: places.join(", ") }),
    }
}

/// A kit that is being imported.
struct Draft {
    dir: PathBuf,
    record: Record,
}

impl Draft {
    fn new(dir: PathBuf, record: Record) -> Result<Self> {
        fs::create_dir(&dir).map_err(writing(&dir))?;
        Ok(Self { dir, record })
    }

    fn put(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(writing(parent))?;
        }
        fs::write(&path, bytes).map_err(writing(&path))?;
        self.record.files.insert(file.to_owned(), FileMark::of(bytes));
        Ok(())
    }

    fn add_kernel(&mut self, tree: &Tree) -> Result<()> {
        let release = self.record.kernel.clone();
        let places = kernel_places(&release);
        let place = places.iter().find(|place| tree.find(place).is_some()).unwrap_or(&places[0]);
        let image = tree.read(place)?;
        let refuse = |reason| KitError::Kernel { path: place.into(), reason };
        let header = kernel::read_header(&image).map_err(refuse)?;
        if !header.release.is_empty() && header.release != release {
            return Err(refuse(format!("it is kernel {}, not {release}", header.release)));
        }
        if !header.efi {
            self.record.warnings.push("the kernel cannot be started by UEFI".to_owned());
        }
        if choose::is_special(&release) {
            self.record.warnings.push(format!(
                "kernel {release} is for one kind of machine and lacks drivers of others: prefer linux-image-amd64 \
                 (Debian) or linux-image-generic (Ubuntu)"
            ));
        }
        let config = tree.read(&format!("boot/config-{release}")).ok();
        let config = config.as_deref().map(String::from_utf8_lossy);
        self.record.compression = kernel::compression_for(config.as_deref());
        self.record.xz = kernel::can_unpack_xz(config.as_deref());
        self.put(store::KERNEL, &image)
    }

    fn add_modules(&mut self, tree: &Tree, progress: OnProgress<'_>) -> Result<ModuleIndex> {
        let release = self.record.kernel.clone();
        let root = format!("lib/modules/{release}/");
        let builtin = match tree.find(&format!("{root}modules.builtin")) {
            Some(_) => String::from_utf8_lossy(&tree.read(&format!("{root}modules.builtin"))?)
                .lines()
                .map(modinfo::stem_name)
                .collect(),
            None => BTreeSet::new(),
        };
        let kernel_folder = format!("{root}kernel/");
        let paths: BTreeMap<String, String> = tree
            .below(&kernel_folder)
            .filter(|path| uncompressed_name(path).ends_with(".ko"))
            .map(|path| (modinfo::stem_name(path), path[root.len()..].to_owned()))
            .collect();
        let mut reader = Reader { draft: self, tree, root, paths, taken: BTreeMap::new(), progress };
        reader.take_needed(&builtin)?;
        let (taken, lost) = reader.finish(&builtin);
        if !lost.is_empty() {
            self.record.warnings.push(format!(
                "left out, because a module that they need is not in the sources: {}",
                some_of(lost.iter(), NAMED_MAX, ", ")
            ));
        }
        let index = ModuleIndex::new(release.clone(), taken, builtin).map_err(KitError::Modules)?;
        let network = |module: &&Module| choose::part_of(&module.path) == Some(Part::Network);
        // Some, such as libphy and mii, drive no adapter themselves.
        if !index.modules().iter().filter(network).any(|module| !module.aliases.is_empty()) {
            return Err(KitError::NoNetwork(release));
        }
        let text = serde_json::to_vec(&index)
            .map_err(|source| KitError::Index { path: store::MODULES.into(), source })?;
        self.put(store::MODULES, &text)?;
        Ok(index)
    }

    fn add_firmware(&mut self, tree: &Tree, index: &ModuleIndex) -> Result<()> {
        let mut lacking = BTreeSet::new();
        for module in index.modules() {
            for wanted in &module.firmware {
                let found = firmware_files(tree, wanted);
                if found.is_empty() && choose::part_of(&module.path) == Some(Part::Network) {
                    lacking.insert(module.name.clone());
                }
                for (name, path) in found {
                    let file = format!("firmware/{name}");
                    if !self.record.files.contains_key(&file) {
                        let bytes = tree.read_unpacked(&path)?;
                        self.put(&file, &bytes)?;
                    }
                }
            }
        }
        if !lacking.is_empty() {
            let names: Vec<String> = lacking.into_iter().collect();
            self.record.warnings.push(format!(
                "firmware is missing for {}: if your machines have such adapters, add firmware-bnx2x, firmware-misc-nonfree, \
                 firmware-realtek … (Debian) or linux-firmware (Ubuntu)",
                some_of(names.iter(), NAMED_MAX, ", ")
            ));
        }
        Ok(())
    }

    fn add_boot_programs(&mut self, tree: &Tree) -> Result<()> {
        let (mut bios, mut uefi) = (false, false);
        for program in BOOT_PROGRAMS {
            let Some(place) = program.places.iter().find(|place| tree.find(place).is_some()) else {
                continue;
            };
            let bytes = tree.read(place)?;
            bios |= program.first && program.bios;
            uefi |= program.first && !program.bios;
            self.put(&format!("boot/{}", program.name), &bytes)?;
        }
        let lack = |kind: &str, file: &str| {
            format!(
                "no network boot program for {kind} ({file}): install iPXE (apt install ipxe) or add its .deb"
            )
        };
        match (bios, uefi) {
            (false, false) => {
                return Err(KitError::NoBootProgram { sources: self.record.sources.join(", ") });
            }
            (false, true) => self.record.warnings.push(lack("legacy BIOS", "undionly.kpxe")),
            (true, false) => self.record.warnings.push(lack("UEFI", "snponly.efi or ipxe.efi")),
            (true, true) => {}
        }
        Ok(())
    }

    fn add_loader(self, modules: ModuleIndex, program: &[u8], progress: OnProgress<'_>) -> Result<Kit> {
        let mut kit = Kit { dir: self.dir, record: self.record, modules };
        let image = initramfs::build(&kit, program, &mut |at| drop(progress(at)))?;
        let path = kit.loader_img_path();
        fs::write(&path, &image).map_err(writing(&path))?;
        kit.record.files.insert(store::LOADER.to_owned(), FileMark::of(&image));
        kit.record.loader = Hash::of(program);
        Ok(kit)
    }
}

/// Copies modules from the tree into the kit.
struct Reader<'a> {
    draft: &'a mut Draft,
    tree: &'a Tree,
    root: String,
    /// Every module of the kernel: its name, and its path below the root, with the suffix of its compression.
    paths: BTreeMap<String, String>,
    taken: BTreeMap<String, Module>,
    progress: OnProgress<'a>,
}

impl Reader<'_> {
    /// Copies every module that a deployment can need, and all that those depend on.
    fn take_needed(&mut self, builtin: &BTreeSet<String>) -> Result<()> {
        let wanted = |path: &String| {
            let path = uncompressed_name(path);
            choose::part_of(path).is_some() || choose::is_for_hooks(path)
        };
        let mut open: Vec<String> =
            self.paths.iter().filter(|(_, path)| wanted(path)).map(|(name, _)| name.clone()).collect();
        let mut by_alias = None;
        while let Some(name) = open.pop() {
            if self.taken.contains_key(&name) {
                continue;
            }
            let Some(module) = self.take(&name)? else { continue };
            open.extend(module.depends.iter().cloned());
            for soft in module.pre.iter().chain(&module.post).map(|name| module_name(name)) {
                if self.paths.contains_key(&soft) {
                    open.push(soft);
                } else if !builtin.contains(&soft) {
                    if by_alias.is_none() {
                        by_alias = Some(self.alias_providers()?);
                    }
                    let providers = by_alias.iter().flatten();
                    open.extend(
                        providers
                            .filter(|module| module.aliases.iter().any(|alias| alias_matches(alias, &soft)))
                            .map(|module| module.name.clone()),
                    );
                }
            }
            self.taken.insert(name, module);
            (self.progress)(Progress::Modules { done: self.taken.len() })?;
        }
        Ok(())
    }

    /// Copies the module `name` into the kit and returns its entry for the index; `None` when the kernel has none.
    fn take(&mut self, name: &str) -> Result<Option<Module>> {
        let Some(path) = self.paths.get(name) else { return Ok(None) };
        let (bytes, module) = self.read(path)?;
        self.draft.put(&format!("modules/{}", module.path), &bytes)?;
        Ok(Some(module))
    }

    fn read(&self, path: &str) -> Result<(Vec<u8>, Module)> {
        let bytes = self.tree.read_unpacked(&format!("{}{path}", self.root))?;
        let module = modinfo::read_module(&bytes, uncompressed_name(path), &self.draft.record.kernel)
            .map_err(|reason| KitError::Module { path: path.to_owned(), reason })?;
        Ok((bytes, module))
    }

    fn alias_providers(&self) -> Result<Vec<Module>> {
        let paths = self.paths.values().filter(|path| choose::may_be_asked_by_alias(path));
        paths.map(|path| Ok(self.read(path)?.1)).collect()
    }

    /// The copied modules, without those whose dependencies are missing, and the names of these.
    fn finish(self, builtin: &BTreeSet<String>) -> (Vec<Module>, Vec<String>) {
        let mut taken = self.taken;
        let mut lost = Vec::new();
        loop {
            let here: BTreeSet<String> = taken.keys().cloned().collect();
            let whole = |module: &Module| {
                module.depends.iter().all(|name| here.contains(name) || builtin.contains(name))
            };
            let before = taken.len();
            taken.retain(|name, module| {
                let keep = whole(module);
                if !keep {
                    lost.push(name.clone());
                    self.draft.record.files.remove(&format!("modules/{}", module.path));
                }
                keep
            });
            if taken.len() == before {
                return (taken.into_values().collect(), lost);
            }
        }
    }
}

/// The firmware files that `wanted` names, which may be a pattern: each with its name in the kit and its path.
fn firmware_files(tree: &Tree, wanted: &str) -> Vec<(String, String)> {
    if !common::modules::is_inside(wanted) {
        return vec![];
    }
    if !wanted.contains(['*', '?', '[']) {
        let paths = ["", ".xz", ".zst"].map(|ending| format!("lib/firmware/{wanted}{ending}"));
        let found = paths.into_iter().find(|path| tree.find(path).is_some());
        return found.map(|path| (wanted.to_owned(), path)).into_iter().collect();
    }
    let fixed = &wanted[..wanted.find(['*', '?', '[']).unwrap_or(0)];
    let folder = format!("lib/firmware/{fixed}");
    let names = tree.below(&folder).chain(tree.links_below(&folder));
    names
        .filter_map(|path| {
            let name = uncompressed_name(path.strip_prefix("lib/firmware/")?);
            let fits = alias_matches(wanted, name) && tree.find(path).is_some();
            fits.then(|| (name.to_owned(), path.to_owned()))
        })
        .collect()
}

#[cfg(test)]
#[path = "import_tests.rs"]
pub(crate) mod tests;
