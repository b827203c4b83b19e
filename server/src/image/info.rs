//! What others see of an image: what is asked for, what is known, how far a long operation has come. The
//! field names are part of the command line's interface (`-o json`). Touches nothing.

use common::id::{Hash, ImageId};
use serde::{Deserialize, Serialize};

use super::format::ImageFormat;
use super::source::ImageSource;
use crate::api::shapes::ImageTraits;

/// An image to be added.
#[derive(Debug)]
pub struct AddSpec {
    /// What it is to be called.
    pub name: String,
    /// Where its bytes come from.
    pub source: ImageSource,
    /// The sector size in bytes, if the partition table is not to be asked.
    pub sector_size: Option<u32>,
    /// Take it although it has no partition table.
    pub no_table: bool,
}

/// How an image is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionTable {
    /// A GUID partition table.
    Gpt,
    /// A master boot record's table.
    Mbr,
    /// None that is known.
    None,
}

/// What is known of an image; the record behind its name, and what `image list -o json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// What the admin calls it.
    pub name: String,
    /// The hash of its manifest.
    pub id: ImageId,
    /// Bytes of the raw image.
    pub size_bytes: u64,
    /// The sector size its partition table was made for: 512 or 4096.
    pub sector_bytes: u32,
    /// Chunks of 1 MiB, the last one maybe shorter.
    pub chunks: u32,
    /// Those that are all zeros.
    pub zero_chunks: u32,
    /// Distinct chunks that are stored and sent.
    pub stored_chunks: u32,
    /// Bytes that one copy costs a line.
    pub wire_bytes: u64,
    /// The file it came from.
    pub source: String,
    /// Where that file is, if it was one: damaged chunks are put right from it.
    #[serde(default)]
    pub path: Option<std::path::PathBuf>,
    /// How it came: `raw`, `qcow2`, `raw in xz` and so on.
    pub format: ImageFormat,
    /// When it was added, in milliseconds since 1970.
    pub added_at_ms: u64,
    /// How it is divided.
    pub partition_table: PartitionTable,
    /// Whether a BIOS finds something to boot in it, by the look of its first sector.
    pub boots_bios: bool,
    /// Whether UEFI firmware that has never seen it finds its loader.
    pub boots_uefi: bool,
    /// What it can and cannot do; none in a record of an earlier version, until it is asked for.
    #[serde(default)]
    pub traits: Option<ImageTraits>,
}

/// What adding an image came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The image.
    pub image: ImageInfo,
    /// Whether it had been there before, under the same name and with the same content.
    pub existed: bool,
    /// Chunks that no image had before.
    pub new_chunks: u32,
    /// Bytes that the store grew by.
    pub new_bytes: u64,
    /// Chunks that were damaged in the store and are whole again.
    pub repaired_chunks: u32,
    /// What the admin should know about it, a sentence each.
    pub notes: Vec<String>,
}

/// What removing an image came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The image.
    pub image: ImageInfo,
    /// Bytes that were freed at once; chunks are kept for now while another image is being added.
    pub freed_bytes: u64,
}

/// How far a long operation has come. Told after each chunk, from the caller's thread; the caller drops what
/// is too often for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes taken from the source (as they are there: compressed bytes of a compressed file).
    pub bytes_read: u64,
    /// Bytes that the source has, if that is known.
    pub total: Option<u64>,
    /// Chunks done.
    pub chunks: u32,
    /// Bytes that the store grew by.
    pub stored_bytes: u64,
    /// Chunks that were all zeros.
    pub zero_chunks: u32,
}

/// What was found in an image's chunks at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The image.
    pub id: ImageId,
    /// Distinct stored chunks that were checked.
    pub chunks: u32,
    /// Their bytes in the store.
    pub wire_bytes: u64,
    /// What is wrong, by place in the image; empty when nothing is.
    pub damaged: Vec<DamagedChunk>,
}

/// A chunk that is not what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedChunk {
    /// Its number in the image; the lowest, if it stands at several places.
    pub chunk: u32,
    /// The name it has in the store.
    pub wire: Hash,
    /// What is wrong.
    pub what: String,
    /// The names of all images that have this chunk.
    #[serde(default)]
    pub images: Vec<String>,
}
