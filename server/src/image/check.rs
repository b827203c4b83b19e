//! Reads images back from the store: checks every chunk (`verify`), or joins them to the raw image again (`export`).
//! Owns no state. Touches the store, and threads of its own.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use common::causes::with_causes;
use common::chunk::ChunkIndex;
use common::id::{Hash, ImageId};
use common::limits::CHUNK_BYTES;
use common::manifest::{Chunk, Encoding, StoredChunk};

use super::error::ImageError;
use super::info::{DamagedChunk, Progress, VerifyReport};
use super::store::Images;

impl Images {
    /// Reads every chunk of an image on all cores and checks it: wire hash, decompression, raw hash. Then the frames of its
    /// deltas, of which damaged ones are made anew or dropped, because nothing depends on them.
    ///
    /// # Errors
    /// When the manifest cannot be read, or the server is stopping. Damaged chunks are no error: they are in the
    /// report.
    pub fn verify(
        &self,
        id: ImageId,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport, ImageError> {
        let (manifest, _) = self.read_manifest(id)?;
        let mut firsts: Vec<ChunkIndex> = manifest.places().into_keys().collect();
        firsts.sort_unstable();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let (done, results) = sync_channel::<(ChunkIndex, u32, Result<(), ImageError>)>(workers);
        let mut report =
            VerifyReport { id, chunks: 0, wire_bytes: 0, damaged: Vec::new(), notes: Vec::new() };
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let done = done.clone();
                scope.spawn(|| {
                    let done = done;
                    while let Some(&index) = firsts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let Some(chunk) = manifest.stored(index) else { continue };
                        let checked = self.raw_chunk(&chunk, manifest.raw_len(index)).map(drop);
                        if self.stopping() || done.send((index, chunk.wire_len, checked)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(done);
            for (index, wire_len, checked) in results {
                report.chunks += 1;
                report.wire_bytes += u64::from(wire_len);
                if let (Err(error), Some(chunk)) = (checked, manifest.stored(index)) {
                    let what = with_causes(&error);
                    report.damaged.push(DamagedChunk {
                        chunk: index.0,
                        wire: chunk.wire,
                        what,
                        images: vec![],
                    });
                }
                progress(Progress {
                    bytes_read: report.wire_bytes,
                    total: Some(manifest.wire_bytes()),
                    chunks: report.chunks,
                    ..Progress::default()
                });
            }
        });
        if self.stopping() {
            return Err(ImageError::Stopped);
        }
        report.damaged.sort_by_key(|damaged| damaged.chunk);
        let images = self.images_with(&report.damaged.iter().map(|damaged| damaged.wire).collect());
        for damaged in &mut report.damaged {
            damaged.images = images.get(&damaged.wire).cloned().unwrap_or_default();
        }
        report.notes = self.verify_deltas(id);
        Ok(report)
    }

    /// Writes the raw image to `to`, with every chunk checked.
    ///
    /// # Errors
    /// When a chunk is missing or damaged, or writing to `to` fails; `to` has a part of the image then.
    pub fn export(
        &self,
        id: ImageId,
        to: &mut dyn Write,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), ImageError> {
        let manifest = self.manifest(id)?;
        let zeros = vec![0; CHUNK_BYTES as usize];
        let mut told = Progress { total: Some(manifest.size()), ..Progress::default() };
        for (index, chunk) in manifest.iter() {
            if self.stopping() {
                return Err(ImageError::Stopped);
            }
            let raw_len = manifest.raw_len(index);
            match chunk {
                Chunk::Zero => {
                    told.zero_chunks += 1;
                    to.write_all(&zeros[..raw_len as usize])
                }
                Chunk::Stored(stored) => to.write_all(&self.raw_chunk(&stored, raw_len)?),
            }
            .map_err(ImageError::Export)?;
            told.bytes_read += u64::from(raw_len);
            told.chunks += 1;
            progress(told);
        }
        to.flush().map_err(ImageError::Export)
    }

    /// The raw bytes of a chunk, checked against both its hashes.
    pub(super) fn raw_chunk(&self, chunk: &StoredChunk, raw_len: u32) -> Result<Bytes, ImageError> {
        let damaged = |why| ImageError::ChunkDamaged { wire: chunk.wire, why };
        let wire = self.wire_chunk(chunk)?;
        let raw = match chunk.encoding {
            Encoding::Raw => wire,
            Encoding::Zstd => zstd::bulk::decompress(&wire, raw_len as usize)
                .map(Bytes::from)
                .map_err(|_| damaged("it cannot be decompressed"))?,
        };
        if raw.len() != raw_len as usize || Hash::of(&raw) != chunk.raw {
            return Err(damaged("its raw bytes have another hash"));
        }
        Ok(raw)
    }
}
