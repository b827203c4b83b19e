//! The disk, in the order of caution: find it, open it for ourselves alone, clear what would boot, write,
//! read back, and only then let it boot. Everything below `device` sees a [`device::Device`], never a path,
//! so that the tests can cut the power at every write.

// The operations that a disk offers, and the kernel's version of them: the only unsafe code.
pub mod device;

// Which of the disks seen is the plan's, or why none is.
pub mod find;

// Reading back and comparing with the manifest.
pub mod scan;

// What a disk holds already of an image.
pub mod resume;

// What is down, what of it is safe, and the bytes for peers.
pub mod held;

// The first writes of a job: what would boot, and what the old disk leaves behind.
pub mod clear;

// Which chunk a disk did not take.
pub mod fault;

// The one thread that writes.
pub mod write;

// What cloud-init finds in that partition.
pub mod nocloud;

// The last writes, after which the disk boots.
pub mod seal;

// A disk in memory that loses its power.
#[cfg(test)]
pub(crate) mod recording;

// The property of the whole write path: a disk that boots is whole.
#[cfg(test)]
pub(crate) mod power;
