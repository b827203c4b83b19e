//! What the steps share: the plan, the disk, the part in the swarm. One step after the other owns it, so
//! nothing in here is locked. Knows no step's file; which file is whose stands in `dispatch`.

use std::sync::Arc;
use std::time::Duration;

use common::chunk::ChunkSet;
use common::hardware::Disk;
use common::manifest::{Chunk, Manifest};
use common::plan::Plan;
use common::step::{Sources, Step};
use common::trust::KeyPair;
use common::wire::swarm::Personality;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::StepError;
use super::membership::{Heard, Membership};
use super::run::EventSink;
use crate::disk::device::Device;
use crate::disk::held::Held;
use crate::disk::seal::Seal;
use crate::fetch::Server;
use crate::swarm::SwarmConfig;

/// How often a step that waits looks around.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// With what the plan is carried out.
#[derive(Clone)]
pub(super) struct Context {
    /// Where the manifest comes from.
    pub(super) server: Server,
    /// The key of this boot.
    pub(super) key: KeyPair,
    /// Where events go.
    pub(super) sink: Arc<dyn EventSink>,
    /// The disks as they were when the attempt began; the plan means one of them.
    pub(super) disks: Vec<Disk>,
    /// Where to listen for peers, as a multiaddr.
    pub(super) listen: String,
    /// Ends the job where that is safe.
    pub(super) cancel: CancellationToken,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// The opened target and what is on it. There from `join` on.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) device: Arc<dyn Device>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) held: Held,
    /// Raw bytes that were on the disk already, and that are never sent.
    pub(super) disk_bytes: u64,
    pub(super) unsent_bytes: u64,
    /// Whether the old partition table has been cleared.
    pub(super) cleared: bool,
}

impl Target {
    /// `already` is on the disk.
    pub(super) fn new(device: Arc<dyn Device>, manifest: Arc<Manifest>, already: ChunkSet) -> Self {
        let places = manifest.places();
        let (mut disk_bytes, mut unsent_bytes) = (0, 0);
        for (index, chunk) in manifest.iter() {
            let bytes = u64::from(manifest.raw_len(index));
            if already.contains(index) {
                disk_bytes += bytes;
            } else if chunk == Chunk::Zero || !places.contains_key(&index) {
                unsent_bytes += bytes;
            }
        }
        let held = Held::new(Arc::clone(&device), Arc::clone(&manifest), already);
        Self { device, manifest, held, disk_bytes, unsent_bytes, cleared: false }
    }
}

/// One job on this machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) plan: Plan,
    pub(super) context: Context,
    pub(super) target: Option<Target>,
    pub(super) membership: Option<Membership>,
    /// What the memberships before this one brought.
    pub(super) before: Sources,
    /// What the server wants the installed OS to be given.
    pub(super) personality: Option<Personality>,
    pub(super) seal: Option<Seal>,
    pub(super) sealed: bool,
    now: watch::Sender<Step>,
}

impl Machine {
    /// A machine that is to carry out `plan`.
    #[must_use]
    pub(super) fn new(plan: Plan, context: Context) -> Self {
        let (now, _) = watch::channel(Step::Join);
        Self {
            plan,
            context,
            target: None,
            membership: None,
            before: Sources::default(),
            personality: None,
            seal: None,
            sealed: false,
            now,
        }
    }

    /// Whether the disk was sealed: it boots the new OS, whatever failed afterwards.
    #[must_use]
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Leaves the swarm, if the job ended before it did.
    pub(super) async fn leave(&mut self) {
        if let Some(membership) = self.membership.take() {
            self.before = sum(self.before, membership.sources());
            membership.leave().await;
        }
    }

    /// What was heard is told under `step` from now on.
    ///
    /// # Errors
    /// When the job was cancelled before it.
    pub(super) fn begin(&self, step: &Step) -> Result<(), StepError> {
        self.now.send_replace(step.clone());
        self.check_cancelled()
    }

    pub(super) fn target(&mut self) -> Result<&mut Target, StepError> {
        self.target.as_mut().ok_or(StepError::NotJoined)
    }

    pub(super) fn membership(&mut self) -> Result<&mut Membership, StepError> {
        self.membership.as_mut().ok_or(StepError::NotJoined)
    }

    /// Takes part in the swarm anew, with what the disk holds now.
    pub(super) async fn take_part(&mut self) -> Result<(), StepError> {
        self.leave().await;
        let target = self.target.as_ref().ok_or(StepError::NotJoined)?;
        let config = SwarmConfig {
            keypair: self.context.key.clone(),
            job: self.plan.job,
            image: self.plan.image,
            manifest: Arc::clone(&target.manifest),
            seed: self.plan.seed.clone(),
            listen: self.context.listen.clone(),
            tuning: self.plan.tuning.clone(),
            held: target.held.readable(),
            disk: Arc::new(target.held.clone()),
        };
        let sink = Arc::clone(&self.context.sink);
        self.membership = Some(Membership::join(config, sink, self.now.subscribe()).await?);
        Ok(())
    }

    /// Takes part anew where the swarm had ended.
    pub(super) async fn rejoin_if_broken(&mut self) -> Result<(), StepError> {
        if self.membership.as_ref().is_none_or(|membership| membership.heard.borrow().broken.is_some()) {
            self.take_part().await?;
        }
        Ok(())
    }

    /// Waits until `ready` finds in what was heard what the step waits for, or the job ends. `look` runs every
    /// half second and when something was heard.
    pub(super) async fn wait<T>(
        &mut self,
        mut ready: impl FnMut(&Heard) -> Option<T>,
        mut look: impl FnMut(&Heard),
    ) -> Result<T, StepError> {
        let mut heard = self.membership()?.heard.clone();
        loop {
            let now = heard.borrow_and_update().clone();
            if let Some(found) = ready(&now) {
                return Ok(found);
            }
            self.check(&now)?;
            look(&now);
            let cancel = self.context.cancel.clone();
            tokio::select! {
                () = cancel.cancelled() => {}
                // An end of the listener is told in `broken` first.
                _ = heard.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Whether the job goes on, by the admin, the server and the swarm.
    pub(super) fn check(&self, heard: &Heard) -> Result<(), StepError> {
        self.check_cancelled()?;
        if let Some(reason) = &heard.cancelled {
            return Err(StepError::Dismissed(reason.clone()));
        }
        match &heard.broken {
            Some(cause) => Err(StepError::Broken(cause.clone())),
            None => Ok(()),
        }
    }

    /// Whether this process or the server's log has ended the job.
    pub(super) fn check_cancelled(&self) -> Result<(), StepError> {
        if let Some(reason) = self.context.sink.cancelled() {
            return Err(StepError::Dismissed(reason));
        }
        if self.context.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        Ok(())
    }

    pub(super) fn counted(&self) -> Sources {
        let now = self.membership.as_ref().map(Membership::sources).unwrap_or_default();
        let (disk, unsent) =
            self.target.as_ref().map_or((0, 0), |target| (target.disk_bytes, target.unsent_bytes));
        Sources { disk, unsent, ..sum(self.before, now) }
    }
}

fn sum(a: Sources, b: Sources) -> Sources {
    Sources {
        server: a.server + b.server,
        peers: a.peers + b.peers,
        server_chunks: a.server_chunks + b.server_chunks,
        peer_chunks: a.peer_chunks + b.peer_chunks,
        disk: a.disk + b.disk,
        unsent: a.unsent + b.unsent,
        uploaded: a.uploaded + b.uploaded,
        net_ms: a.net_ms + b.net_ms,
        disk_ms: a.disk_ms + b.disk_ms,
        cpu_ms: a.cpu_ms + b.cpu_ms,
    }
}
