//! The trait through which the swarm uses what the machine holds of an earlier build of its image. Touches `common`.

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::Hash;
use common::wire::swarm::FromPuller;

/// Decodes a frame over the prefix that it is given, or says in words for the log why not.
pub type OverPrefix<'a> = dyn FnMut(&[u8]) -> Result<Vec<u8>, String> + 'a;

/// Deltas that this machine can decode, because it holds their bases. Called on blocking threads, but for
/// [`DeltaBases::usable`].
pub trait DeltaBases: Send + Sync + 'static {
    /// The chunks whose deltas can be decoded now.
    fn chunks(&self) -> ChunkSet;
    /// The hash of the delta of `chunk`, if it can be decoded now. Short: no disk is read.
    fn usable(&self, chunk: ChunkIndex) -> Option<Hash>;
    /// Hash and length of the delta of `chunk` by the image's table, whether it can be decoded or not.
    fn known(&self, chunk: ChunkIndex) -> Option<(Hash, u32)>;
    /// Calls `over` with the bases of the delta of `chunk`, one after the other, each checked by its hash. Few calls run
    /// at once, because a prefix takes memory.
    ///
    /// # Errors
    /// When one is not there any more, in words for the log, or `over` fails.
    fn decode(&self, chunk: ChunkIndex, over: &mut OverPrefix<'_>) -> Result<Vec<u8>, String>;
    /// The delta of `chunk` did not give it: from now on it is not usable.
    fn refuse(&self, chunk: ChunkIndex);
}

/// The request for `chunk`: as a delta where that can be decoded.
pub(super) fn request_for(chunk: ChunkIndex, deltas: Option<&dyn DeltaBases>) -> FromPuller {
    match deltas.and_then(|deltas| deltas.usable(chunk)) {
        Some(delta) => FromPuller::GetDelta { chunk, delta },
        None => FromPuller::Get { chunk },
    }
}
