//! The errors of image operations, one variant per failed operation, and what an admin can do about each. Touches
//! nothing.

use std::io;

use common::id::{Hash, ImageId};
use common::manifest::BadManifest;
use common::table::TableError;

use super::hint::io_hint;
use super::source::SourceError;

/// A failed operation on images.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The place of the store cannot be made or read.
    #[error("cannot open the image store {place}")]
    Open {
        /// Where the store is, as its blobs call it: the folder of those in files.
        place: String,
        /// What helps with blobs of this kind.
        hint: Option<String>,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the image store {place} is in use by another swarmboot")]
    Locked {
        /// Where the store is, as its blobs call it: the folder of those in files.
        place: String,
        /// What helps with blobs of this kind.
        hint: Option<String>,
    },
    /// The name is too long or has characters that are not allowed.
    #[error("`{name}` cannot be an image's name: {why}")]
    Name {
        /// The name that was asked for.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The name belongs to an image with other content.
    #[error("there is another image named `{name}` already ({})", .has.0.short())]
    Taken {
        /// The name that was asked for.
        name: String,
        /// The id of the image that has the name.
        has: ImageId,
    },
    /// No image has this name, or an id that begins with it.
    #[error("no image is named `{asked}`, and no image's id begins so")]
    Unknown {
        /// The name or the beginning of an id that was asked for.
        asked: String,
        /// The names of all images.
        known: Vec<String>,
    },
    /// Several images have an id that begins with this.
    #[error("`{asked}` is the beginning of several images' ids")]
    Ambiguous {
        /// The beginning of an id that was asked for.
        asked: String,
        /// The names of the images that match.
        matches: Vec<String>,
    },
    /// The image to add cannot be read.
    #[error("cannot read the image {name}")]
    Source {
        /// The file's name without its folder, or `standard input`.
        name: String,
        /// The error underneath.
        #[source]
        source: SourceError,
    },
    /// The image has no bytes at all.
    #[error("the image {name} is empty")]
    Empty {
        /// The file's name without its folder, or `standard input`.
        name: String,
    },
    /// The image is larger than an image may be.
    #[error("the image {name} is larger than {max_gib} GiB")]
    TooLarge {
        /// The file's name without its folder, or `standard input`.
        name: String,
        /// The largest size of an image, in GiB.
        max_gib: u64,
    },
    /// The sector size is neither 512 nor 4096.
    #[error("a sector size of {0} bytes is neither 512 nor 4096")]
    SectorSize(u32),
    /// A partition of the table ends behind the end of the image.
    #[error(
        "the image {name} is cut short: its partition {partition} ends at byte {ends}, the image at {size}"
    )]
    CutShort {
        /// The file's name without its folder, or `standard input`.
        name: String,
        /// The partition's number, from 1.
        partition: u32,
        /// Where the partition ends, in bytes.
        ends: u64,
        /// The image's size in bytes.
        size: u64,
    },
    /// The partition table is one that neither firmware nor kernels read.
    #[error("the image {name} cannot boot anywhere: its partition table cannot be used")]
    Table {
        /// The file's name without its folder, or `standard input`.
        name: String,
        /// What is wrong with the table.
        #[source]
        source: TableError,
    },
    /// The image has no partition table, and the admin did not say that it is meant to have none.
    #[error("the image {name} has no partition table that is known{}", held(holds.as_ref()))]
    NoTable {
        /// The file's name without its folder, or `standard input`.
        name: String,
        /// The kind of file system that the image is; `None` when it is not recognised.
        holds: Option<&'static str>,
    },
    /// The image has only zero bytes.
    #[error("the image {name} is nothing but zeros")]
    Zeros {
        /// The file's name without its folder, or `standard input`.
        name: String,
    },
    /// Writing to the store failed.
    #[error("cannot write {what} to the image store")]
    Write {
        /// What was to be written, in words.
        what: String,
        /// What helps with blobs of this kind.
        hint: Option<String>,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// Reading from the store failed.
    #[error("cannot read {what} from the image store")]
    Read {
        /// What was to be read, in words.
        what: String,
        /// What helps with blobs of this kind.
        hint: Option<String>,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// A chunk of an image is missing from the store.
    #[error("chunk {wire} is missing from the image store")]
    ChunkMissing {
        /// Its wire hash, which is its name.
        wire: Hash,
    },
    /// A chunk in the store does not have its hash.
    #[error("chunk {wire} is damaged in the image store: {why}")]
    ChunkDamaged {
        /// Its wire hash, which is its name.
        wire: Hash,
        /// What was found wrong.
        why: &'static str,
    },
    /// A manifest that should be in the store is not.
    #[error("the manifest of image {id} is missing from the image store")]
    ManifestMissing {
        /// The image.
        id: ImageId,
        /// What is to be checked where blobs of this kind lie.
        check: &'static str,
    },
    /// A manifest cannot be made of, or read from, these bytes.
    #[error("the manifest of {what} is unusable")]
    Manifest {
        /// The name of the image's source, or the image's id.
        what: String,
        /// What is to be checked where blobs of this kind lie.
        check: &'static str,
        /// The error underneath.
        #[source]
        source: BadManifest,
    },
    /// The image cannot be removed, because something needs it.
    #[error("image `{name}` is in use by {by}")]
    InUse {
        /// The image's name.
        name: String,
        /// What needs it, in words.
        by: String,
    },
    /// The exported bytes could not be written to their destination.
    #[error("cannot write the exported image")]
    Export(#[source] io::Error),
    /// The server is stopping, so the operation was cancelled.
    #[error("stopped, because the server is stopping")]
    Stopped,
}

impl ImageError {
    /// What an admin can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open { hint, .. }
            | Self::Locked { hint, .. }
            | Self::Write { hint, .. }
            | Self::Read { hint, .. } => hint.clone(),
            Self::Export(source) => io_hint(source),
            Self::Name { .. } => Some(
                "use up to 64 letters, digits, dots, dashes and underscores, a letter or digit first"
                    .to_owned(),
            ),
            Self::Taken { name, .. } => Some(format!(
                "take another name, or remove the old image first: swarmboot image remove {name}"
            )),
            Self::Unknown { known, .. } if known.is_empty() => {
                Some("there are no images yet: swarmboot image add NAME FILE".to_owned())
            }
            Self::Unknown { known, .. } => Some(format!("there are: {}", known.join(", "))),
            Self::Ambiguous { matches, .. } => Some(format!("one of: {}", matches.join(", "))),
            Self::Source { source, .. } => source.hint(),
            Self::Empty { .. } => Some("check what makes it: nothing came".to_owned()),
            Self::TooLarge { .. } => None,
            Self::SectorSize(_) => Some("leave --sector-size out to take it from the image".to_owned()),
            Self::CutShort { ends, .. } => Some(format!(
                "get the image again: its end is missing. If it was made so, lengthen it: truncate -s {ends} FILE"
            )),
            Self::Table { source, .. } => Some(table_hint(source).to_owned()),
            Self::NoTable { holds: Some(_), .. } => Some(
                "add the image of a whole disk; or say with --no-table that the disk is to hold just this".to_owned(),
            ),
            Self::NoTable { .. } => Some(
                "look at it: it is probably no disk image. --no-table adds it all the same, to be written as it is"
                    .to_owned(),
            ),
            Self::Zeros { .. } => Some("look at what made it: nothing is in it".to_owned()),
            Self::ChunkMissing { .. } | Self::ChunkDamaged { .. } => Some(
                "see all damage with `swarmboot image verify NAME`; adding the same image again repairs it"
                    .to_owned(),
            ),
            Self::ManifestMissing { check, .. } | Self::Manifest { check, .. } => {
                Some(format!("check {check}, then remove the image and add it again"))
            }
            Self::InUse { .. } => Some("cancel it or wait for its end".to_owned()),
            Self::Stopped => None,
        }
    }
}

fn held(holds: Option<&&'static str>) -> String {
    holds.map(|what| format!(": all of it is one {what}")).unwrap_or_default()
}

/// What an admin can do about a partition table that cannot be used.
fn table_hint(error: &TableError) -> &'static str {
    match error {
        TableError::NotProtected => "write its protective MBR (gdisk FILE, then w), or get the image again",
        TableError::NotThere | TableError::Checksum(_) => {
            "get the image again; or repair the table from its backup (gdisk FILE, then r, b, w)"
        }
        TableError::EntryCount(_) | TableError::EntriesFar(_) => {
            "make the table with 128 entries right behind its header (sgdisk -j 2 -S 128 FILE)"
        }
        _ => "make its partition table anew (gdisk, sfdisk), or get the image again",
    }
}
