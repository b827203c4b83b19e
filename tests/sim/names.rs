//! The ids and keys in the world: of the server, the machines and the image. Owns them; touches nothing.

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{Hash, ImageId, JobId};
use common::trust::{KeyPair, PublicKey};

/// The image of all worlds.
pub(crate) const IMAGE: ImageId = ImageId(Hash([1; 32]));

/// The job of the machine with this number.
pub(crate) fn job(number: usize) -> JobId {
    JobId(number as u64)
}

/// The key of the machine with this number; the server's has the highest number.
pub(crate) fn key(number: usize) -> PublicKey {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&(number as u64).to_le_bytes());
    KeyPair::from_secret(secret).public()
}

/// All chunks of an image with `chunks` chunks.
pub(crate) fn full(chunks: u32) -> ChunkSet {
    let mut set = ChunkSet::new(chunks);
    (0..chunks).for_each(|chunk| {
        set.insert(ChunkIndex(chunk));
    });
    set
}
