//! Deployments and their jobs in the admin's API: ordered, shown, cancelled. Touches `common`.

use common::hooks::{Hook, RootRule};
use common::id::{DeploymentId, ImageId, JobId, MachineId};
use common::plan::{DiskIdentity, Finish};
use common::step::{Sources, Step};
use common::user_data::UserData;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DeployPart, ImageShown, ProfileChoice, Selection, ShownProfile, Silence, UsedProfile, Warning};

/// An order to write an image to machines.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeployOrder {
    /// The image, by name or id. May be empty where profiles name it.
    #[serde(default)]
    pub image: String,
    /// Which machines the order is for.
    #[serde(default)]
    pub selection: Selection,
    /// The profiles that say what the order itself does not; what it says goes before them. With several, each machine
    /// must fit just one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ProfileChoice>,
    /// Set by the server: the profile that said part of this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<UsedProfile>,
    /// Whether machines that appear later and match the labels are taken too.
    #[serde(default)]
    pub open: bool,
    /// The most machines that an open order takes; no limit when `None`.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Which disk: a rule such as `bus=nvme,size>=100G`; empty for the machine's only disk.
    #[serde(default)]
    pub disk: String,
    /// Hostname pattern; `{name}` is the machine's name, `{id}` its id. `None` for `{name}`.
    #[serde(default)]
    pub hostname: Option<String>,
    /// SSH public keys for the image's default user.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// cloud-init user-data: a text, or `{"base64": …}` where it is none.
    #[serde(default)]
    pub user_data: Option<UserData>,
    /// Scripts to run in the new root before the disk can boot, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Which partition is that root: `auto`, a number, or `label=NAME`.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub hook_root: RootRule,
    /// Set by the server when it has removed user-data, keys and hooks from its records, because no job needs them any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secrets_removed: bool,
    /// Whether the image is left as it is: no hostname, no keys, no call home.
    #[serde(default)]
    pub no_personalise: bool,
    /// Whether a job is done without a call home of the installed OS.
    #[serde(default)]
    pub no_confirm: bool,
    /// What machines do at the end: restart, switch off, or stay on. `None` for what the profile says, else restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// The most machines that are written at once; no limit when `None`. The others wait for their turn.
    #[serde(default)]
    pub max_parallel: Option<u32>,
    /// The most machines that this order may write, where that is more than the server's ceiling; that when `None`.
    #[serde(default)]
    pub max_machines: Option<u32>,
    /// Machines wait until so many have arrived; `None` for no waiting.
    #[serde(default)]
    pub gather: Option<u32>,
    /// How many seconds they wait for that, from the first arrival; `None` for 600.
    #[serde(default)]
    pub gather_seconds: Option<u64>,
    /// Seconds after which jobs that no machine has started expire; 0 for never, and the server's setting when `None`.
    #[serde(default)]
    pub expires_seconds: Option<u64>,
    /// What a dry run showed: only these machines and disks are written. `None` chooses them anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
    /// The words of the warnings that do not refuse a machine of this order.
    #[serde(default)]
    pub accept: Vec<String>,
    /// Whether this is a dry run, which only shows what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

fn is_auto(rule: &RootRule) -> bool {
    *rule == RootRule::Auto
}

/// What a dry run showed, sent back with the order.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Shown {
    /// The image by its id, because its name may belong to another image by now.
    pub image: ImageId,
    /// The machines that are to be written, with their disks.
    pub machines: Vec<ShownLine>,
    /// The profiles of the order, with the image of each; that of the order is then the first one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ShownProfile>,
}

/// One machine of an order, as a dry run showed it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownLine {
    /// The machine, by its number.
    pub machine: MachineId,
    /// The disk that would be written; `None` when the machine's hardware was not known.
    pub disk: Option<DiskIdentity>,
    /// The name of the profile that it is written by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// What an order did, or would do.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeployAnswer {
    /// The new deployment's number, of several the first one's; `None` for a dry run.
    pub deployment: Option<DeploymentId>,
    /// The image that the order's name or id stands for; of several the first.
    pub image: ImageShown,
    /// One line for each machine that the order is for.
    pub machines: Vec<DeployLine>,
    /// What is ordered by each profile; empty for an order without profiles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<DeployPart>,
    /// The most machines that the order may write: an order for more has to say their number.
    #[serde(default = "any")]
    pub max_machines: u32,
    /// Set while the server is frozen, so that nothing can be ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<super::Frozen>,
}

/// A server of an earlier version has no ceiling.
fn any() -> u32 {
    u32::MAX
}

/// What an order means for one machine.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeployLine {
    /// The machine, by its number.
    pub machine: MachineId,
    /// The machine's name; its id where no admin has named it.
    pub name: String,
    /// The disk that will be written and what is on it, in words; `None` when the hardware is not known.
    pub target: Option<String>,
    /// The marks of that disk: this disk is written, or none.
    #[serde(default)]
    pub disk: Option<DiskIdentity>,
    /// What an admin should know of this machine before ordering.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// The name of the profile that it is written by; `None` without profiles, or where it fits none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The hostname that its OS gets by that profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Why this machine would not be written; `None` when it would.
    pub refused: Option<String>,
}

/// The states of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Ordered, and its machine has not been given a plan yet.
    Ordered,
    /// The machine was given a plan.
    Running,
    /// The disk is sealed; the installed OS has not called home yet.
    Written,
    /// Done: the installed OS called home (or the order did not ask for that).
    Deployed,
    /// It failed, and is not tried again without a new order.
    Failed,
    /// The server refused to make a plan for the machine, so nothing was written.
    Refused,
    /// An admin cancelled it.
    Cancelled,
}

impl JobState {
    /// The state's name, as it is shown and kept in the records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Running => "running",
            Self::Written => "written",
            Self::Deployed => "deployed",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen without a new order.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Deployed | Self::Failed | Self::Refused | Self::Cancelled)
    }
}

/// One machine's part of a deployment.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobShown {
    /// The job's number, over all deployments.
    pub id: JobId,
    /// The deployment it is part of.
    pub deployment: DeploymentId,
    /// The machine, by its number.
    pub machine: MachineId,
    /// The machine's name; its id where no admin has named it.
    pub name: String,
    /// The image's name when it was ordered.
    pub image: String,
    /// Whether it waits, runs, or how it ended.
    pub state: JobState,
    /// How many attempts were started; 0 before the first.
    pub attempt: u32,
    /// The step that it is at, as the machine last reported.
    pub step: Option<Step>,
    /// Units of that step that are done.
    pub done: u64,
    /// Units of that step in all; 0 while unknown.
    pub total: u64,
    /// Where the image's bytes came from, of this attempt.
    pub sources: Sources,
    /// Why it failed, was refused or cancelled; `None` otherwise.
    pub cause: Option<String>,
    /// What a job that is ordered waits for; `None` when it has begun or is over.
    #[serde(default)]
    pub waits: Option<WaitsFor>,
    /// What is concluded about its machine, when that is silent or does not come up as ordered.
    #[serde(default)]
    pub note: Option<Silence>,
    /// When its state last changed.
    pub changed: Timestamp,
}

/// What holds up a job that is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "for", rename_all = "kebab-case")]
pub enum WaitsFor {
    /// The end of a freeze: `deploy unfreeze`.
    Unfreeze,
    /// The release of its machine: `machine release`.
    Release,
    /// An admin who says which machine its machine is: `machine merge` or `machine release`.
    Identity,
    /// The end of a pause: `deploy resume`.
    Resume,
    /// Its turn: as many of the deployment's machines as may be are written just now.
    Turn {
        /// The most machines that are written at once.
        most: u32,
    },
    /// Its machine, which has not come for it yet.
    Machine,
}

impl std::fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unfreeze => f.write_str("frozen"),
            Self::Release => f.write_str("machine is held"),
            Self::Identity => f.write_str("machine is in doubt"),
            Self::Resume => f.write_str("paused"),
            Self::Turn { most } => write!(f, "its turn ({most} at once)"),
            Self::Machine => f.write_str("machine to come"),
        }
    }
}

/// A deployment: one order, with a job for each of its machines.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeploymentShown {
    /// Its number, which counts up over all orders.
    pub id: DeploymentId,
    /// The image's name when it was ordered.
    pub image: String,
    /// The image's id, because its name may belong to another image by now.
    pub image_id: ImageId,
    /// The profile that it was ordered by, as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<UsedProfile>,
    /// The other deployments of the same order, one for each profile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<DeploymentId>,
    /// When it was ordered.
    pub ordered: Timestamp,
    /// Whether it still takes machines that appear later.
    pub open: bool,
    /// Since when it is paused, so that nothing more of it begins; `None` when it is not.
    #[serde(default)]
    pub paused: Option<Timestamp>,
    /// The most machines that are written at once; `None` for no limit.
    #[serde(default)]
    pub max_parallel: Option<u32>,
    /// Why it takes no more machines although it is open: its ceiling is reached.
    #[serde(default)]
    pub is_full: bool,
    /// Bytes that one copy of the image takes on the network.
    pub wire_bytes: u64,
    /// One job for each machine that it has taken so far.
    pub jobs: Vec<JobShown>,
}

/// Pauses a deployment, so that nothing more of it begins and what runs goes on; or ends the pause.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Pause {
    /// True to pause, false to go on.
    pub pause: bool,
    /// Why, for the log.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether all that was ordered together with it (its `with`) is meant too: then all of it, or nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub together: bool,
}

/// Cancels a deployment, or the jobs of some of its machines.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Cancel {
    /// Which machines; all of the deployment's when empty.
    pub selection: Selection,
    /// Why, for the log and for the machines' consoles.
    pub reason: Option<String>,
    /// Whether all that was ordered together with it (its `with`) is meant too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub together: bool,
}
