//! What is written to disks: images come in (`source`, `qcow2`), are cut into chunks (`import`), rest in a
//! store (`store`, over `blobs`), and go out again whole (`check`) or chunk by chunk to the swarm. Everything
//! here blocks on files and uses threads of its own, so asynchronous callers wrap it in `spawn_blocking`.

// What helps against an error of the file system.
mod hint;

// What can go wrong, and what to do about it.
mod error;

// What others see of an image.
mod info;

// Core: how an image came, as a word and as a type.
mod format;

// Raw bytes in order, from whatever an admin has.
mod source;

// What is no disk image, by name.
mod foreign;

// What a compressed stream needs.
mod window;

// A stream that knows how far it has come.
mod input;

// The one input format that is more than a stream.
mod qcow2;

// What an image says of itself: partition table, sector size, how it boots.
mod facts;

// Raw bytes to chunks, on all cores.
mod import;

// Named blobs at rest, and those in files.
mod blobs;

// Core: what the blobs are called.
mod keys;

// The images of this server.
mod store;

// What an image can and cannot do.
mod look;

// Whether cloud-init is in it, and would take what it is given.
mod cloud_init;

// Any bytes of an image, out of its chunks.
mod reader;

// Images read back: verify and export.
mod check;

// What the swarm takes.
mod chunks;

// What fails only because something is short is tried again.
mod scarce;

// Damaged chunks put right.
mod mend;

#[cfg(test)]
mod tests;

pub use blobs::Blobs;
pub use error::ImageError;
pub use info::{AddSpec, Added, DamagedChunk, ImageInfo, PartitionTable, Progress, Removed, VerifyReport};
pub use qcow2::QcowError;
#[cfg(fuzzing)]
pub use qcow2::try_qcow2;
pub use source::{ImageSource, SourceError};
pub use store::Images;
