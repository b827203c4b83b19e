//! Core: what can go wrong with boot kits, and what a person does about it. Touches nothing.

use std::io;
use std::path::PathBuf;

/// Why a boot kit could not be imported, found or read.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// A name that cannot be a folder's.
    #[error("`{0}` cannot be a kit's name")]
    Name(String),
    /// There is a kit of that name.
    #[error("there is a kit named `{0}` already")]
    Exists(String),
    /// There is no kit of that name.
    #[error("there is no kit named `{name}`")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// There is no kit at all.
    #[error("there is no boot kit yet")]
    None,
    /// Another import is under way.
    #[error("another import into {} is under way", .0.display())]
    Busy(PathBuf),
    /// The server is stopping.
    #[error("stopped, because the server is stopping")]
    Stopped,
    /// A source that is neither a folder nor a `.deb`.
    #[error("{} is neither a folder nor a .deb file", .0.display())]
    Source(PathBuf),
    /// A `.deb` that cannot be taken.
    #[error("{} is not a .deb that can be taken: {reason}", path.display())]
    Deb {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with the package.
        reason: String,
    },
    /// No kernel in the sources.
    #[error("no kernel found in {sources}")]
    NoKernel {
        /// Where was looked.
        sources: String,
    },
    /// No kernel of that release in the sources.
    #[error("no kernel `{wanted}` found")]
    NoSuchKernel {
        /// What was asked for.
        wanted: String,
        /// What is there.
        found: Vec<String>,
    },
    /// A kernel without its modules.
    #[error("kernel {0} has no modules in lib/modules/{0}")]
    NoModules(String),
    /// A kernel without one network driver.
    #[error("kernel {0} has no network driver among its modules")]
    NoNetwork(String),
    /// A file that is no kernel for these machines.
    #[error("{} cannot be booted: {reason}", path.display())]
    Kernel {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with the kernel.
        reason: String,
    },
    /// A file that is no module of this kernel.
    #[error("{path} is not a module that can be taken: {reason}")]
    Module {
        /// The module, by its path in the kit.
        path: String,
        /// What is wrong with the module.
        reason: String,
    },
    /// A compressed file that does not decompress, or to more than any such file has.
    #[error("cannot decompress {path}")]
    Decompress {
        /// The file, by its path in the kit.
        path: String,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// No network boot program in the sources.
    #[error("no network boot program found in {sources}")]
    NoBootProgram {
        /// Where was looked.
        sources: String,
    },
    /// A file of the kit is not what was imported.
    #[error("{} is not what was imported", .0.display())]
    Changed(PathBuf),
    /// `kit.json` or `modules.json` cannot be understood.
    #[error("cannot understand {}", path.display())]
    Index {
        /// The file or folder.
        path: PathBuf,
        /// The error underneath.
        #[source]
        source: serde_json::Error,
    },
    /// The modules together make no index.
    #[error("the kit's modules make no index")]
    Modules(#[source] common::modules::BadIndex),
}

impl KitError {
    /// What to do about it, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Read { source, .. } | Self::Write { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "run it as root: kernels in /boot and the state folder are root's".to_owned()
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room where the state is kept: a kit of a full kernel needs about 300 MB during import"
                    .to_owned()
            }
            Self::Name(_) => "use lower-case letters, digits, `.`, `-` and `_`, at most 64".to_owned(),
            Self::Exists(name) => {
                format!("choose another with --name, or remove it first: swarmboot kit remove {name}")
            }
            Self::Unknown { known, .. } if !known.is_empty() => format!("there are: {}", known.join(", ")),
            Self::None | Self::Unknown { .. } => "import one with: swarmboot kit import".to_owned(),
            Self::Stopped => "import it again when the server runs; nothing was left".to_owned(),
            Self::Busy(_) => "wait until it has ended".to_owned(),
            Self::NoKernel { .. } => {
                "install one (Debian: apt install linux-image-amd64; Ubuntu: apt install \
                 linux-image-generic), or fetch its package with `apt-get download` and import the .deb"
                    .to_owned()
            }
            Self::NoSuchKernel { found, .. } if !found.is_empty() => {
                format!("there are: {}", found.join(", "))
            }
            Self::NoModules(release) => format!(
                "add the package that holds them: linux-image-{release} on Debian, linux-modules-{release} on Ubuntu"
            ),
            Self::NoNetwork(release) => format!(
                "on Ubuntu add linux-modules-extra-{release}; on Debian take linux-image-amd64, not the cloud kernel"
            ),
            Self::Kernel { .. } => "take a distribution's kernel for x86-64 (linux-image-amd64)".to_owned(),
            Self::NoBootProgram { .. } => {
                "install iPXE (apt install ipxe), or add its .deb to the sources".to_owned()
            }
            Self::Changed(_) | Self::Index { .. } => {
                "the kit is damaged: remove it and import it again".to_owned()
            }
            Self::Deb { .. } | Self::Decompress { .. } => {
                "the file may be cut short: fetch it again".to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}

/// What `Kits` and `Kit` answer.
pub(crate) type Result<T> = std::result::Result<T, KitError>;

pub(crate) fn reading(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> KitError {
    let path = path.into();
    move |source| KitError::Read { path, source }
}

pub(crate) fn writing(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> KitError {
    let path = path.into();
    move |source| KitError::Write { path, source }
}
