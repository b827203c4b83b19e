//! The trait through which the fleet uses the image store, the boot kits, the tailor and the swarm, so that the fleet
//! can be tested without them. Touches `api`, `common`, the tailor's disk rule and the swarm's admissions.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use common::hardware::CheckedHardware;
use common::hooks::RootRule;
use common::id::{DeploymentId, ImageId, JobId};
use common::plan::{DiskIdentity, Finish, Plan};
use common::trust::PublicKey;
use common::wire::http::Refused;

use crate::api::shapes::{ImageShown, Warning};
use crate::swarm::Admission;
use crate::tailor::TargetRule;

/// A request to the tailor for the plan of one job.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// The deployment that the plan is part of.
    pub deployment: DeploymentId,
    /// The job that the plan is for.
    pub job: JobId,
    /// The number of the attempt, counted from one.
    pub attempt: u32,
    /// The image to write.
    pub image: ImageId,
    /// Which disk to write, if `bound` is `None`.
    pub disk: TargetRule,
    /// The disk that the admin was shown, which alone may be written; `None` when none could be shown.
    pub bound: Option<DiskIdentity>,
    /// Whether hostname, keys and user-data are given to the OS.
    pub personalise: bool,
    /// Which partition the order's hooks run in; `None` when it has none.
    pub hooks: Option<RootRule>,
    /// Whether machines wait at a gate until others have arrived.
    pub gather: bool,
    /// What the machine does at the end.
    pub finish: Finish,
    /// The server's address that the machine reported to, at which its agent reaches the swarm; `None` if unknown.
    pub server: Option<std::net::IpAddr>,
    /// The address that the machine reported from; `None` if unknown.
    pub reporter: Option<std::net::IpAddr>,
}

/// The disk that a plan would write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The marks by which it is found again after a restart of the machine.
    pub disk: DiskIdentity,
    /// A description of the disk and of what is on it.
    pub words: String,
    /// Warnings for the admin before it is written.
    pub warnings: Vec<Warning>,
}

/// A plan whose bundle is built and can be fetched.
#[derive(Debug, Clone)]
pub struct Provision {
    /// The plan for the agent, with its bundle.
    pub plan: Plan,
    /// A description of the disk that will be written and of what is on it.
    pub target: String,
    /// Warnings about the machine; the plan is given only if the order accepts all that would stop it.
    pub warnings: Vec<Warning>,
}

/// Why there is no plan for a machine. Shown with its causes, which other modules word.
#[derive(Debug, thiserror::Error)]
pub enum NoPlan {
    /// The order cannot be carried out on the machine: not exactly one disk is meant, or the image does not fit it.
    #[error("{why} ({hint})")]
    Refused {
        /// The tailor's refusal.
        #[source]
        why: Box<dyn Error + Send + Sync>,
        /// What to do about it. Part of the message, because the machine's own screen shows nothing else.
        hint: String,
    },
    /// The order's rule, the image, the boot kit or the bundle cannot be read or made.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl NoPlan {
    /// Something that a plan is made from cannot be had, because of `error`.
    pub fn failed(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// A boxed future, so that [`Provisioner`] can be used as a trait object.
pub type Soon<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Images, boot kits, the tailor and the swarm, as the fleet uses them.
pub trait Provisioner: Send + Sync + 'static {
    /// The image with this name or id.
    ///
    /// # Errors
    /// When there is no such image.
    fn image(&self, name: &str) -> Result<ImageShown, Refused>;

    /// The disk of `hardware` that a plan for `request` would write; builds and changes nothing.
    ///
    /// # Errors
    /// When the machine would get no plan.
    fn target(&self, request: &PlanRequest, hardware: &CheckedHardware) -> Result<Target, NoPlan>;

    /// Makes the plan and builds its bundle. Blocking and slow: call it off the async threads.
    ///
    /// # Errors
    /// When the machine gets no plan, or the bundle cannot be built.
    fn tailor(&self, request: &PlanRequest, hardware: &CheckedHardware) -> Result<Provision, NoPlan>;

    /// Builds ahead what a plan for `hardware` needs, so that it is there when the machine asks. Blocking and slow, as
    /// `tailor`, which reports what goes wrong.
    fn prepare(&self, _hardware: &CheckedHardware) {}

    /// Admits a machine to the swarm; a second admission with the same key replaces the first.
    fn admit(&self, admission: Admission) -> Soon<'_, ()>;

    /// Whether the agent with this key is connected to the swarm; true where that cannot be told.
    fn is_here(&self, key: PublicKey) -> Soon<'_, bool>;

    /// Ends the admission of this key to the swarm; with a reason its agent is told to cancel.
    fn dismiss(&self, key: PublicKey, reason: Option<String>) -> Soon<'_, ()>;
}
