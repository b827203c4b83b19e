//! What the steps say to the swarm and hear from it: the configuration, the client, and the trait behind which
//! the disk is. Touches `common`; the node behind the client, and `SwarmClient::start`, are in `node`.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{ImageId, JobId};
use common::manifest::Manifest;
use common::plan::{Seed, Tuning};
use common::step::Sources;
use common::swarm::behaviour::NoNode;
use common::trust::KeyPair;

use super::event::SwarmEvent;
use super::verify::VerifiedChunk;

/// The disk, for chunks that are on it and no longer in memory. The swarm calls it off its task.
pub trait HeldChunks: Send + Sync + 'static {
    /// The raw bytes of `chunk`, which [`SwarmClient::held`] was told of. They need not be checked: whoever
    /// gets them does.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&self, chunk: ChunkIndex) -> std::io::Result<Vec<u8>>;
}

/// What a machine brings to the swarm.
pub struct SwarmConfig {
    /// The machine's key of this boot.
    pub keypair: KeyPair,
    /// The job that the plan is of: the server knows the machine by it.
    pub job: JobId,
    /// The name of the image, by which peers ask for its chunks.
    pub image: ImageId,
    /// The image's manifest, checked against its name.
    pub manifest: Arc<Manifest>,
    /// The server's key and where it listens, as the plan has it.
    pub seed: Seed,
    /// Where to listen for peers, as a multiaddr such as `/ip4/0.0.0.0/tcp/4001`.
    pub listen: String,
    /// Memory and parallelism.
    pub tuning: Tuning,
    /// Chunks that the disk holds already and [`HeldChunks::read`] can give.
    pub held: ChunkSet,
    /// Gives chunks that are no longer in memory.
    pub disk: Arc<dyn HeldChunks>,
}

impl std::fmt::Debug for SwarmConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwarmConfig")
            .field("job", &self.job)
            .field("image", &self.image)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Why an agent is not in the swarm.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// No node.
    #[error("the agent cannot take part in the swarm")]
    Node(#[from] NoNode),
    /// The server's address in the plan is none.
    #[error("the plan names no usable address of the server")]
    Seed,
}

/// The two streams out of the swarm. Whoever holds them must read both.
#[derive(Debug)]
pub struct SwarmEnds {
    /// Verified chunks, each once, in the order in which they came. Not reading pauses fetching once
    /// `write_backlog` chunks wait; it never pauses sending to peers.
    pub chunks: mpsc::Receiver<VerifiedChunk>,
    /// What happens.
    pub events: mpsc::Receiver<SwarmEvent>,
}

/// What the node is told.
#[derive(Debug)]
pub(super) enum Command {
    Held(Vec<ChunkIndex>),
    Sealed,
}

/// This machine's part in the swarm. Dropping it ends it at once; [`SwarmClient::stop`] ends it in order.
#[derive(Debug)]
pub struct SwarmClient {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) sources: Arc<Mutex<Sources>>,
    pub(super) cancel: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl SwarmClient {
    /// These chunks are on the disk now, and [`HeldChunks::read`] can give them: written, or found there.
    /// Found ones are not fetched any more.
    pub async fn held(&self, chunks: Vec<ChunkIndex>) {
        // A node that has ended has nobody to tell.
        self.commands.send(Command::Held(chunks)).await.ok();
    }

    /// The disk is sealed: this agent only serves now.
    pub async fn sealed(&self) {
        self.commands.send(Command::Sealed).await.ok();
    }

    /// Where the bytes came from so far. `disk` and `unsent` are the disk part's to fill in.
    #[must_use]
    pub fn sources(&self) -> Sources {
        *self.sources.lock()
    }

    /// Leaves the swarm and waits until every task has ended.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        // A task that panicked has ended, too; its panic was printed.
        (&mut self.task).await.ok();
    }
}

impl Drop for SwarmClient {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
