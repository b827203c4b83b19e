//! The interface between the swarm and the rest of the server: the handle, admissions, the facts that the swarm
//! reports, and the trait through which it reads images. Touches `common` and `api`; the node behind the handle is in
//! `node`.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use common::chunk::ChunkIndex;
use common::id::{DeploymentId, Hash, ImageId, JobId};
use common::manifest::Manifest;
use common::swarm::behaviour::NoNode;
use common::trust::PublicKey;
use common::wire::swarm::{Form, Member, Personality};

use crate::api::shapes::SwarmStatus;
use crate::api::shapes::live::SwarmDetail;
use crate::api::shapes::maps::SwarmMaps;

/// Reads and repairs the chunks of images. Every call may block on a disk; the swarm makes them off its own task.
pub trait ChunkSource: Send + Sync + 'static {
    /// The manifest of `image`; `None` if the server does not have that image.
    fn manifest(&self, image: ImageId) -> Option<Arc<Manifest>>;
    /// The wire form of `chunk`, exactly as its manifest has it.
    ///
    /// # Errors
    /// When it is not here or cannot be read.
    fn wire_chunk(&self, image: ImageId, chunk: ChunkIndex) -> std::io::Result<Vec<u8>>;
    /// The frame `delta` of the delta of `chunk`; `None` (the default) when there is no such delta, or it is damaged.
    fn delta(&self, _image: ImageId, _chunk: ChunkIndex, _delta: Hash) -> Option<Vec<u8>> {
        None
    }
    /// Repairs a damaged chunk from the file that the image was made from, if that is still there.
    ///
    /// # Errors
    /// When the file is gone, changed or unreadable, or the implementation repairs nothing (the default).
    fn mend(&self, _image: ImageId, _chunk: ChunkIndex) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    /// Repairs a damaged chunk with `bytes` that a machine sent. They are untrusted: the implementation checks the
    /// hash.
    ///
    /// # Errors
    /// When they are not the chunk, or cannot be stored.
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
    /// The gate opens when so many machines have arrived.
    pub wanted: u32,
    /// Seconds from the first arrival until it opens anyway.
    pub seconds: u64,
}

/// One machine or relay that may take part, as the fleet describes it. A second admission with the same key replaces the
/// first.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The key that the machine made at this boot, or the relay for this image, under which it connects.
    pub key: PublicKey,
    /// The image it takes, whose swarm it joins.
    pub image: ImageId,
    /// Its name in the log, in `swarm status` and for its peers.
    pub name: String,
    /// Its site: machines of one site are each other's neighbours, and share their first copies.
    pub site: String,
    /// What it takes part as.
    pub part: Part,
}

/// What a member of a swarm takes part as.
#[derive(Debug, Clone)]
pub enum Part {
    /// A machine, whose disk the image is written to.
    Machine(Box<MachinePart>),
    /// A site's relay: it holds chunks for good, its neighbours are all machines of its site, and nobody waits for it.
    Relay,
}

/// What only a machine has in a swarm.
#[derive(Debug, Clone)]
pub struct MachinePart {
    /// The deployment it is part of, whose gate it waits at.
    pub deployment: DeploymentId,
    /// Its job, by which facts name it.
    pub job: JobId,
    /// What its OS is given: hostname, keys, user-data. It goes over the control stream, which is encrypted.
    pub personality: Personality,
    /// The gate it waits at; none when its transfer begins at once.
    pub gather: Option<Gather>,
}

impl Admission {
    /// What it has as a machine; `None` for a relay.
    #[must_use]
    pub fn machine(&self) -> Option<&MachinePart> {
        match &self.part {
            Part::Machine(machine) => Some(machine),
            Part::Relay => None,
        }
    }

    /// The job, by which facts name it; `None` for a relay.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        self.machine().map(|machine| machine.job)
    }

    /// What its hello has to say.
    pub(super) fn member(&self) -> Member {
        self.job().map_or(Member::Relay, Member::Job)
    }

    /// How facts name it.
    pub(super) fn party(&self) -> Party {
        self.job().map_or_else(|| Party::Relay(self.name.clone()), Party::Job)
    }
}

/// A member of a swarm, as facts name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// The machine with this job.
    Job(JobId),
    /// The relay of this name.
    Relay(String),
}

/// What happened in the swarm. Sent in order on a bounded channel; the swarm waits for nobody: when that is full, facts
/// queue inside. Of more than 65,536 that wait there for a busy fleet the oldest is dropped, and the log is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwarmFact {
    /// The machine's agent has connected to the swarm, for the first time or again.
    Joined {
        /// The machine's job.
        job: JobId,
    },
    /// The gate opened.
    GatherOpened {
        /// The jobs of the machines that waited at it, ascending.
        jobs: Vec<JobId>,
    },
    /// The machine's control stream ended.
    Left {
        /// The machine's job.
        job: JobId,
        /// What ended it, for the log.
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
        /// Who found it.
        by: Party,
        /// Who sent it; `None` when that is not in the swarm any more.
        from: Option<Party>,
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
    /// An agent gets nothing from its peers although they have what it lacks: the server sends it the chunks directly.
    Starving {
        /// The job of the agent that gets nothing from its peers.
        job: JobId,
    },
    /// A chunk could not be read from the image store: it is leased to nobody until it is mended.
    ChunkLost {
        /// The image that it is part of.
        image: ImageId,
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
        /// What reading it failed with.
        cause: String,
    },
    /// A chunk that could not be read is there again.
    ChunkMended {
        /// The image that it is part of.
        image: ImageId,
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
        /// Who sent it; `None` when the store could read it again or repaired it from its source.
        from: Option<Party>,
    },
}

/// The swarm's task has ended, so nothing can be asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the swarm is stopping")]
pub struct Stopped;

/// Why the swarm does not run.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// No libp2p node could be built, or its address cannot be listened on.
    #[error("the swarm cannot start")]
    Node(#[from] NoNode),
}

/// A request to the node's task; those with a sender are answered on it.
#[derive(Debug)]
pub(super) enum Command {
    Admit(Box<Admission>),
    Expel { key: PublicKey, reason: Option<String> },
    IsHere(PublicKey, oneshot::Sender<bool>),
    Status(oneshot::Sender<Vec<SwarmStatus>>),
    Detail(ImageId, oneshot::Sender<Option<SwarmDetail>>),
    Maps(ImageId, Option<String>, oneshot::Sender<Option<SwarmMaps>>),
}

/// Sends requests to the swarm's task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SwarmHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) addresses: Arc<[String]>,
}

impl SwarmHandle {
    /// Admits a machine: from now on its agent may connect.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub async fn admit(&self, admission: Admission) -> Result<(), Stopped> {
        self.commands.send(Command::Admit(Box::new(admission))).await.map_err(|_| Stopped)
    }

    /// Ends the admission of the machine with this key. With a reason its agent is told to cancel; without one it is
    /// released if its disk is sealed, and else cancelled because its job is over.
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

    /// The state of every image's swarm: its machines and what each holds.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub async fn status(&self) -> Result<Vec<SwarmStatus>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Status(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// The swarm of `image` with the chunks that each member holds; `None` when it has no member.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub async fn detail(&self, image: ImageId) -> Result<Option<SwarmDetail>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Detail(image, reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Who holds which chunks in the swarm of `image`, whole or what changed since the answer whose mark `since` is; `None`
    /// when it has no member.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub async fn maps(&self, image: ImageId, since: Option<String>) -> Result<Option<SwarmMaps>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Maps(image, since, reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Where the swarm listens, as multiaddrs; a plan's seed is made from these.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}
