//! Deletes what no image has: manifests without a name and chunks without a manifest, after an add that failed, a
//! removal, or a process that ended in the middle of either. Touches the blobs.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;

use common::id::ImageId;

use super::super::error::ImageError;
use super::super::keys::{UNCLEAN, chunk_key, manifest_key};
use super::{Images, stored};

impl Images {
    /// Marks the store as unclean, before anything unfinished can be in it.
    pub(super) fn mark_unclean(&self) -> Result<(), ImageError> {
        let blobs = &self.0.blobs;
        let write = |source| blobs.not_written("a mark", source);
        blobs.put(UNCLEAN, b"").and_then(|()| blobs.settle()).map_err(write)
    }

    /// Deletes what no image has, unless an add is running: then the last add does it. Returns the bytes freed. If it
    /// fails, it is tried again the next time, because it only costs room on the disk.
    pub(super) fn tidy(&self) -> u64 {
        let mut freed = 0;
        loop {
            let Some(exclusive) = self.0.gate.try_write() else { return freed };
            if self.0.sweep.swap(false, Ordering::SeqCst) {
                match self.sweep() {
                    Ok(bytes) => freed += bytes,
                    Err(error) => {
                        tracing::warn!(%error, "the image store could not be tidied");
                        return freed;
                    }
                }
            }
            if let Err(error) = self.0.blobs.delete(UNCLEAN) {
                tracing::warn!(%error, "the image store stays marked as unclean");
            }
            drop(exclusive);
            // Another thread may have set it while the lock was held, and left because it was.
            if !self.0.sweep.load(Ordering::SeqCst) {
                return freed;
            }
        }
    }

    /// Deletes manifests without a name and chunks without a manifest.
    fn sweep(&self) -> io::Result<u64> {
        if self.0.doubtful {
            tracing::warn!("some image records cannot be read, so nothing is cleared away");
            return Ok(0);
        }
        let named: HashSet<ImageId> = self.list().iter().map(|image| image.id).collect();
        let mut needed = HashSet::new();
        for &id in &named {
            let manifest = self.manifest(id).map_err(io::Error::other)?;
            needed.extend(stored(&manifest).map(|chunk| chunk_key(&chunk.wire)));
            needed.extend(self.delta_keys(id)?);
        }
        needed.extend(named.into_iter().map(manifest_key));
        let mut freed = 0;
        for folder in ["manifests", "deltas", "chunks"] {
            for key in self.0.blobs.list(folder)? {
                if !needed.contains(&key) {
                    freed += self.0.blobs.delete(&key)?;
                }
            }
        }
        Ok(freed)
    }
}
