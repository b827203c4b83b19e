//! The trait through which the swarm uses what the machine holds of an earlier build of its image. Touches `common`.

use common::chunk::{ChunkIndex, ChunkSet};
use common::deltas::DeltaSet;
use common::id::Hash;
use common::limits::CHUNK_BYTES;
use common::wire::swarm::FromPuller;
use parking_lot::Mutex;

/// Decodes a frame over the prefix that it is given, or says in words for the log why not.
pub type OverPrefix<'a> = dyn FnMut(&[u8]) -> Result<Vec<u8>, String> + 'a;

/// Deltas that this machine can decode, because it holds their bases. Called on blocking threads, but for
/// [`DeltaBases::usable`].
pub trait DeltaBases: Send + Sync + 'static {
    /// The chunks whose deltas can be decoded now.
    fn chunks(&self) -> ChunkSet;
    /// The hash of the delta of `chunk`, if it can be decoded now. Short: no disk is read.
    fn usable(&self, chunk: ChunkIndex) -> Option<Hash>;
    /// The deltas of the image over the one earlier build that this machine holds, by the image's table.
    fn set(&self) -> &DeltaSet;
    /// The bytes of a base, by its number in [`DeltaBases::set`], checked by its hash.
    ///
    /// # Errors
    /// When it is not there any more, in words for the log.
    fn base(&self, number: u32) -> Result<Vec<u8>, String>;
    /// Held while a prefix is in memory with what is decoded over it: 32 chunks may arrive at once.
    fn decoding(&self) -> &Mutex<()>;
    /// The delta of `chunk` did not give it: from now on it is not usable.
    fn refuse(&self, chunk: ChunkIndex);

    /// Hash and length of the delta of `chunk` by the image's table, whether it can be decoded or not.
    fn known(&self, chunk: ChunkIndex) -> Option<(Hash, u32)> {
        self.set().deltas.get(&chunk).map(|delta| (delta.wire, delta.wire_len))
    }

    /// Calls `over` with the bases of the delta of `chunk`, one behind the other. One call runs at a time.
    ///
    /// # Errors
    /// When a base is not there any more, in words for the log, or `over` fails.
    fn decode(&self, chunk: ChunkIndex, over: &mut OverPrefix<'_>) -> Result<Vec<u8>, String> {
        let delta = self.set().deltas.get(&chunk).ok_or("it has no delta")?;
        let _alone = self.decoding().lock();
        let mut prefix = Vec::with_capacity(delta.bases.len() * CHUNK_BYTES as usize);
        for base in &delta.bases {
            prefix.extend_from_slice(&self.base(*base)?);
        }
        over(&prefix)
    }
}

/// The request for `chunk`: as a delta where that can be decoded.
pub(super) fn request_for(chunk: ChunkIndex, deltas: Option<&dyn DeltaBases>) -> FromPuller {
    match deltas.and_then(|deltas| deltas.usable(chunk)) {
        Some(delta) => FromPuller::GetDelta { chunk, delta },
        None => FromPuller::Get { chunk },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use common::deltas::Delta;
    use common::id::ImageId;

    use super::*;

    /// One chunk with a delta, until that is refused.
    struct One {
        set: DeltaSet,
        refused: AtomicBool,
        decoding: Mutex<()>,
    }

    impl DeltaBases for One {
        fn chunks(&self) -> ChunkSet {
            ChunkSet::new(2)
        }
        fn usable(&self, chunk: ChunkIndex) -> Option<Hash> {
            self.known(chunk).filter(|_| !self.refused.load(Ordering::Relaxed)).map(|(wire, _)| wire)
        }
        fn set(&self) -> &DeltaSet {
            &self.set
        }
        fn base(&self, _: u32) -> Result<Vec<u8>, String> {
            Ok(vec![])
        }
        fn decoding(&self) -> &Mutex<()> {
            &self.decoding
        }
        fn refuse(&self, _: ChunkIndex) {
            self.refused.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_delta_is_asked_for_where_it_can_be_decoded_and_not_after_it_was_refused() {
        let (chunk, other) = (ChunkIndex(1), ChunkIndex(0));
        let delta = Delta { wire: Hash([7; 32]), wire_len: 9, bases: vec![0] };
        let set = DeltaSet {
            from: ImageId(Hash([1; 32])),
            bases: vec![],
            deltas: BTreeMap::from([(chunk, delta)]),
        };
        let one = One { set, refused: AtomicBool::default(), decoding: Mutex::default() };
        let asks = |chunk| request_for(chunk, Some(&one));
        assert_eq!(asks(chunk), FromPuller::GetDelta { chunk, delta: Hash([7; 32]) });
        assert_eq!(asks(other), FromPuller::Get { chunk: other });
        assert_eq!(request_for(chunk, None), FromPuller::Get { chunk });
        one.refuse(chunk);
        assert_eq!(asks(chunk), FromPuller::Get { chunk }, "whole from now on");
    }
}
