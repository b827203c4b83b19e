//! The raw bytes of an image, out of the chunks at rest. Touches the store.

use std::sync::PoisonError;

use bytes::Bytes;
use common::chunk::ChunkIndex;
use common::id::ImageId;
use common::manifest::Manifest;

use super::error::ImageError;
use super::store::Images;

impl Images {
    /// The image's first chunk: boot code and partition table. The one asked for last is kept, because an order asks
    /// for it once per machine.
    ///
    /// # Errors
    /// When the manifest or the chunk cannot be had.
    pub fn first_bytes(&self, id: ImageId) -> Result<Bytes, ImageError> {
        let kept = self.first_kept();
        if let Some((_, bytes)) =
            kept.lock().unwrap_or_else(PoisonError::into_inner).as_ref().filter(|it| it.0 == id)
        {
            return Ok(bytes.clone());
        }
        let manifest = self.manifest(id)?;
        let bytes = self.raw_at(&manifest, ChunkIndex(0))?;
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, bytes.clone()));
        Ok(bytes)
    }

    fn raw_at(&self, manifest: &Manifest, index: ChunkIndex) -> Result<Bytes, ImageError> {
        let raw_len = manifest.raw_len(index);
        match manifest.stored(index) {
            Some(chunk) => self.raw_chunk(&chunk, raw_len),
            None => Ok(Bytes::from(vec![0; raw_len as usize])),
        }
    }
}
