//! What the server serves on pull streams: the chunks that are leased to whoever asks, and nothing else.
//! Shared between the node, which grants, and the tasks of the streams. Touches the image store; the
//! operating system's page cache is its only cache.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::ImageId;
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
    /// How often each granted chunk may still be sent.
    granted: HashMap<PublicKey, HashMap<ChunkIndex, u8>>,
    sent: HashMap<PublicKey, u64>,
    lost: Vec<Lost>,
}

/// The seeder.
pub(super) struct Seeder {
    source: Arc<dyn ChunkSource>,
    state: Mutex<State>,
    /// The server tells nobody what it holds, so there is never news; kept for the receivers.
    news: watch::Sender<usize>,
}

impl Seeder {
    pub(super) fn new(source: Arc<dyn ChunkSource>) -> Self {
        Self { source, state: Mutex::default(), news: watch::Sender::new(0) }
    }

    // Held for a look-up or an insertion, never over an await or a read.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock())
    }

    /// `agent` takes `image`, of so many chunks.
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

    /// Takes what was sent and what was lost since the last call.
    pub(super) fn take(&self) -> (HashMap<PublicKey, u64>, Vec<Lost>) {
        self.with(|state| (std::mem::take(&mut state.sent), std::mem::take(&mut state.lost)))
    }
}

impl ChunkProvider for Seeder {
    fn open(&self, puller: &PublicKey, image: ImageId) -> Option<(ChunkSet, usize)> {
        let (own, chunks) = self.with(|state| state.images.get(puller).copied())?;
        // Nothing: what may be had from the server is told by leases.
        (own == image).then(|| (ChunkSet::new(chunks), 0))
    }

    fn since(&self, _at: usize, _most: usize) -> Vec<ChunkIndex> {
        vec![]
    }

    fn news(&self) -> watch::Receiver<usize> {
        self.news.subscribe()
    }

    fn frame(&self, puller: &PublicKey, image: ImageId, chunk: ChunkIndex) -> Option<Frame> {
        // Counted before it is read: a reader that hangs up at the last byte has cost us the line as well.
        let may = self.with(|state| {
            let left = state.granted.get_mut(puller)?.get_mut(&chunk)?;
            *left = left.checked_sub(1)?;
            Some(())
        });
        may?;
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

    fn sent(&self, puller: &PublicKey, _chunk: ChunkIndex, bytes: usize, _done: bool) {
        self.with(|state| *state.sent.entry(*puller).or_default() += bytes as u64);
    }
}
