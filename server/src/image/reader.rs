//! Reads the raw bytes of an image at any place, from its stored chunks. Owns a cache of a few chunks. Exists for
//! inspecting images: partition tables, and files in file systems. Bounded: following the pointers of a hostile file
//! system reads a limited number of chunks. Touches the store.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use bytes::Bytes;
use common::chunk::ChunkIndex;
use common::id::ImageId;
use common::limits::CHUNK_BYTES;
use common::manifest::Manifest;

use super::error::ImageError;
use super::store::Images;

/// How many chunks are cached: a folder, its file and their tables are in a few places that are read in turn.
const KEPT: usize = 8;

impl Images {
    /// The image's first chunk: boot code and partition table. The last one that was read is cached, because an order
    /// reads it once per machine.
    ///
    /// # Errors
    /// When the manifest or the chunk cannot be read.
    pub fn first_bytes(&self, id: ImageId) -> Result<Bytes, ImageError> {
        let kept = self.first_kept();
        if let Some((_, bytes)) = kept.lock().as_ref().filter(|it| it.0 == id) {
            return Ok(bytes.clone());
        }
        let manifest = self.manifest(id)?;
        let bytes = self.raw_at(&manifest, ChunkIndex(0))?;
        *kept.lock() = Some((id, bytes.clone()));
        Ok(bytes)
    }

    /// The raw bytes of one chunk, also if it is all zeros.
    pub(super) fn raw_at(&self, manifest: &Manifest, index: ChunkIndex) -> Result<Bytes, ImageError> {
        let raw_len = manifest.raw_len(index);
        match manifest.stored(index) {
            Some(chunk) => self.raw_chunk(&chunk, raw_len),
            None => Ok(Bytes::from(vec![0; raw_len as usize])),
        }
    }
}

/// A part of an image, read like a file.
#[derive(Debug)]
pub(super) struct PartReader {
    images: Images,
    manifest: Arc<Manifest>,
    start: u64,
    len: u64,
    at: u64,
    kept: VecDeque<(ChunkIndex, Bytes)>,
    /// How many chunks may still be read.
    left: u32,
}

impl PartReader {
    /// A reader of `len` bytes from `start` on, or as many as there are; it reads at most `chunks` chunks.
    pub(super) fn new(images: Images, manifest: Arc<Manifest>, start: u64, len: u64, chunks: u32) -> Self {
        let len = len.min(manifest.size().saturating_sub(start));
        Self { images, manifest, start, len, at: 0, kept: VecDeque::new(), left: chunks }
    }

    /// The length of the part, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Another reader of the same part, from its start, with the chunks that this one has left.
    pub(super) fn again(&self) -> Self {
        Self::new(self.images.clone(), Arc::clone(&self.manifest), self.start, self.len, self.left)
    }

    /// Reads into all of `buf` from `offset` on.
    pub(super) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.at = offset;
        self.read_exact(buf)
    }

    fn chunk(&mut self, index: ChunkIndex) -> io::Result<Bytes> {
        if let Some((_, bytes)) = self.kept.iter().find(|kept| kept.0 == index) {
            return Ok(bytes.clone());
        }
        self.left =
            self.left.checked_sub(1).ok_or_else(|| io::Error::other("its file system leads everywhere"))?;
        let bytes = self.images.raw_at(&self.manifest, index).map_err(io::Error::other)?;
        self.kept.truncate(KEPT - 1);
        self.kept.push_front((index, bytes.clone()));
        Ok(bytes)
    }
}

impl Read for PartReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.len || buf.is_empty() {
            return Ok(0);
        }
        let place = self.start + self.at;
        let index = u32::try_from(place / u64::from(CHUNK_BYTES)).map_err(io::Error::other)?;
        let bytes = self.chunk(ChunkIndex(index))?;
        let within = usize::try_from(place % u64::from(CHUNK_BYTES)).unwrap_or(usize::MAX);
        let rest = bytes.get(within..).unwrap_or_default();
        let len = rest.len().min(buf.len()).min(usize::try_from(self.len - self.at).unwrap_or(usize::MAX));
        buf[..len].copy_from_slice(&rest[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for PartReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Required by `fatfs`, which writes nothing while it only reads.
impl Write for PartReader {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
