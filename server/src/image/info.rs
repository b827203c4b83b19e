//! The types of the image store's interface: what is asked for, what is known of an image, how far a long operation is.
//! `ImageInfo` is also the format of records on disk, so its field names stay. Touches nothing.

use common::id::{Hash, ImageId};
use serde::{Deserialize, Serialize};

use super::format::ImageFormat;
use super::source::ImageSource;
use crate::api::shapes::ImageTraits;

/// A request to add an image.
#[derive(Debug)]
pub struct AddSpec {
    /// The name to add it under.
    pub name: String,
    /// Where its bytes come from.
    pub source: ImageSource,
    /// The sector size in bytes; `None` for the one that the partition table shows.
    pub sector_size: Option<u32>,
    /// Whether an image without a partition table is accepted.
    pub no_table: bool,
}

/// The kind of partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionTable {
    /// A GUID partition table.
    Gpt,
    /// The table of a master boot record.
    Mbr,
    /// No partition table that is known.
    None,
}

/// What is known of an image: the record under its name in the store. The admin's API shows it as `ImageShown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// The name that the admin gave it.
    pub name: String,
    /// The hash of its manifest.
    pub id: ImageId,
    /// Bytes of the raw image.
    pub size_bytes: u64,
    /// The sector size its partition table was made for: 512 or 4096.
    pub sector_bytes: u32,
    /// How many chunks of 1 MiB, of which the last may be shorter.
    pub chunks: u32,
    /// How many of these are all zeros.
    pub zero_chunks: u32,
    /// How many distinct chunks are stored and sent.
    pub stored_chunks: u32,
    /// Bytes that one copy takes on the network.
    pub wire_bytes: u64,
    /// The name of the file that it came from, or `standard input`.
    pub source: String,
    /// That file's path, if it was a file: damaged chunks are repaired from it.
    #[serde(default)]
    pub path: Option<std::path::PathBuf>,
    /// How it came: `raw`, `qcow2`, `raw in xz` and so on.
    pub format: ImageFormat,
    /// When it was added, in milliseconds since 1970.
    pub added_at_ms: u64,
    /// The kind of its partition table.
    pub partition_table: PartitionTable,
    /// Whether a BIOS finds something to boot in it, by the look of its first sector.
    pub boots_bios: bool,
    /// Whether UEFI firmware that has never seen it finds its loader.
    pub boots_uefi: bool,
    /// What it can boot on and be given; `None` in a record of an earlier version, until it is inspected.
    #[serde(default)]
    pub traits: Option<ImageTraits>,
}

/// The result of adding an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The image's record.
    pub image: ImageInfo,
    /// Whether it had been there before, under the same name and with the same content.
    pub existed: bool,
    /// How many chunks no image had before.
    pub new_chunks: u32,
    /// How many bytes the store grew by.
    pub new_bytes: u64,
    /// How many chunks were damaged in the store and are repaired.
    pub repaired_chunks: u32,
    /// What the admin should know about it, each in a sentence.
    pub notes: Vec<String>,
}

/// What an image costs a site whose machines hold another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The name of the image that they hold.
    pub from: String,
    /// Bytes that one copy takes on the network.
    pub wire_bytes: u64,
}

/// The result of removing an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The record that was removed.
    pub image: ImageInfo,
    /// Bytes that were freed; 0 for chunks that are kept while another image is being added.
    pub freed_bytes: u64,
}

/// How far a long operation is. Reported after each chunk, from the caller's thread; a caller that wants it less often
/// drops some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes read from the source, before decompression.
    pub bytes_read: u64,
    /// Bytes that the source has; `None` when unknown.
    pub total: Option<u64>,
    /// How many chunks are done.
    pub chunks: u32,
    /// How many bytes the store grew by.
    pub stored_bytes: u64,
    /// How many chunks were all zeros.
    pub zero_chunks: u32,
}

/// The result of checking the chunks of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The image's id.
    pub id: ImageId,
    /// How many distinct stored chunks were checked.
    pub chunks: u32,
    /// How many bytes these have in the store.
    pub wire_bytes: u64,
    /// The damaged chunks, in the order of their place in the image; empty when all are right.
    pub damaged: Vec<DamagedChunk>,
    /// What was found and done about its deltas over earlier images, each in a sentence; empty when all are right.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A stored chunk that does not match its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedChunk {
    /// Its place in the image; the lowest, if it has several.
    pub chunk: u32,
    /// Its wire hash, which is its name in the store.
    pub wire: Hash,
    /// What is wrong, in words.
    pub what: String,
    /// The names of all images that have this chunk.
    #[serde(default)]
    pub images: Vec<String>,
}
