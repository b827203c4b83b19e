//! The parameters of an import, and the progress that it reports. Touches nothing.

use std::path::PathBuf;

/// One source of a kit's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This host's own operating system.
    Host,
    /// A folder with the layout of a root file system or of an unpacked package, a `.deb` file, or iPXE's archive.
    Path(PathBuf),
}

/// The parameters of an import.
#[derive(Debug, Clone)]
pub struct ImportSpec {
    /// The kit's name; `None` for the kernel's release.
    pub name: Option<String>,
    /// The sources, merged; a later one overrides an earlier one.
    pub sources: Vec<Source>,
    /// The kernel's release; `None` for the newest.
    pub kernel: Option<String>,
    /// The path of the `swarmboot-loader` program.
    pub loader: PathBuf,
    /// Whether an existing kit of that name is replaced.
    pub replace: bool,
}

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A package is being unpacked.
    Unpacking {
        /// The package's file name.
        package: String,
        /// Bytes unpacked so far.
        bytes: u64,
    },
    /// Modules are being read.
    Modules {
        /// How many modules are done.
        done: usize,
    },
    /// The loader's initramfs is being compressed.
    Compressing {
        /// Bytes of content that are done.
        done: u64,
        /// Bytes of content in all.
        total: u64,
    },
    /// The kit is being made durable.
    Syncing,
}
