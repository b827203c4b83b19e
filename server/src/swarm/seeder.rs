//! Serves chunks on pull streams: to each agent those that are leased to it, and nothing else. Shared between the node,
//! which grants, and the tasks of the streams. Touches the image store; the operating system's page cache is its only
//! cache.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{Hash, ImageId};
use common::limits::SENDS_PER_LEASE_MAX;
use common::swarm::serve::{ChunkProvider, Frame};
use common::trust::PublicKey;
use common::wire::swarm::Form;

use super::handle::ChunkSource;

/// A leased chunk that could not be read.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) agent: PublicKey,
    pub(super) image: ImageId,
    pub(super) chunk: ChunkIndex,
    pub(super) cause: String,
}

#[derive(Debug, Default)]
struct State {
    images: HashMap<PublicKey, (ImageId, u32)>,
    /// How many times each granted chunk may still be sent to the agent.
    granted: HashMap<PublicKey, HashMap<ChunkIndex, u8>>,
    sent: HashMap<PublicKey, u64>,
    lost: Vec<Lost>,
}

/// Which chunks may be sent to which agent, and what was sent since the node last asked.
pub(super) struct Seeder {
    source: Arc<dyn ChunkSource>,
    state: Mutex<State>,
    /// Never sends: the server announces no chunks. Kept because `ChunkProvider` hands out receivers.
    news: watch::Sender<usize>,
}

impl Seeder {
    pub(super) fn new(source: Arc<dyn ChunkSource>) -> Self {
        Self { source, state: Mutex::default(), news: watch::Sender::new(0) }
    }

    // Locked for a look-up or an insertion, never across an await or a read.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock())
    }

    /// Lets `agent` open pull streams of `image`, which has so many chunks.
    pub(super) fn take_in(&self, agent: PublicKey, image: ImageId, chunks: u32) {
        self.with(|state| state.images.insert(agent, (image, chunks)));
    }

    pub(super) fn forget(&self, agent: &PublicKey) {
        self.with(|state| {
            state.images.remove(agent);
            state.granted.remove(agent);
        });
    }

    pub(super) fn grant(&self, agent: PublicKey, chunks: &[ChunkIndex]) {
        let each = chunks.iter().map(|chunk| (*chunk, SENDS_PER_LEASE_MAX));
        self.with(|state| state.granted.entry(agent).or_default().extend(each));
    }

    pub(super) fn withdraw(&self, agent: &PublicKey, chunks: &[ChunkIndex]) {
        self.with(|state| {
            if let Some(granted) = state.granted.get_mut(agent) {
                chunks.iter().for_each(|chunk| {
                    granted.remove(chunk);
                });
            }
        });
    }

    /// The bytes sent to each agent and the chunks that could not be read, since the last call.
    pub(super) fn take(&self) -> (HashMap<PublicKey, u64>, Vec<Lost>) {
        self.with(|state| (std::mem::take(&mut state.sent), std::mem::take(&mut state.lost)))
    }
}

impl ChunkProvider for Seeder {
    fn open(&self, puller: &PublicKey, image: ImageId) -> Option<(ChunkSet, usize)> {
        let (own, chunks) = self.with(|state| state.images.get(puller).copied())?;
        // An empty set: agents learn from leases what they may fetch from the server.
        (own == image).then(|| (ChunkSet::new(chunks), 0))
    }

    fn since(&self, _at: usize, _most: usize) -> Vec<ChunkIndex> {
        vec![]
    }

    fn news(&self) -> watch::Receiver<usize> {
        self.news.subscribe()
    }

    fn frame(&self, puller: &PublicKey, image: ImageId, chunk: ChunkIndex) -> Option<Frame> {
        self.send(puller, image, chunk, None)
    }

    fn delta(&self, puller: &PublicKey, image: ImageId, chunk: ChunkIndex, delta: Hash) -> Option<Frame> {
        self.send(puller, image, chunk, Some(delta))
    }

    fn sent(&self, puller: &PublicKey, _chunk: ChunkIndex, bytes: usize, _done: bool) {
        self.with(|state| *state.sent.entry(*puller).or_default() += bytes as u64);
    }
}

impl Seeder {
    fn send(
        &self,
        puller: &PublicKey,
        image: ImageId,
        chunk: ChunkIndex,
        delta: Option<Hash>,
    ) -> Option<Frame> {
        // Counted before it is read: a peer that disconnects at the last byte has cost the server's line as much.
        let may = self.with(|state| {
            let left = state.granted.get_mut(puller)?.get_mut(&chunk)?;
            *left = left.checked_sub(1)?;
            Some(())
        });
        may?;
        if let Some(bytes) = delta.and_then(|delta| self.source.delta(image, chunk, delta)) {
            return Some(Frame { form: Form::Delta, bytes: Arc::new(bytes) });
        }
        match self.source.wire_chunk(image, chunk) {
            Ok(bytes) => Some(Frame { form: Form::Wire, bytes: Arc::new(bytes) }),
            Err(error) => {
                let lost = Lost { agent: *puller, image, chunk, cause: error.to_string() };
                self.with(|state| {
                    state.granted.entry(*puller).or_default().remove(&chunk);
                    state.lost.push(lost);
                });
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use common::manifest::Manifest;
    use common::trust::KeyPair;

    use super::*;

    const IMAGE: ImageId = ImageId(Hash([1; 32]));
    const DELTA: Hash = Hash([7; 32]);

    /// Three chunks, of which the first has a delta and the last cannot be read.
    struct Source;

    impl ChunkSource for Source {
        fn manifest(&self, _: ImageId) -> Option<Arc<Manifest>> {
            None
        }

        fn wire_chunk(&self, image: ImageId, chunk: ChunkIndex) -> std::io::Result<Vec<u8>> {
            let there = image == IMAGE && chunk.0 < 2;
            if there { Ok(vec![1; 100]) } else { Err(std::io::ErrorKind::NotFound.into()) }
        }

        fn delta(&self, image: ImageId, chunk: ChunkIndex, delta: Hash) -> Option<Vec<u8>> {
            (image == IMAGE && chunk == ChunkIndex(0) && delta == DELTA).then(|| vec![2; 10])
        }
    }

    fn key(n: u8) -> PublicKey {
        KeyPair::from_secret([n; 32]).public()
    }

    /// A seeder that may send the first `chunks` chunks to the agent 1.
    fn granted(chunks: u32) -> Seeder {
        let seeder = Seeder::new(Arc::new(Source));
        seeder.take_in(key(1), IMAGE, 3);
        seeder.grant(key(1), &(0..chunks).map(ChunkIndex).collect::<Vec<_>>());
        seeder
    }

    fn sent(seeder: &Seeder, agent: u8, chunk: u32, delta: Option<Hash>) -> Option<(Form, usize)> {
        let (agent, chunk) = (key(agent), ChunkIndex(chunk));
        let frame = match delta {
            Some(delta) => seeder.delta(&agent, IMAGE, chunk, delta),
            None => seeder.frame(&agent, IMAGE, chunk),
        };
        frame.map(|frame| (frame.form, frame.bytes.len()))
    }

    #[test]
    fn a_delta_goes_to_who_names_it_and_where_there_is_none_the_chunk_goes_whole() {
        let seeder = granted(2);
        let whole = Some((Form::Wire, 100));
        assert_eq!(sent(&seeder, 1, 0, None), whole, "who did not ask for a delta cannot decode it");
        let seeder = granted(2);
        assert_eq!(sent(&seeder, 1, 0, Some(DELTA)), Some((Form::Delta, 10)));
        let seeder = granted(2);
        assert_eq!(sent(&seeder, 1, 0, Some(Hash([8; 32]))), whole, "another delta, or a damaged one");
        assert_eq!(sent(&seeder, 1, 1, Some(DELTA)), whole, "a chunk without one");
    }

    #[test]
    fn no_form_is_sent_without_a_lease_or_more_often_than_it_allows() {
        for delta in [None, Some(DELTA)] {
            let seeder = granted(1);
            assert_eq!(sent(&seeder, 2, 0, delta), None, "another agent: {delta:?}");
            assert_eq!(sent(&seeder, 1, 1, delta), None, "another chunk: {delta:?}");
            for _ in 0..SENDS_PER_LEASE_MAX {
                assert!(sent(&seeder, 1, 0, delta).is_some(), "{delta:?}");
            }
            assert_eq!(sent(&seeder, 1, 0, delta), None, "too often: {delta:?}");
            let seeder = granted(1);
            seeder.withdraw(&key(1), &[ChunkIndex(0)]);
            assert_eq!(sent(&seeder, 1, 0, delta), None, "taken back: {delta:?}");
            let seeder = granted(3);
            assert_eq!(sent(&seeder, 1, 2, delta), None);
            let (_, lost) = seeder.take();
            assert_eq!(lost.iter().map(|lost| lost.chunk.0).collect::<Vec<_>>(), [2], "{delta:?}");
        }
    }

    #[test]
    fn only_the_own_image_is_opened() {
        let seeder = granted(1);
        assert!(seeder.open(&key(1), IMAGE).is_some_and(|(held, _)| held.is_empty()));
        assert!(seeder.open(&key(1), ImageId(Hash([2; 32]))).is_none());
        assert!(seeder.open(&key(2), IMAGE).is_none());
        seeder.forget(&key(1));
        assert!(seeder.open(&key(1), IMAGE).is_none());
        assert_eq!(sent(&seeder, 1, 0, None), None);
    }
}
