//! Finds the chunk that a disk lost. Writes go through the page cache, so a sector that cannot be written makes the
//! next sync fail, with an error that names no place: what was written since the last sync is read back from the disk,
//! and the first chunk that differs is named. Touches `device` for reading only.

use std::fmt;

use common::chunk::ChunkIndex;
use common::manifest::Manifest;
use tokio_util::sync::CancellationToken;

use super::device::Device;
use super::scan::scan;

/// A chunk and its bytes on the disk, for errors: `chunk 585 (bytes 613416960 to 614465535)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The chunk; its number gives the offset of its first byte.
    pub chunk: ChunkIndex,
    /// Its length in raw bytes; less than a whole chunk at the image's end.
    pub len: u64,
}

impl Span {
    /// The span of `chunk` in the image of `manifest`.
    #[must_use]
    pub fn of(manifest: &Manifest, chunk: ChunkIndex) -> Self {
        Self { chunk, len: u64::from(manifest.raw_len(chunk)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.chunk.offset();
        write!(f, "chunk {} (bytes {start} to {})", self.chunk.0, (start + self.len).saturating_sub(1))
    }
}

/// What a failed sync lost: the first chunk that differs on the disk, and how many more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The first lost chunk; none when every chunk reads as it was written, so that the fault has no place.
    first: Option<Span>,
    more: usize,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.more) {
            (None, _) => f.write_str("all of which can be read back"),
            (Some(first), 0) => write!(f, "{first} is not there"),
            (Some(first), more) => write!(f, "{first} is not there, nor are {more} more"),
        }
    }
}

/// Reads the chunks of `written` back after a failed sync. Blocks.
#[must_use]
pub fn lost(device: &dyn Device, manifest: &Manifest, written: &[ChunkIndex]) -> Lost {
    // Where the cache cannot be dropped, a lost chunk may still read as it was written: then none is named.
    let _ = device.drop_cache();
    let found = scan(device, manifest, written, &CancellationToken::new(), &|_| {});
    let mut gone: Vec<ChunkIndex> =
        written.iter().copied().filter(|&chunk| !found.same.contains(chunk)).collect();
    gone.sort_unstable();
    let first = gone.first().map(|&chunk| Span::of(manifest, chunk));
    Lost { first, more: gone.len().saturating_sub(1) }
}
