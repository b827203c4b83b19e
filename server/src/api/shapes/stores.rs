//! Boot kits and images as they cross the admin socket. Touches `common`.

use std::path::PathBuf;

use common::id::ImageId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ImageTraits;

/// Where the parts of a boot kit come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KitSource {
    /// The server's own installation.
    Host,
    /// A folder laid out like a root file system.
    Folder(PathBuf),
    /// A Debian package.
    Deb(PathBuf),
}

/// An order to import a boot kit. Paths are read by the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KitImport {
    /// The kit's name; its kernel's version when none is given.
    pub name: Option<String>,
    /// Which kernel, where the sources hold several.
    pub kernel: Option<String>,
    /// What it is made from; where two of them have a file, the later one counts.
    pub sources: Vec<KitSource>,
}

/// A boot kit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KitShown {
    /// Its name, which is part of the URLs that machines boot from.
    pub name: String,
    /// Its kernel's version.
    pub kernel: String,
    /// The processors that its kernel is for: `x86_64`.
    pub architecture: String,
    /// Whether machines are booted with it.
    pub in_use: bool,
    /// When it was imported.
    pub imported: Timestamp,
    /// How many modules it has.
    pub modules: u64,
    /// How many firmware files it has.
    pub firmware_files: u64,
    /// Network boot programs that it has.
    pub boot_programs: Vec<String>,
    /// Bytes of the kernel.
    pub kernel_bytes: u64,
    /// Bytes of the loader initramfs, compressed.
    pub loader_bytes: u64,
    /// What it lacks, each with the package that has it.
    pub missing: Vec<String>,
}

/// An order to add an image from a file that the server can read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageAdd {
    /// The image's name.
    pub name: String,
    /// The file, as the server's own machine names it.
    pub path: PathBuf,
    /// Its sector size, where that cannot be seen from its partition table.
    pub sector_bytes: Option<u32>,
    /// Whether it is added although it has no partition table.
    #[serde(default)]
    pub no_table: bool,
}

/// An image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageShown {
    /// Its name, by which it is ordered; one image may have several.
    pub name: String,
    /// The hash of its manifest.
    pub id: ImageId,
    /// When it was added under this name.
    pub added: Timestamp,
    /// Bytes, raw.
    pub bytes: u64,
    /// Wire bytes of one copy: what it costs a line.
    pub wire_bytes: u64,
    /// How many chunks it has.
    pub chunks: u32,
    /// How many of them are zeros.
    pub zero_chunks: u32,
    /// Bytes of the sectors that its partition table counts in.
    pub sector_bytes: u32,
    /// `gpt`, `mbr` or `none`.
    pub partition_table: String,
    /// What it was made from: a file's name or `standard input`, and its format.
    pub source: String,
    /// What it can and cannot do; none for an image of an earlier version that was not asked for since.
    #[serde(default)]
    pub traits: Option<ImageTraits>,
}

/// What `image verify` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageVerified {
    /// The image's name.
    pub name: String,
    /// Chunks that were checked.
    pub chunks: u32,
    /// Chunks that are damaged or gone.
    pub damaged: Vec<u32>,
    /// All images that have one of the damaged chunks.
    #[serde(default)]
    pub affected: Vec<String>,
}
