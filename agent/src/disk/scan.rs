//! Reads chunks back and compares them with the manifest, for `verify` and for a resume. Touches `device` for reading
//! only. Chunks are hashed by their raw bytes; zeros are compared as zeros.
//!
//! Several threads take the next chunk in turn, so that the reads stay nearly ascending while hashing uses every core;
//! a spinning disk gets one reader.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use common::chunk::{ChunkIndex, ChunkSet, is_zero};
use common::id::Hash;
use common::limits::CHUNK_BYTES;
use common::manifest::{Chunk, Manifest};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::device::Device;

/// The most readers; more gain nothing, since each hashes more than 1 GB/s.
const READERS_MAX: usize = 4;

/// The result of reading chunks back.
#[derive(Debug)]
pub struct Scan {
    /// The chunks whose bytes on the disk are the manifest's.
    pub same: ChunkSet,
    /// The first chunk that could not be read, and the error; none when all could be.
    pub unreadable: Option<(ChunkIndex, std::io::Error)>,
    /// Whether it was cancelled before the end.
    pub cancelled: bool,
}

/// Whether `bytes` are those of `chunk` by the manifest.
#[must_use]
pub fn is_chunk(manifest: &Manifest, chunk: ChunkIndex, bytes: &[u8]) -> bool {
    if bytes.len() as u64 != u64::from(manifest.raw_len(chunk)) {
        return false;
    }
    match manifest.get(chunk) {
        None => false,
        Some(Chunk::Zero) => is_zero(bytes),
        Some(Chunk::Stored(stored)) => Hash::of(bytes) == stored.raw,
    }
}

/// Reads `chunks` and compares each with the manifest. `progress` is given the raw bytes compared so far. A chunk that
/// cannot be read counts as different. Blocks: call it on a thread of its own.
pub fn scan(
    device: &dyn Device,
    manifest: &Manifest,
    chunks: &[ChunkIndex],
    cancel: &CancellationToken,
    progress: &(dyn Fn(u64) + Sync),
) -> Scan {
    let next = AtomicUsize::new(0);
    let bytes_done = AtomicU64::new(0);
    let found = Mutex::new(Scan { same: ChunkSet::new(manifest.len()), unreadable: None, cancelled: false });
    let reader = || {
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        while !cancel.is_cancelled() {
            let Some(&chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let bytes = &mut buffer[..manifest.raw_len(chunk) as usize];
            let read = device.read_at(chunk.offset(), bytes);
            let same = read.is_ok() && is_chunk(manifest, chunk, bytes);
            {
                let mut found = found.lock();
                if same {
                    found.same.insert(chunk);
                }
                if let (Err(cause), None) = (read, &found.unreadable) {
                    found.unreadable = Some((chunk, cause));
                }
            }
            let raw = bytes.len() as u64;
            progress(bytes_done.fetch_add(raw, Ordering::Relaxed) + raw);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let readers = if device.rotational() { 1 } else { cores.clamp(1, READERS_MAX) };
    std::thread::scope(|scope| {
        for _ in 1..readers {
            scope.spawn(reader);
        }
        reader();
    });
    let mut found = found.into_inner();
    found.cancelled = cancel.is_cancelled();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::recording::{Recording, image};

    #[test]
    fn a_scan_finds_exactly_what_is_there() {
        let (manifest, raw) = image(&[Some(1), None, Some(2), Some(3)], 512);
        let disk = Recording::holding(raw, 512);
        disk.write_at(2 << 20, &[0xee]).unwrap();
        let all: Vec<ChunkIndex> = (0..manifest.len()).map(ChunkIndex).collect();
        let found = scan(&disk, &manifest, &all, &CancellationToken::new(), &|_| {});
        assert_eq!(found.same.iter().map(|chunk| chunk.0).collect::<Vec<_>>(), [0, 1, 3]);
        assert!(found.unreadable.is_none() && !found.cancelled);

        let cancelled = CancellationToken::new();
        cancelled.cancel();
        assert!(scan(&disk, &manifest, &all, &cancelled, &|_| {}).cancelled);
    }

    #[test]
    fn a_chunk_that_cannot_be_read_is_different_and_named() {
        let (manifest, mut raw) = image(&[Some(1), Some(2)], 512);
        raw.truncate(1 << 20);
        let disk = Recording::holding(raw, 512);
        let found =
            scan(&disk, &manifest, &[ChunkIndex(0), ChunkIndex(1)], &CancellationToken::new(), &|_| {});
        assert_eq!(found.same.count(), 1);
        assert_eq!(found.unreadable.unwrap().0, ChunkIndex(1));
    }
}
