//! What the rest of the server says to the swarm and hears from it: the handle, the facts, the status, and
//! the trait behind which the images are. Touches `common`; the node behind the handle is in `node`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use common::chunk::ChunkIndex;
use common::id::{DeploymentId, ImageId, JobId};
use common::manifest::Manifest;
use common::swarm::behaviour::NoNode;
use common::trust::PublicKey;
use common::wire::swarm::{Bottleneck, Form, Personality};

use super::limits::{LimitOrder, LineLimits};

/// Where the images are. Both calls may read a disk; the swarm makes them off its task.
pub trait ChunkSource: Send + Sync + 'static {
    /// The manifest of `image`, if it is here.
    fn manifest(&self, image: ImageId) -> Option<Arc<Manifest>>;
    /// The wire form of `chunk`, exactly as its manifest has it.
    ///
    /// # Errors
    /// When it is not here or cannot be read.
    fn wire_chunk(&self, image: ImageId, chunk: ChunkIndex) -> std::io::Result<Vec<u8>>;
    /// Puts a damaged chunk right from what it was made from, if that is still there.
    ///
    /// # Errors
    /// When it cannot be had from there.
    fn mend(&self, _image: ImageId, _chunk: ChunkIndex) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    /// Puts a damaged chunk right with `bytes` that a machine had; nothing is believed of them.
    ///
    /// # Errors
    /// When they are not the chunk, or cannot be kept.
    fn mend_with(
        &self,
        _image: ImageId,
        _chunk: ChunkIndex,
        _form: Form,
        _bytes: Vec<u8>,
    ) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// A gate before the transfer: it opens when enough machines have arrived or the time is up. One gate per
/// deployment; once open it stays open until everybody of that has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gather {
    /// Machines that are waited for.
    pub wanted: u32,
    /// Seconds from the first arrival until it opens anyway.
    pub seconds: u64,
}

/// One machine that may take part, in the fleet's words. The same key again replaces what was said before.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The machine's key of this boot.
    pub key: PublicKey,
    /// The order it is part of, whose gate it waits at.
    pub deployment: DeploymentId,
    /// Its job.
    pub job: JobId,
    /// The image it takes.
    pub image: ImageId,
    /// What a person calls it.
    pub name: String,
    /// Its site.
    pub site: String,
    /// What its OS is given.
    pub personality: Personality,
    /// The gate it waits at, if any.
    pub gather: Option<Gather>,
}

/// What happened in the swarm. Sent on a bounded channel; the swarm waits for nobody, but facts are never
/// dropped: they queue inside, one per thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwarmFact {
    /// The machine's agent is in the swarm (again, after a cut line).
    Joined {
        /// Its job.
        job: JobId,
    },
    /// The gate opened.
    GatherOpened {
        /// Of which machines.
        jobs: Vec<JobId>,
    },
    /// The machine's control stream ended.
    Left {
        /// Its job.
        job: JobId,
        /// What ended it, in words.
        cause: String,
    },
    /// The machine's disk is sealed.
    Sealed {
        /// Its job.
        job: JobId,
    },
    /// The machine was told that nobody needs it any more.
    Released {
        /// Its job.
        job: JobId,
    },
    /// A chunk failed its hash.
    Corrupt {
        /// Whose agent found it.
        by: JobId,
        /// Whose agent sent it; none when it is not in the swarm any more.
        from: Option<JobId>,
        /// Which chunk.
        chunk: ChunkIndex,
    },
    /// The machines get nothing from each other and are served by the server alone.
    Starving {
        /// Whose agent.
        job: JobId,
    },
    /// A chunk could not be read from the image store: it is leased to nobody until it is mended.
    ChunkLost {
        /// Of which image.
        image: ImageId,
        /// Which chunk.
        chunk: ChunkIndex,
        /// What is wrong with its bytes.
        cause: String,
    },
    /// A chunk that could not be read is there again.
    ChunkMended {
        /// Of which image.
        image: ImageId,
        /// Which chunk.
        chunk: ChunkIndex,
        /// The machine that had it; none when the store did, after all or again.
        from: Option<JobId>,
    },
}

/// One agent in the swarm, as `swarm status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its job.
    pub job: JobId,
    /// What a person calls its machine.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Whether its control stream is up.
    pub connected: bool,
    /// Chunks it can serve.
    pub held: u32,
    /// Chunks leased to it.
    pub leased: u32,
    /// Wire bytes that the server sent it.
    pub from_server: u64,
    /// Wire bytes that peers sent it, by its own count.
    pub from_peers: u64,
    /// Wire bytes that it sent to peers, by its own count.
    pub sent: u64,
    /// Whether its disk is sealed.
    pub sealed: bool,
    /// What held it up when it last reported; none when it fetched nothing.
    pub bottleneck: Option<Bottleneck>,
}

/// One image's swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmStatus {
    /// The image.
    pub image: ImageId,
    /// Chunks that have to be fetched by a blank machine.
    pub chunks: u32,
    /// Wire bytes of one copy.
    pub wire_bytes: u64,
    /// Wire bytes of the image that left the server so far.
    pub injected_bytes: u64,
    /// Its agents.
    pub nodes: Vec<NodeStatus>,
}

/// The swarm has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the swarm is stopping")]
pub struct Stopped;

/// Why the swarm does not run.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// No node.
    #[error("the swarm cannot start")]
    Node(#[from] NoNode),
}

/// What the node is asked for.
#[derive(Debug)]
pub(super) enum Command {
    Admit(Box<Admission>),
    Expel { key: PublicKey, reason: Option<String> },
    IsHere(PublicKey, oneshot::Sender<bool>),
    Status(oneshot::Sender<Vec<SwarmStatus>>),
    Limit(Option<LimitOrder>, oneshot::Sender<LineLimits>),
}

/// The way to the swarm's task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SwarmHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) addresses: Arc<[String]>,
}

impl SwarmHandle {
    /// Lets a machine in.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub async fn admit(&self, admission: Admission) -> Result<(), Stopped> {
        self.commands.send(Command::Admit(Box::new(admission))).await.map_err(|_| Stopped)
    }

    /// Lets the machine with this key in no more. With a reason its agent is told to stop; without one it may go if its
    /// disk is whole, and is told that its job is over if not.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub async fn expel(&self, key: PublicKey, reason: Option<String>) -> Result<(), Stopped> {
        self.commands.send(Command::Expel { key, reason }).await.map_err(|_| Stopped)
    }

    /// Whether the agent with this key is connected.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub async fn is_here(&self, key: PublicKey) -> Result<bool, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::IsHere(key, reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Who has what.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub async fn status(&self) -> Result<Vec<SwarmStatus>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Status(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// The limits of the lines, after `order` has been carried out.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub async fn limit(&self, order: Option<LimitOrder>) -> Result<LineLimits, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Limit(order, reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Where the swarm listens, as multiaddrs: what a plan's seed is made from.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}
