//! The steps' interface to the swarm: its configuration, the client, its two output channels, and the trait
//! through which it reads the disk. Touches `common`; the client's task and `SwarmClient::start` are in `node`.

use std::sync::Arc;

use libp2p::Multiaddr;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::ImageId;
use common::manifest::Manifest;
use common::plan::{Seed, Tuning};
use common::step::Sources;
use common::swarm::behaviour::NoNode;
use common::swarm::serve::Frame;
use common::swarm::splitmix;
use common::trust::{KeyPair, PublicKey};
use common::wire::swarm::{Form, Member};

use super::deltas::DeltaBases;
use super::event::SwarmEvent;
use super::session::SessionConfig;
use super::verify::VerifiedChunk;
use crate::boot_files::BootFiles;

/// Reads chunks back from the disk that are no longer in memory. Called on blocking threads, not on the swarm's task.
pub trait HeldChunks: Send + Sync + 'static {
    /// The raw bytes of `chunk`, which [`SwarmClient::held`] was told of. They need not be checked here: the peer
    /// that receives them checks them.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&self, chunk: ChunkIndex) -> std::io::Result<Vec<u8>>;

    /// The chunk in the form in which it is sent to peers: raw, unless the disk keeps the wire form.
    ///
    /// # Errors
    /// When it cannot be read.
    fn frame(&self, chunk: ChunkIndex) -> std::io::Result<Frame> {
        Ok(Frame { form: Form::Raw, bytes: Arc::new(self.read(chunk)?) })
    }
}

/// What a machine brings to the swarm: keys, image, addresses, bounds and the chunks that it has already.
pub struct SwarmConfig {
    /// The machine's boot key, made anew at each boot.
    pub keypair: KeyPair,
    /// The job of the plan, or that this is a relay; sent in the hello, for the server knows the machine by it.
    pub member: Member,
    /// The name of the image, by which peers ask for its chunks.
    pub image: ImageId,
    /// The image's manifest, checked against its name.
    pub manifest: Arc<Manifest>,
    /// The server's key and where it listens, as the plan has it.
    pub seed: Seed,
    /// Where to listen for peers, as a multiaddr such as `/ip4/0.0.0.0/tcp/4001`.
    pub listen: String,
    /// Bounds on memory and on parallel transfers, from the plan.
    pub tuning: Tuning,
    /// Chunks that the disk holds already and [`HeldChunks::read`] can give.
    pub held: ChunkSet,
    /// Reads back chunks that are no longer in memory.
    pub disk: Arc<dyn HeldChunks>,
    /// Whether chunks are handed over with the wire form that they came in, for a disk that keeps that: each takes its
    /// wire length more of memory while it waits to be written.
    pub keep_wire: bool,
    /// Peers that may connect before the server has named any: a relay that is started while the server is gone serves
    /// whom it was told of before.
    pub admitted: Vec<PublicKey>,
    /// The small files that this machine gives out; none if it does not.
    pub boot_files: Option<BootFiles>,
    /// The deltas that it can decode; none when it holds no earlier build of the image.
    pub deltas: Option<Arc<dyn DeltaBases>>,
}

impl SwarmConfig {
    /// What its session is made of; `listening` is where it listens, and so many chunks may wait to be written.
    pub(super) fn session(
        &self,
        seed_addresses: Vec<Multiaddr>,
        listening: &[Multiaddr],
        write_backlog: usize,
    ) -> SessionConfig {
        let own = self.keypair.public();
        let mut wanted = ChunkSet::new(self.manifest.len());
        self.manifest.places().into_keys().for_each(|chunk| {
            wanted.insert(chunk);
        });
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        SessionConfig {
            own,
            seed: self.seed.key,
            seed_addresses,
            listening: listening.iter().map(ToString::to_string).collect(),
            member: self.member,
            image: self.image,
            wanted,
            deltas: self.deltas.as_ref().map_or_else(|| ChunkSet::new(0), |deltas| deltas.chunks()),
            fetch_parallel: self.tuning.fetch_parallel.max(1) as usize,
            upload_parallel: self.tuning.upload_parallel as usize,
            write_backlog,
            cores: u32::try_from(cores).unwrap_or(1),
            rng_seed: splitmix::seed(&own.bytes()),
        }
    }
}

impl std::fmt::Debug for SwarmConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwarmConfig")
            .field("member", &self.member)
            .field("image", &self.image)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Why an agent cannot join the swarm.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// The libp2p node could not be built, or cannot listen.
    #[error("the agent cannot take part in the swarm")]
    Node(#[from] NoNode),
    /// None of the server's addresses in the plan is a multiaddr.
    #[error("the plan names no usable address of the server")]
    Seed,
}

/// The two channels out of the swarm. Whoever holds them must read both.
#[derive(Debug)]
pub struct SwarmEnds {
    /// Verified chunks, each once, in the order in which they came. Not reading pauses fetching once
    /// `write_backlog` chunks wait; it never pauses sending to peers.
    pub chunks: mpsc::Receiver<VerifiedChunk>,
    /// Progress and log lines; when too many of them are unread, the oldest is dropped.
    pub events: mpsc::Receiver<SwarmEvent>,
}

/// What the client tells the node's task.
#[derive(Debug)]
pub(super) enum Command {
    Held(Vec<ChunkIndex>),
    Sealed,
}

/// A handle of the swarm's task. Dropping it cancels the task; [`SwarmClient::stop`] also waits for its end.
#[derive(Debug)]
pub struct SwarmClient {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) sources: Arc<Mutex<Sources>>,
    pub(super) cancel: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl SwarmClient {
    /// Tells the swarm that these chunks are on the disk, written or found there, and that [`HeldChunks::read`] can
    /// give them. Chunks that were found are not fetched any more.
    pub async fn held(&self, chunks: Vec<ChunkIndex>) {
        // Fails only when the node's task has ended, which needs no chunks any more.
        self.commands.send(Command::Held(chunks)).await.ok();
    }

    /// Tells the swarm that the disk is sealed: from now on this agent only serves peers.
    pub async fn sealed(&self) {
        self.commands.send(Command::Sealed).await.ok();
    }

    /// Where the bytes came from so far. `disk` and `unsent` are left at 0 here: others fill them in.
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
