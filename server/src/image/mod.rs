//! The images that are written to disks: read from files and streams (`source`, `qcow2`), cut into chunks (`import`),
//! kept in a store (`store`, over `blobs`), and read back whole (`check`) or chunk by chunk for the swarm. Everything
//! here blocks on files and uses threads of its own, so asynchronous callers wrap it in `spawn_blocking`.

// Core: hints about errors of the file system.
mod hint;

// The errors, and what an admin can do about them.
mod error;

// The types of the image store's interface.
mod info;

// Core: how an image came, as a word and as a type.
mod format;

// Raw bytes in order, from whatever an admin has.
mod source;

// Core: recognises what is no disk image.
mod foreign;

// The memory that a compressed stream needs.
mod window;

// A buffered reader that counts the bytes read.
mod input;

// Reads qcow2, the one format that is more than a stream.
mod qcow2;

// Core: what the first chunk shows: partition table, sector size, what boots it.
mod facts;

// Cuts raw bytes into chunks, on all cores.
mod import;

// Core: which chunks of an old image are like a new one's.
mod anchors;

// Storage of named blobs, and its implementation in files.
mod blobs;

// Core: the keys of the blobs.
mod keys;

// The image store of this server.
mod store;

// Inspects an image: which firmware boots it, whether it can be personalised.
mod look;

// Core: whether cloud-init is in an image, and would use a NoCloud partition.
mod cloud_init;

// Reads any bytes of a stored image.
mod reader;

// Reads images back: verify and export.
mod check;

// The store as the swarm's source of chunks.
mod chunks;

// Retries reads that fail because files or memory are short.
mod scarce;

// Repairs damaged chunks.
mod mend;

#[cfg(test)]
mod tests;

pub use blobs::Blobs;
pub use error::ImageError;
pub use info::{
    AddSpec, Added, DamagedChunk, ImageInfo, PartitionTable, Progress, Removed, Update, VerifyReport,
};
pub use qcow2::QcowError;
#[cfg(fuzzing)]
pub use qcow2::try_qcow2;
pub use source::{ImageSource, SourceError};
pub use store::Images;
