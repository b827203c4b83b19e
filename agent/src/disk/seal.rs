//! The last writes, after which the disk boots. Touches `device` and `held`.
//!
//! Order: the chunks held back at the end of the disk and what personalising puts over the image, except the last 64
//! KiB of the disk; a sync; those 64 KiB (the backup GPT); a sync; the first MiB but its first two sectors; a sync;
//! those two (boot code or protective MBR, and the GPT header), small enough to be written whole or not at all. A power
//! cut between any two leaves a disk without a partition table, or, once the backup GPT is written, one whose every
//! byte but the table is in place. All but those two sectors is read back before they are written; when anything fails,
//! what lets the disk boot is cleared again.

use std::io;

use common::chunk::ChunkIndex;
use common::limits::CHUNK_BYTES;
use common::manifest::Manifest;

use super::device::Device;
use super::held::Held;
use super::write::GUARD_BYTES;

/// Why a disk could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The first chunk is not in memory, because the transfer has not ended.
    #[error("the image's first chunk is not there yet")]
    NoFirst,
    /// The disk refused one of the last writes.
    #[error("cannot write {len} bytes at byte {offset}")]
    Write {
        /// Offset on the disk, in bytes.
        offset: u64,
        /// Length in bytes.
        len: usize,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// A sync failed, so the disk lost writes; or the cache could not be dropped.
    #[error("the disk failed to keep what was written")]
    Sync(#[source] io::Error),
    /// What was written cannot be read back.
    #[error("cannot read back {len} bytes at byte {offset}")]
    Read {
        /// Offset on the disk, in bytes.
        offset: u64,
        /// Length in bytes.
        len: usize,
        /// The error of the operating system.
        #[source]
        cause: io::Error,
    },
    /// Reading back gives other bytes than were written.
    #[error("the disk gives back other bytes than were written at byte {offset}")]
    Differs {
        /// Offset of the first wrong byte on the disk.
        offset: u64,
    },
}

/// The bytes that are written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The first MiB of the disk, or all of a smaller image.
    pub first: Vec<u8>,
    /// What is written over the image, in this order: offset and bytes.
    pub over: Vec<(u64, Vec<u8>)>,
}

impl Seal {
    /// The seal of an image that is not personalised: only the chunks that were held back.
    ///
    /// # Errors
    /// When the first chunk has not come yet.
    pub fn of_image(manifest: &Manifest, held: &Held) -> Result<Self, SealError> {
        let mut back = held.back();
        let first = match back.remove(&ChunkIndex(0)) {
            Some(bytes) => bytes.to_vec(),
            None if manifest.stored(ChunkIndex(0)).is_none() => {
                vec![0; manifest.raw_len(ChunkIndex(0)) as usize]
            }
            None => return Err(SealError::NoFirst),
        };
        let over = back.into_iter().map(|(chunk, bytes)| (chunk.offset(), bytes.to_vec())).collect();
        Ok(Self { first, over })
    }

    /// Writes everything in the order of the header and reads it back. On a failure what lets the disk boot is cleared
    /// again: a disk that gives back other bytes must not boot. Safe to repeat. Blocks.
    ///
    /// # Errors
    /// When the disk refuses, or gives back other bytes.
    pub fn write(&self, device: &dyn Device, held: &Held) -> Result<(), SealError> {
        let written = self.write_in_order(device, held);
        if written.is_err() {
            self.open_again(device);
        }
        written
    }

    fn write_in_order(&self, device: &dyn Device, held: &Held) -> Result<(), SealError> {
        let guard = device.size().saturating_sub(GUARD_BYTES);
        let below = |offset: u64, bytes: &[u8]| {
            usize::try_from(guard.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len())
        };
        for (offset, bytes) in &self.over {
            // What is overwritten is no longer the image's chunk, and must not be served as one. A chunk that was held
            // back is still served from memory.
            held.forget(&(*offset..*offset + bytes.len() as u64));
            write(device, *offset, &bytes[..below(*offset, bytes)])?;
        }
        sync(device)?;
        for (offset, bytes) in &self.over {
            let below = below(*offset, bytes);
            write(device, *offset + below as u64, &bytes[below..])?;
        }
        sync(device)?;
        let (head, rest) = self.first.split_at((2 * device.sector_bytes() as usize).min(self.first.len()));
        write(device, head.len() as u64, rest)?;
        sync(device)?;
        // Everything but the two sectors that let it boot is read back before those are written.
        let mut wanted = self.over_as_it_stands();
        wanted.push((head.len() as u64, rest.to_vec()));
        read_back(device, &wanted)?;
        write(device, 0, head)?;
        sync(device)?;
        read_back(device, &[(0, head.to_vec())])
    }

    /// Clears what lets the disk boot: the first MiB, and the backup GPT from which firmware would repair it. All of it
    /// is still in memory, for another try.
    fn open_again(&self, device: &dyn Device) {
        let guard = device.size().saturating_sub(GUARD_BYTES);
        // The disk has failed already: an error here adds nothing to the one that led here.
        let _ = device.zero_at(0, self.first.len() as u64);
        if self.over.iter().any(|(offset, bytes)| *offset + bytes.len() as u64 > guard) {
            let _ = device.zero_at(guard, device.size() - guard);
        }
        let _ = device.sync();
    }

    /// The parts written over the image, each with the later parts that overlap it laid over.
    fn over_as_it_stands(&self) -> Vec<(u64, Vec<u8>)> {
        let mut wanted: Vec<(u64, Vec<u8>)> = self.over.clone();
        for at in 1..wanted.len() {
            let (before, from) = wanted.split_at_mut(at);
            let (offset, bytes) = &from[0];
            before.iter_mut().for_each(|(under, old)| lay_over(*under, old, *offset, bytes));
        }
        wanted
    }
}

fn sync(device: &dyn Device) -> Result<(), SealError> {
    device.sync().map_err(SealError::Sync)
}

fn read_back(device: &dyn Device, wanted: &[(u64, Vec<u8>)]) -> Result<(), SealError> {
    device.drop_cache().map_err(SealError::Sync)?;
    for (offset, bytes) in wanted {
        let (offset, len) = (*offset, bytes.len());
        let mut there = vec![0; len];
        device.read_at(offset, &mut there).map_err(|cause| SealError::Read { offset, len, cause })?;
        if let Some(at) = there.iter().zip(bytes).position(|(there, wanted)| there != wanted) {
            return Err(SealError::Differs { offset: offset + at as u64 });
        }
    }
    Ok(())
}

/// Copies the part of `new` (which begins at `new_at`) that overlaps `old` (which begins at `old_at`) into `old`.
fn lay_over(old_at: u64, old: &mut [u8], new_at: u64, new: &[u8]) {
    let start = old_at.max(new_at);
    let end = (old_at + old.len() as u64).min(new_at + new.len() as u64);
    if start < end {
        let place = |from: u64| usize::try_from(from).unwrap_or(usize::MAX);
        old[place(start - old_at)..place(end - old_at)]
            .copy_from_slice(&new[place(start - new_at)..place(end - new_at)]);
    }
}

fn write(device: &dyn Device, offset: u64, bytes: &[u8]) -> Result<(), SealError> {
    for (piece, at) in bytes.chunks(CHUNK_BYTES as usize).zip((offset..).step_by(CHUNK_BYTES as usize)) {
        device.write_at(at, piece).map_err(|cause| SealError::Write {
            offset: at,
            len: piece.len(),
            cause,
        })?;
    }
    Ok(())
}
