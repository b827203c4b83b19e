//! What an import is asked for, and what it tells on the way. Touches nothing.

use std::path::PathBuf;

/// Where a kit can be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This host's own installation.
    Host,
    /// A folder laid out like a root file system or like an unpacked package, or a `.deb` file.
    Path(PathBuf),
}

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportSpec {
    /// The kit's name; none for the kernel's release.
    pub name: Option<String>,
    /// What to make it from. All are merged; where two have a file, the later one counts.
    pub sources: Vec<Source>,
    /// The kernel's release; none for the newest.
    pub kernel: Option<String>,
    /// The `swarmboot-loader` program.
    pub loader: PathBuf,
    /// Whether a kit of that name is replaced.
    pub replace: bool,
}

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A package is being unpacked.
    Unpacking {
        /// Its file name.
        package: String,
        /// Bytes unpacked so far.
        bytes: u64,
    },
    /// Modules are being read.
    Modules {
        /// How many so far.
        done: usize,
    },
    /// The loader's initramfs is being compressed.
    Compressing {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The kit is being made durable.
    Syncing,
}
