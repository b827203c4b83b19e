//! The shapes that the command line and the server exchange over the admin socket; they are also what
//! `-o json` prints, so their field names are part of the interface. Touches `common`.
//!
//! Routes, all below [`PREFIX`]. Long tasks answer with JSON lines, each a [`TaskLine`].
//!
//! | route | body | answer |
//! | --- | --- | --- |
//! | `GET /status` | | [`ServerStatus`] |
//! | `GET /kits`, `GET /kits/{name}` | | [`KitShown`], one or a list |
//! | `POST /kits` | [`KitImport`] | lines, `TaskLine<KitShown>` |
//! | `DELETE /kits/{name}` | | `{}` |
//! | `GET /images`, `GET /images/{name}` | | [`ImageShown`], one or a list |
//! | `POST /images` | [`ImageAdd`] | lines, `TaskLine<ImageShown>` |
//! | `PUT /images/{name}?sector_bytes=` | the image's bytes as a stream | lines, `TaskLine<ImageShown>` |
//! | `POST /images/{name}/verify` | | lines, `TaskLine<ImageVerified>` |
//! | `GET /images/{name}/export` | | the raw image |
//! | `DELETE /images/{name}` | | `{}` |
//! | `GET /machines`, `GET /machines/{machine}` | | [`MachineShown`], one or a list |
//! | `POST /machines` | [`MachineCommand`] | list of [`MachineChanged`] |
//! | `GET /deployments`, `GET /deployments/{id}` | | [`DeploymentShown`], one or a list |
//! | `POST /deployments` | [`DeployOrder`] | [`DeployAnswer`] |
//! | `POST /deployments/{id}/cancel` | [`Cancel`] | [`DeploymentShown`] |
//! | `POST /deployments/retry` | [`Retry`] | list of [`RetryLine`] |
//! | `POST /freeze` | [`Freeze`] | [`Frozen`], or null |
//! | `GET /logs?…` ([`LogQuery`]) | | lines of [`LogEvent`]; does not end with `follow` |
//! | `GET /swarm` | | list of [`SwarmStatus`], one per image |
//! | `GET /swarm/limits` | | [`crate::swarm::LineLimits`] |
//! | `POST /swarm/limits` | [`crate::swarm::LimitOrder`] | [`crate::swarm::LineLimits`] |
//!
//! An error is a [`common::wire::http::Refused`] with a status of 4xx or 5xx.

// Boot kits and images.
mod stores;

// Machines, and what is done with them.
mod machine;

// Orders over machines, and their jobs.
mod deployment;

// What was refused or has failed, ordered again.
mod retry;

// What an image can and cannot do.
mod traits;

// Who has what of an image.
mod swarm;

// What is known of a machine that has fallen silent.
mod silence;

// What an admin should know of an order before it is placed.
mod warning;

use common::id::{DeploymentId, JobId, MachineId};
use common::step::{Sources, Step, What};
use common::trust::PublicKey;
use common::wire::http::Refused;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use deployment::{
    Cancel, DeployAnswer, DeployLine, DeployOrder, DeploymentShown, JobShown, JobState, Shown, ShownLine,
};
pub use machine::{
    Doubt, MachineAction, MachineChanged, MachineCommand, MachineShown, MachineState, Selection,
};
pub use retry::{Retry, RetryLine, RetryShown};
pub use silence::Silence;
pub use stores::{ImageAdd, ImageShown, ImageVerified, KitImport, KitShown, KitSource};
pub use swarm::{NodeStatus, SwarmStatus};
pub use traits::{BiosBoot, CloudInit, ImageTraits, PartitionMarks, UefiBoot};
pub use warning::{ACCEPTABLE, Warning};

/// Where the admin's routes begin.
pub const PREFIX: &str = "/admin/v1";

/// One line of a long task's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskLine<T> {
    /// So far.
    Progress {
        /// Bytes (or files) done.
        done: u64,
        /// Of how many, when that is known.
        total: Option<u64>,
        /// What is being done, in a few words.
        text: String,
    },
    /// Something the admin should know that is no failure.
    Note(String),
    /// It is done.
    Done(T),
    /// It failed; nothing was changed.
    Failed(Refused),
}

/// The server itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerStatus {
    /// The version of the server's program, which may differ from the client's.
    pub version: String,
    /// Its key, which machines check everything against.
    pub key: PublicKey,
    /// Where machines reach it over HTTP.
    pub url: String,
    /// `dhcp` or `proxy-dhcp`, with the range or the interface.
    pub mode: String,
    /// When it started.
    pub started: Timestamp,
    /// What an admin should look at, each in one sentence: no boot kit, nobody asks, store nearly full.
    pub warnings: Vec<String>,
    /// Set while nothing new begins.
    #[serde(default)]
    pub frozen: Option<Frozen>,
}

/// Stops everything new, or lets it begin again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Freeze {
    /// Whether nothing new is to begin.
    pub freeze: bool,
    /// Why, for the log and for whoever orders meanwhile.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Nothing new begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Since when.
    pub since: Timestamp,
    /// What the admin who froze said; none when nothing was said.
    pub reason: Option<String>,
}

impl std::fmt::Display for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "frozen since {:.0}", self.since)?;
        self.reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

/// Which events to show.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogQuery {
    /// Of these machines, comma-separated; all when empty.
    pub machines: String,
    /// Of this deployment.
    pub deployment: Option<DeploymentId>,
    /// Of this step.
    pub step: Option<String>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// With progress events, which are only kept until the next one.
    pub progress: bool,
    /// Go on with new events as they happen.
    pub follow: bool,
}

/// One event of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogEvent {
    /// Counts up over all events.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The machine, once it is known.
    pub machine: Option<MachineId>,
    /// The machine's name, or the Ethernet address it was seen by.
    pub name: String,
    /// The deployment, where the event is part of one.
    pub deployment: Option<DeploymentId>,
    /// The job, where the event is part of one.
    pub job: Option<JobId>,
    /// The job's attempt.
    pub attempt: Option<u32>,
    /// The step of the machine's way that the event is about.
    pub step: Step,
    /// What is told of the step: that it began, how far it is, how it ended.
    #[serde(flatten)]
    pub what: What,
    /// Where the bytes came from so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Sources>,
    /// Whether the machine says so; otherwise the server does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_machine: bool,
}
