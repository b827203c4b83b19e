//! Core: which kernel modules a device needs, and in which order they are loaded. Owns the index of a boot kit's
//! modules, which the server computes once and of which the loader carries a part as `/lib/modules.json`; both match by
//! the same code, or the server would pack other modules than the loader asks for. Touches nothing.
//!
//! The rules are those of `modprobe`: a name or alias is compared with `-` and `_` as one, an alias is a shell
//! pattern, and what a module names before itself (`softdep pre`, then `depends`) loads first.

// Which devices an alias matches.
mod alias;

// What an initramfs says of the kit that it is of.
mod remote;

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

pub use alias::alias_matches;
pub use remote::{INIT, LOADER_KIT, LoaderKit, RemoteFile};

/// The version of the index that this program writes and reads.
pub const MODULE_INDEX_VERSION: u32 = 1;

/// The most modules in an index. Debian's full kernel has about 4,000.
pub const MODULES_MAX: usize = 1 << 15;

/// The most aliases in an index. Debian's full kernel has about 27,000.
pub const ALIASES_MAX: usize = 1 << 18;

/// One kernel module that can be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Its name, with `_` for every `-`.
    pub name: String,
    /// The path of its uncompressed file, relative to the folder of modules: `kernel/drivers/net/tg3.ko` below
    /// `/lib/modules` of an archive. Never absolute and never with a `..`.
    pub path: String,
    /// Patterns of the devices that it drives, and other names of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Modules without which it does not load.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends: Vec<String>,
    /// Names or aliases to load before it where they exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre: Vec<String>,
    /// Names or aliases to load after it where they exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post: Vec<String>,
    /// Firmware files that it may ask for, relative to `/lib/firmware`; some are patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firmware: Vec<String>,
}

/// The modules of one kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "RawIndex", into = "RawIndex")]
pub struct ModuleIndex {
    kernel: String,
    /// Ascending by name, each name once.
    modules: Vec<Module>,
    builtin: BTreeSet<String>,
    /// Aliases by the text before their first colon (`pci`, `virtio`), those without a plain one under the empty text;
    /// each as the number of the module and of its alias.
    by_bus: HashMap<String, Vec<(u32, u32)>>,
}

impl PartialEq for ModuleIndex {
    fn eq(&self, other: &Self) -> bool {
        self.kernel == other.kernel && self.modules == other.modules && self.builtin == other.builtin
    }
}

impl Eq for ModuleIndex {}

/// Why an index was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadIndex {
    /// A version of the index that this program does not read.
    #[error("module index version {0}; this program reads version {MODULE_INDEX_VERSION}")]
    Version(u32),
    /// More modules or aliases than any kernel has.
    #[error("module index with {0}")]
    TooLarge(String),
    /// Two modules have one name.
    #[error("module index with two modules named `{0}`")]
    Twice(String),
    /// A path leads out of the folder of modules.
    #[error("module `{name}` with the path `{path}`, which is not inside the folder of modules")]
    Path {
        /// The module's name.
        name: String,
        /// The module's path, as the index has it.
        path: String,
    },
}

impl ModuleIndex {
    /// The index of `modules` for the kernel release `kernel` (`6.1.0-9-amd64`); `builtin` names modules that are part
    /// of the kernel itself. Names are brought to one spelling.
    ///
    /// # Errors
    /// When there are more than any kernel has, two modules have one name, or a path leads outside.
    pub fn new(
        kernel: String,
        mut modules: Vec<Module>,
        builtin: impl IntoIterator<Item = String>,
    ) -> Result<Self, BadIndex> {
        let aliases: usize = modules.iter().map(|module| module.aliases.len()).sum();
        if modules.len() > MODULES_MAX || aliases > ALIASES_MAX {
            return Err(BadIndex::TooLarge(format!("{} modules and {aliases} aliases", modules.len())));
        }
        for module in &mut modules {
            module.name = module_name(&module.name);
            if !is_inside(&module.path) {
                return Err(BadIndex::Path { name: module.name.clone(), path: module.path.clone() });
            }
        }
        modules.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = modules.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(BadIndex::Twice(pair[0].name.clone()));
        }
        let mut by_bus: HashMap<String, Vec<(u32, u32)>> = HashMap::new();
        for (at, module) in (0u32..).zip(&modules) {
            for (alias_at, alias) in (0u32..).zip(&module.aliases) {
                by_bus.entry(bus_of(alias).to_owned()).or_default().push((at, alias_at));
            }
        }
        let builtin = builtin.into_iter().map(|name| module_name(&name)).collect();
        Ok(Self { kernel, modules, builtin, by_bus })
    }

    /// The kernel release that these modules are for.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// All modules, ascending by name.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Whether `name` is part of the kernel itself.
    #[must_use]
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&module_name(name))
    }

    /// The module called `name`, with `-` or `_`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Module> {
        let name = module_name(name);
        self.modules.binary_search_by(|module| module.name.cmp(&name)).ok().map(|at| &self.modules[at])
    }

    /// The names of the modules with an alias for the device with this `modalias`, ascending; usually none or one. Some
    /// may be alternatives of which one fits; like `modprobe`, callers try them all.
    #[must_use]
    pub fn wanted(&self, modalias: &str) -> Vec<&str> {
        let modalias = modalias.trim_end();
        let mut names = BTreeSet::new();
        for bus in BTreeSet::from([bus_of(modalias), ""]) {
            for &(module, alias) in self.by_bus.get(bus).into_iter().flatten() {
                let module = &self.modules[module as usize];
                if alias_matches(&module.aliases[alias as usize], modalias) {
                    names.insert(module.name.as_str());
                }
            }
        }
        names.into_iter().collect()
    }

    /// The modules that `modprobe request` would load: the one of that name, or else all with an alias that matches.
    /// Empty when it is built in or unknown.
    #[must_use]
    pub fn resolve(&self, request: &str) -> Vec<&Module> {
        if let Some(module) = self.get(request) {
            return vec![module];
        }
        if self.is_builtin(request) {
            return vec![];
        }
        self.wanted(request).into_iter().filter_map(|name| self.get(name)).collect()
    }

    /// The modules of `request` and all that they need, in load order, each once. Only the modules of a `depends` have
    /// to succeed: one that was found by an alias may rightly refuse this processor.
    #[must_use]
    pub fn load_order(&self, request: &str) -> Vec<&Module> {
        self.load_order_of([request])
    }

    /// As [`ModuleIndex::load_order`], for several requests at once.
    #[must_use]
    pub fn load_order_of<'a>(&self, requests: impl IntoIterator<Item = &'a str>) -> Vec<&Module> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        // An explicit stack: a chain of dependencies in a hostile index must not overflow ours.
        let mut stack: Vec<Visit<'_>> = Vec::new();
        let mut requests: Vec<&str> = requests.into_iter().collect();
        requests.reverse();
        for request in requests {
            stack.extend(self.resolve(request).into_iter().rev().map(Visit::Enter));
        }
        while let Some(visit) = stack.pop() {
            match visit {
                Visit::Leave(module) => order.push(module),
                Visit::Enter(module) if seen.insert(module.name.as_str()) => {
                    self.push_all(&mut stack, &module.post);
                    stack.push(Visit::Leave(module));
                    self.push_all(&mut stack, &module.depends);
                    self.push_all(&mut stack, &module.pre);
                }
                Visit::Enter(_) => {}
            }
        }
        order
    }

    fn push_all<'a>(&'a self, stack: &mut Vec<Visit<'a>>, names: &[String]) {
        for name in names.iter().rev() {
            stack.extend(self.resolve(name).into_iter().rev().map(Visit::Enter));
        }
    }

    /// The part of this index that `names` and all that they need make up; built-in modules stay listed.
    #[must_use]
    pub fn cut<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let modules = self.load_order_of(names).into_iter().cloned().collect();
        // A part of a valid index is valid: fewer modules, the same names and paths.
        Self::new(self.kernel.clone(), modules, self.builtin.iter().cloned()).unwrap_or_else(|_| Self {
            kernel: self.kernel.clone(),
            modules: vec![],
            builtin: self.builtin.clone(),
            by_bus: HashMap::new(),
        })
    }
}

enum Visit<'a> {
    Enter(&'a Module),
    Leave(&'a Module),
}

#[derive(Serialize, Deserialize)]
struct RawIndex {
    version: u32,
    kernel: String,
    modules: Vec<Module>,
    builtin: Vec<String>,
}

impl From<ModuleIndex> for RawIndex {
    fn from(index: ModuleIndex) -> Self {
        Self {
            version: MODULE_INDEX_VERSION,
            kernel: index.kernel,
            modules: index.modules,
            builtin: index.builtin.into_iter().collect(),
        }
    }
}

impl TryFrom<RawIndex> for ModuleIndex {
    type Error = BadIndex;
    fn try_from(raw: RawIndex) -> Result<Self, BadIndex> {
        if raw.version != MODULE_INDEX_VERSION {
            return Err(BadIndex::Version(raw.version));
        }
        Self::new(raw.kernel, raw.modules, raw.builtin)
    }
}

/// The one spelling of a module's name: the file may be `snd-hda-intel.ko`, the kernel says `snd_hda_intel`.
#[must_use]
pub fn module_name(text: &str) -> String {
    text.replace('-', "_")
}

/// Whether `path` stays inside the folder that it is relative to.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\0', '\\'])
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn bus_of(alias: &str) -> &str {
    match alias.split_once(':') {
        Some((bus, _)) if !bus.contains(['*', '?', '[', '-', '_']) => bus,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &[&str], pre: &[&str], post: &[&str], aliases: &[&str]) -> Module {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Module {
            name: name.to_owned(),
            path: format!("{name}.ko"),
            aliases: own(aliases),
            depends: own(depends),
            pre: own(pre),
            post: own(post),
            firmware: vec![],
        }
    }

    fn names(order: &[&Module]) -> Vec<String> {
        order.iter().map(|module| module.name.clone()).collect()
    }

    fn index() -> ModuleIndex {
        let modules = vec![
            module(
                "r8169",
                &["libphy", "mdio-devres"],
                &["realtek"],
                &[],
                &["pci:v000010ECd00008168sv*sd*bc*sc*i*"],
            ),
            module("realtek", &["libphy"], &[], &[], &["mdio:*"]),
            module("libphy", &[], &[], &[], &[]),
            module("mdio-devres", &["libphy"], &[], &[], &[]),
            module("mlx4_core", &["devlink"], &[], &["mlx4_en"], &[]),
            module("mlx4_en", &["mlx4_core"], &[], &[], &[]),
            module("libcrc32c", &[], &["crc32c"], &[], &[]),
            module("crc32c_generic", &[], &[], &[], &["crc32c"]),
            module("loop_a", &["loop_b"], &[], &[], &[]),
            module("loop_b", &["loop_a"], &[], &[], &[]),
        ];
        ModuleIndex::new("6.1.0".to_owned(), modules, ["devlink".to_owned()]).unwrap()
    }

    #[test]
    fn what_a_module_needs_loads_before_it() {
        let index = index();
        assert_eq!(names(&index.load_order("r8169")), ["libphy", "realtek", "mdio_devres", "r8169"]);
        assert_eq!(names(&index.load_order("mlx4-core")), ["mlx4_core", "mlx4_en"]);
        assert_eq!(names(&index.load_order("libcrc32c")), ["crc32c_generic", "libcrc32c"]);
        assert_eq!(index.load_order("loop_a").len(), 2);
        assert_eq!(index.load_order("devlink").len(), 0);
        assert_eq!(index.wanted("pci:v000010ECd00008168sv0sd0bc02sc00i00"), ["r8169"]);
        assert_eq!(index.wanted("pci:v000010ECd00008169sv0sd0bc02sc00i00"), [""; 0]);
    }

    #[test]
    fn a_cut_holds_what_was_asked_for_and_all_it_needs() {
        let cut = index().cut(["r8169"]);
        assert_eq!(cut.modules().len(), 4);
        assert!(cut.is_builtin("devlink"));
        let text = serde_json::to_string(&cut).unwrap();
        assert_eq!(serde_json::from_str::<ModuleIndex>(&text).unwrap(), cut);
        assert_eq!(cut.wanted("pci:v000010ECd00008168sv0sd0bc02sc00i00"), ["r8169"]);
    }

    #[test]
    fn an_index_from_outside_is_checked() {
        for wrong in [
            r#"{"version":2,"kernel":"6","modules":[],"builtin":[]}"#,
            r#"{"version":1,"kernel":"6","modules":[{"name":"a","path":"../a.ko"}],"builtin":[]}"#,
            r#"{"version":1,"kernel":"6","modules":[{"name":"a","path":"/a.ko"}],"builtin":[]}"#,
            r#"{"version":1,"kernel":"6","modules":[{"name":"a-b","path":"a"},{"name":"a_b","path":"b"}],"builtin":[]}"#,
        ] {
            assert!(serde_json::from_str::<ModuleIndex>(wrong).is_err(), "{wrong}");
        }
    }
}
