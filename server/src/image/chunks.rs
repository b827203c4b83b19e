//! The store as the swarm's source of chunks. A read that fails only because files or memory are short is retried here,
//! so that the swarm does not report the chunk as lost. Touches the store; blocks.

use std::io;
use std::sync::Arc;

use common::chunk::ChunkIndex;
use common::id::{Hash, ImageId};
use common::manifest::Manifest;
use common::wire::swarm::Form;

use super::scarce;
use super::store::Images;
use crate::swarm::ChunkSource;

impl ChunkSource for Images {
    fn manifest(&self, image: ImageId) -> Option<Arc<Manifest>> {
        self.manifest(image).ok()
    }

    fn wire_chunk(&self, image: ImageId, chunk: ChunkIndex) -> io::Result<Vec<u8>> {
        let manifest = self.manifest(image).map_err(io::Error::other)?;
        let stored = manifest.stored(chunk).ok_or(io::ErrorKind::NotFound)?;
        scarce::patiently(|| self.wire_chunk(&stored)).map(Vec::from)
    }

    fn delta(&self, image: ImageId, chunk: ChunkIndex, delta: Hash) -> Option<Vec<u8>> {
        self.delta_frame(image, chunk, delta)
    }

    fn mend(&self, image: ImageId, chunk: ChunkIndex) -> io::Result<()> {
        self.mend(image, chunk).map_err(io::Error::other)
    }

    fn mend_with(&self, image: ImageId, chunk: ChunkIndex, form: Form, bytes: Vec<u8>) -> io::Result<()> {
        self.mend_with(image, chunk, form, bytes).map_err(io::Error::other)
    }
}
