//! What the fleet asks of the rooms beside it: the image store, the boot kits with the tailor, and the
//! swarm. A seam, so that the fleet's way with machines can be tried without any of them. Touches `api`, `common`
//! and what the swarm is told of a machine.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, ImageId, JobId};
use common::plan::{DiskIdentity, Finish, Plan};
use common::trust::PublicKey;
use common::wire::http::Refused;

use crate::api::shapes::{ImageShown, Warning};
use crate::swarm::Admission;
use crate::tailor::BadRule;

/// What the tailor makes a plan from.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// The deployment that the plan is part of.
    pub deployment: DeploymentId,
    /// The machine's part of it.
    pub job: JobId,
    /// The attempt that the plan is for.
    pub attempt: u32,
    /// The image to write.
    pub image: ImageId,
    /// Which disk, as the admin said it; empty for the only one there is.
    pub disk: String,
    /// The disk that was shown when it was ordered, which alone may be written; none when none could be shown.
    pub bound: Option<DiskIdentity>,
    /// Whether hostname, keys and user-data are given to the OS.
    pub personalise: bool,
    /// Whether machines are held until others have arrived.
    pub gather: bool,
    /// What to do at the end.
    pub finish: Finish,
    /// Where the machine reaches the server's swarm, as the machine sees it: the address it reported to.
    pub server: Option<std::net::IpAddr>,
}

/// The disk that would be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What it is known by, on this machine and after a restart of it.
    pub disk: DiskIdentity,
    /// The disk and what stands on it, in words.
    pub words: String,
    /// What an admin should know before it is written.
    pub warnings: Vec<Warning>,
}

/// A plan with its bundle built and ready to be fetched.
#[derive(Debug, Clone)]
pub struct Provision {
    /// What the agent is to do, bundle included.
    pub plan: Plan,
    /// The disk that will be written, and what stands on it, in words.
    pub target: String,
    /// What an admin should have known before it is written; the order may not accept all of it.
    pub warnings: Vec<Warning>,
}

/// Why there is no plan for a machine. Shown with its causes, in the words of the room that knows it.
#[derive(Debug, thiserror::Error)]
pub enum NoPlan {
    /// The machine is not one that the order can be carried out on: not exactly one disk is meant, or the image cannot
    /// stand on it.
    #[error("{why} ({hint})")]
    Refused {
        /// What the tailor says.
        #[source]
        why: Box<dyn Error + Send + Sync>,
        /// What to do about it. Part of the sentence, because the machine's own screen shows no other.
        hint: String,
    },
    /// The order's rule, the image, the boot kit or the bundle cannot be read or made.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl NoPlan {
    /// That something which a plan is made from cannot be had, because of `error`.
    pub fn failed(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// An answer that takes a while.
pub type Soon<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The rooms beside the fleet.
pub trait Provisioner: Send + Sync + 'static {
    /// The image with this name or id.
    ///
    /// # Errors
    /// When there is none.
    fn image(&self, name: &str) -> Result<ImageShown, Refused>;

    /// Whether `rule` says which disk; asked before an order is taken.
    ///
    /// # Errors
    /// When it is no rule.
    fn check_disk_rule(&self, rule: &str) -> Result<(), BadRule>;

    /// The disk of `hardware` that `request` would have written; decides and touches nothing.
    ///
    /// # Errors
    /// Why the machine would get no plan.
    fn target(&self, request: &PlanRequest, hardware: &CheckedHardware) -> Result<Target, NoPlan>;

    /// Makes the plan and builds its bundle. Blocking and slow: call it off the async threads.
    ///
    /// # Errors
    /// Why the machine gets no plan.
    fn tailor(&self, request: &PlanRequest, hardware: &CheckedHardware) -> Result<Provision, NoPlan>;

    /// Lets a machine into the swarm; again for the same key replaces what was said of it.
    fn admit(&self, admission: Admission) -> Soon<'_, ()>;

    /// Whether the agent with this key is connected to the swarm; also where that cannot be told.
    fn is_here(&self, key: PublicKey) -> Soon<'_, bool>;

    /// Lets it in no more; with a reason its agent is told to stop.
    fn dismiss(&self, key: PublicKey, reason: Option<String>) -> Soon<'_, ()>;
}
