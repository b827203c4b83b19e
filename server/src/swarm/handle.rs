//! What the rest of the server says to the swarm and hears from it: who is let in, the handle, the facts, and the
//! trait behind which the images are. Touches `common` and `api`; the node behind the handle is in `node`.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use common::chunk::ChunkIndex;
use common::id::{DeploymentId, ImageId, JobId};
use common::manifest::Manifest;
use common::swarm::behaviour::NoNode;
use common::trust::PublicKey;
use common::wire::swarm::{Form, Personality};

use super::limits::{LimitOrder, LineLimits};
use crate::api::shapes::SwarmStatus;

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
/// deployment; once open it stays open until all machines of that deployment have left.
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
    /// The key that the machine made at this boot, under which its agent connects.
    pub key: PublicKey,
    /// The deployment it is part of, whose gate it waits at.
    pub deployment: DeploymentId,
    /// Its job, by which facts name it.
    pub job: JobId,
    /// The image it takes, whose swarm it joins.
    pub image: ImageId,
    /// What a person calls it.
    pub name: String,
    /// Its site: machines of one site are each other's neighbours, and share their first copies.
    pub site: String,
    /// What its OS is given: hostname, keys, user-data. It goes over the control stream, which is encrypted.
    pub personality: Personality,
    /// The gate it waits at; none when its transfer begins at once.
    pub gather: Option<Gather>,
}

/// What happened in the swarm. Sent in order on a bounded channel; the swarm waits for nobody: when that is full, facts
/// queue inside. Of more than 65,536 that wait there for a busy fleet the oldest is dropped, and the log is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwarmFact {
    /// The machine's agent is in the swarm (again, after a cut line).
    Joined {
        /// The machine's job.
        job: JobId,
    },
    /// The gate opened.
    GatherOpened {
        /// Of which machines.
        jobs: Vec<JobId>,
    },
    /// The machine's control stream ended.
    Left {
        /// The machine's job.
        job: JobId,
        /// What ended it, in words.
        cause: String,
    },
    /// The machine's disk is sealed.
    Sealed {
        /// The machine's job.
        job: JobId,
    },
    /// The machine was told that nobody needs it any more.
    Released {
        /// The machine's job.
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
