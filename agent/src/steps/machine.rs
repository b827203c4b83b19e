//! What the steps of a job share: the plan, the disk, the membership in the swarm. The runner gives it to one step
//! after the other, so nothing in here is locked. Touches the swarm and the disk; knows no step (see `dispatch`).

use std::sync::Arc;
use std::time::Duration;

use common::chunk::ChunkSet;
use common::hardware::Disk;
use common::manifest::{Chunk, Manifest};
use common::plan::Plan;
use common::step::{Sources, Step};
use common::trust::KeyPair;
use common::wire::swarm::{Member, Personality};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::StepError;
use super::membership::{Heard, Membership};
use super::run::EventSink;
use crate::boot_files::BootFiles;
use crate::disk::bases::Bases;
use crate::disk::device::Device;
use crate::disk::held::Held;
use crate::disk::seal::Seal;
use crate::fetch::Server;
use crate::hooks::error::HookError;
use crate::hooks::script::Script;
use crate::swarm::{DeltaBases, SwarmConfig};

/// How often a waiting step checks for a cancel and for progress.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// Runs one script of the hooks: through the kernel, or as a test does.
pub(super) type ScriptRunner = fn(&Script<'_>) -> Result<(), HookError>;

/// What a job is given beside its plan.
#[derive(Clone)]
pub(super) struct Context {
    /// The server, from which the manifest is fetched.
    pub(super) server: Server,
    /// The machine's boot key, made anew at each boot.
    pub(super) key: KeyPair,
    /// Takes the job's events, and knows whether the server cancelled it.
    pub(super) sink: Arc<dyn EventSink>,
    /// The disks as listed when the attempt began; the plan names one of them.
    pub(super) disks: Vec<Disk>,
    /// Where to listen for peers, as a multiaddr.
    pub(super) listen: String,
    /// The small files that this machine gives out; none if it does not.
    pub(super) boot_files: Option<BootFiles>,
    /// Runs the scripts of the step `hooks`.
    pub(super) run_script: ScriptRunner,
    /// Ends the job at a point where that is safe.
    pub(super) cancel: CancellationToken,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// The opened disk of the job, and what is known of its contents. Set by `join`.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) device: Arc<dyn Device>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) held: Held,
    /// Raw bytes of chunks that the disk held already; `unsent_bytes` are zeros and repetitions, which are never sent.
    pub(super) disk_bytes: u64,
    pub(super) unsent_bytes: u64,
    /// Whether the old partition table has been cleared.
    pub(super) cleared: bool,
}

impl Target {
    /// A target that holds the chunks of `already`, as its scan found.
    pub(super) fn new(
        device: Arc<dyn Device>,
        manifest: Arc<Manifest>,
        already: ChunkSet,
        bases: Option<Arc<Bases>>,
    ) -> Self {
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
        let held = Held::new(Arc::clone(&device), Arc::clone(&manifest), already).with_bases(bases);
        Self { device, manifest, held, disk_bytes, unsent_bytes, cleared: false }
    }
}

/// The state of one job on this machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) plan: Plan,
    pub(super) context: Context,
    pub(super) target: Option<Target>,
    pub(super) membership: Option<Membership>,
    /// Counts of the memberships before the present one.
    pub(super) before: Sources,
    /// What the installed OS is to be configured with; set by `join`.
    pub(super) personality: Option<Personality>,
    pub(super) seal: Option<Seal>,
    pub(super) sealed: bool,
    now: watch::Sender<Step>,
}

impl Machine {
    /// The state of a job at its beginning.
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

    /// Whether the disk was sealed: it then boots the new OS, even if a later step fails.
    #[must_use]
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Leaves the swarm, if this machine is in it.
    pub(super) async fn leave(&mut self) {
        if let Some(membership) = self.membership.take() {
            self.before = sum(self.before, membership.sources());
            membership.leave().await;
        }
    }

    /// Marks `step` as the running one: notes from the swarm are reported under it.
    ///
    /// # Errors
    /// When the job was cancelled before the step.
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

    /// Joins the swarm, leaving it first if need be, with the chunks that the disk holds now.
    pub(super) async fn take_part(&mut self) -> Result<(), StepError> {
        self.leave().await;
        let target = self.target.as_ref().ok_or(StepError::NotJoined)?;
        let bases = target.held.bases().cloned();
        let mut tuning = self.plan.tuning.clone();
        if bases.is_some() {
            // The other half is for copies of what is overwritten.
            tuning.cache_bytes /= 2;
        }
        let config = SwarmConfig {
            keypair: self.context.key.clone(),
            member: Member::Job(self.plan.job),
            image: self.plan.image,
            manifest: Arc::clone(&target.manifest),
            seed: self.plan.seed.clone(),
            listen: self.context.listen.clone(),
            tuning,
            held: target.held.readable(),
            disk: Arc::new(target.held.clone()),
            keep_wire: false,
            admitted: vec![],
            boot_files: self.context.boot_files.clone(),
            deltas: bases.map(|bases| bases as Arc<dyn DeltaBases>),
        };
        let sink = Arc::clone(&self.context.sink);
        self.membership = Some(Membership::join(config, sink, self.now.subscribe()).await?);
        Ok(())
    }

    /// Joins the swarm again if it has ended.
    pub(super) async fn rejoin_if_broken(&mut self) -> Result<(), StepError> {
        if self.membership.as_ref().is_none_or(|membership| membership.heard.borrow().broken.is_some()) {
            self.take_part().await?;
        }
        Ok(())
    }

    /// Waits until `ready` finds in the news from the swarm what the step waits for, or the job ends. `look` runs every
    /// half second and at each change.
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
                // When the listening task ends, it sets `broken` first.
                _ = heard.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Fails if the admin, the server or the swarm has ended the job.
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

    /// Fails if this process was told to stop, or if the server said so in its answer to events.
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
