//! Deployments and their jobs as they cross the admin socket: ordered, shown, cancelled. Touches `common`.

use common::id::{DeploymentId, ImageId, JobId, MachineId};
use common::plan::{DiskIdentity, Finish};
use common::step::{Sources, Step};
use common::user_data::UserData;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ImageShown, Selection, Silence, Warning};

/// An order over machines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployOrder {
    /// The image, by name or id.
    pub image: String,
    /// Which machines.
    pub selection: Selection,
    /// Also machines that appear later and match the labels.
    #[serde(default)]
    pub open: bool,
    /// At most so many machines of an open order.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Which disk: a target rule such as `bus=nvme,size>=100G`; empty for "the only one there is".
    #[serde(default)]
    pub disk: String,
    /// Hostname pattern; `{name}` is the machine's name, `{id}` its id.
    #[serde(default)]
    pub hostname: Option<String>,
    /// SSH public keys for the image's default user.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// cloud-init user-data: a text, or `{"base64": …}` where it is none.
    #[serde(default)]
    pub user_data: Option<UserData>,
    /// Set by the server when user-data and keys were removed from its records, because nobody needs them any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secrets_removed: bool,
    /// Leave the image as it is: no hostname, no keys, no call home.
    #[serde(default)]
    pub no_personalise: bool,
    /// Do not wait for the installed OS to call home.
    #[serde(default)]
    pub no_confirm: bool,
    /// What machines do at the end.
    #[serde(default)]
    pub finish: Finish,
    /// Hold machines until so many have arrived.
    #[serde(default)]
    pub gather: Option<u32>,
    /// … or until so many seconds have passed since the first arrived.
    #[serde(default)]
    pub gather_seconds: Option<u64>,
    /// Ends after so many seconds where nobody came for it; never with 0, as the server is set when none.
    #[serde(default)]
    pub expires_seconds: Option<u64>,
    /// What was shown to who orders: these machines and disks, and no others. Chosen anew when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
    /// Warnings that are no reason to refuse a machine, each by its word.
    #[serde(default)]
    pub accept: Vec<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// An order as it was shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// The image: its name may be another's by now.
    pub image: ImageId,
    /// Each machine that is to be written.
    pub machines: Vec<ShownLine>,
}

/// One machine of an order as it was shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShownLine {
    /// The machine, by its number.
    pub machine: MachineId,
    /// The disk that would be written, when the machine's hardware was known.
    pub disk: Option<DiskIdentity>,
}

/// What an order would do, or did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployAnswer {
    /// The deployment; none with `dry_run`.
    pub deployment: Option<DeploymentId>,
    /// The image it is about.
    pub image: ImageShown,
    /// One line per machine.
    pub machines: Vec<DeployLine>,
    /// Set while nothing can be ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<super::Frozen>,
}

/// What an order means for one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployLine {
    /// The machine, by its number.
    pub machine: MachineId,
    /// The name an admin gave it; else its id.
    pub name: String,
    /// The disk that will be written and what stands on it, when its hardware is known.
    pub target: Option<String>,
    /// That disk's marks: what is written is this disk, or nothing.
    #[serde(default)]
    pub disk: Option<DiskIdentity>,
    /// What an admin should know.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// Why nothing would be written there.
    pub refused: Option<String>,
}

/// The states of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Waiting for the machine to power on.
    Ordered,
    /// Its plan was given out.
    Running,
    /// The disk is sealed; the installed OS has not called home yet.
    Written,
    /// Done: the installed OS called home (or the order did not ask for that).
    Deployed,
    /// It failed for good, until a new order.
    Failed,
    /// The tailor refused: nothing was written.
    Refused,
    /// An admin cancelled it.
    Cancelled,
}

impl JobState {
    /// The state's name, as it is shown and kept.
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobShown {
    /// The job's number, over all deployments.
    pub id: JobId,
    /// The deployment it is part of.
    pub deployment: DeploymentId,
    /// The machine, by its number.
    pub machine: MachineId,
    /// The machine's name.
    pub name: String,
    /// The image's name.
    pub image: String,
    /// Whether it waits, runs, or how it ended.
    pub state: JobState,
    /// How often it was started.
    pub attempt: u32,
    /// The step it is at.
    pub step: Option<Step>,
    /// Units of that step done.
    pub done: u64,
    /// Units of that step in all.
    pub total: u64,
    /// Where the bytes came from.
    pub sources: Sources,
    /// Why it failed, was refused or cancelled.
    pub cause: Option<String>,
    /// What is concluded of its machine, when that is silent or does not come up as ordered.
    #[serde(default)]
    pub note: Option<Silence>,
    /// When it last changed.
    pub changed: Timestamp,
}

/// A deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeploymentShown {
    /// Its number, which counts up over all orders.
    pub id: DeploymentId,
    /// The image's name.
    pub image: String,
    /// The image as it was when it was ordered: its name may be another's by now.
    pub image_id: ImageId,
    /// When it was ordered.
    pub ordered: Timestamp,
    /// Whether it takes machines that appear later.
    pub open: bool,
    /// Wire bytes of one copy of the image.
    pub wire_bytes: u64,
    /// One job for each machine that it took so far.
    pub jobs: Vec<JobShown>,
}

/// Cancels a deployment, or the jobs of some of its machines.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cancel {
    /// Which machines; all when empty.
    pub selection: Selection,
    /// Why, for the log and for the machines' consoles.
    pub reason: Option<String>,
}
