//! The disk, in the order of caution: choose it, open it exclusively, clear what would boot, write, read back, and only
//! then let it boot. Everything below `device` is given a [`device::Device`], never a path, so that the tests can cut
//! the power at every write.

// The operations of a disk, and the kernel's implementation of them: the only unsafe code.
pub mod device;

// The choice of the plan's disk among those seen.
pub mod find;

// Reading back and comparing with the manifest.
pub mod scan;

// What a disk holds already of an image.
pub mod resume;

// Which chunks are written, which of them are durable, and their bytes for peers.
pub mod held;

// Chunks of an earlier build on the disk, over which deltas are decoded.
pub mod bases;

// The first writes of a job: clear what would boot, and what the old system left.
pub mod clear;

// The chunk that a disk lost.
pub mod fault;

// The one thread that writes chunks.
pub mod write;

// The file system that cloud-init reads.
pub mod nocloud;

// The last writes, after which the disk boots.
pub mod seal;

// A test's disk in memory, whose power can be cut.
#[cfg(test)]
pub(crate) mod recording;

// Tests of the whole write path: a disk that boots is whole.
#[cfg(test)]
pub(crate) mod power;
