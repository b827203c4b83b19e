//! Boot kits and images in the admin's API. Touches `common`.

use std::path::PathBuf;

use common::id::ImageId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ImageTraits, Staged};

/// One source of a boot kit's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KitSource {
    /// The server's own operating system.
    Host,
    /// A folder with the layout of a root file system.
    #[schema(value_type = String)]
    Folder(PathBuf),
    /// A file that is a Debian package.
    #[schema(value_type = String)]
    Deb(PathBuf),
    /// The archive of an iPXE release.
    #[schema(value_type = String)]
    Ipxe(PathBuf),
}

/// A request to import a boot kit. Paths are of the server's host.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KitImport {
    /// The kit's name; `None` for its kernel's version.
    pub name: Option<String>,
    /// The version of the kernel to take, where the sources have several.
    pub kernel: Option<String>,
    /// Where its files come from; a later source overrides an earlier one.
    pub sources: Vec<KitSource>,
}

/// A boot kit, as `kit list` and `kit show` print it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KitShown {
    /// The kit's name, which is part of the URLs that machines boot from.
    pub name: String,
    /// The version of its kernel.
    pub kernel: String,
    /// The processors that its kernel runs on: `x86_64`.
    pub architecture: String,
    /// Whether machines are booted with it; one kit is at a time.
    pub in_use: bool,
    /// When it was imported.
    pub imported: Timestamp,
    /// How many kernel modules it has.
    pub modules: u64,
    /// How many firmware files it has.
    pub firmware_files: u64,
    /// The file names of its network boot programs.
    pub boot_programs: Vec<String>,
    /// The version of the iPXE that UEFI machines start; none where the program does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipxe: Option<String>,
    /// Whether that iPXE can check what it fetches from other machines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verifies: bool,
    /// Bytes of its kernel.
    pub kernel_bytes: u64,
    /// Bytes of the loader initramfs, compressed.
    pub loader_bytes: u64,
    /// What it lacks, each with the package that has it.
    pub missing: Vec<String>,
}

/// A request to add an image from a file of the server's host.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageAdd {
    /// The name to add it under.
    pub name: String,
    /// The path on the server's host.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// The sector size of the image in bytes, where its partition table does not show it.
    pub sector_bytes: Option<u32>,
    /// Whether it is added although it has no partition table.
    #[serde(default)]
    pub no_table: bool,
}

/// An image, as `image list` and `image show` print it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageShown {
    /// The image's name, by which it is ordered; one image may have several.
    pub name: String,
    /// The hash of its manifest.
    pub id: ImageId,
    /// When it was added under this name.
    pub added: Timestamp,
    /// Bytes of the raw image.
    pub bytes: u64,
    /// Bytes that one copy takes on the network.
    pub wire_bytes: u64,
    /// How many chunks it has.
    pub chunks: u32,
    /// How many of these are all zeros, which nobody has to fetch.
    pub zero_chunks: u32,
    /// Bytes of a sector, as its partition table counts them.
    pub sector_bytes: u32,
    /// `gpt`, `mbr` or `none`.
    pub partition_table: String,
    /// What it was made from: a file's name or `standard input`, and its format.
    pub source: String,
    /// What it can boot on and be given; `None` in a list for an image of an earlier version that was not inspected
    /// since.
    #[serde(default)]
    pub traits: Option<ImageTraits>,
    /// Where it is staged.
    #[serde(default)]
    pub staged: Vec<Staged>,
    /// What it costs a site whose machines hold another image, for those of this server where that is less than all of
    /// it; empty in a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<ImageUpdate>,
}

/// What an image costs a site whose machines hold another one.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageUpdate {
    /// The name of the image that they hold.
    pub from: String,
    /// Bytes that one copy takes on the network.
    pub wire_bytes: u64,
}

/// What is left of an image that was removed.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageRemoved {
    /// The profiles that name it, which nothing can be ordered by until there is an image of that name again.
    pub profiles: Vec<String>,
}

/// What `image verify` found.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageVerified {
    /// The image's name.
    pub name: String,
    /// How many chunks were checked.
    pub chunks: u32,
    /// The chunks that are damaged or missing, by their place in the image.
    pub damaged: Vec<u32>,
    /// The names of all images that have one of the damaged chunks.
    #[serde(default)]
    pub affected: Vec<String>,
}
