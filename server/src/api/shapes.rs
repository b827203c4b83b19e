//! The requests and responses of the admin's API; they are also what `-o json` prints, so their field names are part of
//! the interface. Touches `common`.
//!
//! Which route takes and answers with which of them stands at its handler, and in the document that is made of those, `GET
//! /api/v1/openapi.json`; the routes are a table in `api/routes.rs`. Long tasks answer with JSON lines, each a [`TaskLine`].
//!
//! A list that may be long is a page: `limit` entries behind the one of the number `after`. Where there is more, the
//! answer has `Link: <…>; rel="next"` with the path of the next page; where a `limit` is missing or higher than what the
//! server gives at once (1,000 machines or events, 100 deployments), it is that. Only `/logs` without `limit` is whole.
//!
//! An error is a [`common::wire::http::Refused`] with a status of 4xx or 5xx.

// Shapes of boot kits and images.
mod stores;

// Images that are sent in pieces.
mod upload;

// Relays, and which images are staged at them.
mod relay;

// Who asks, and tokens.
mod access;

// Which machines a request is about.
mod selection;

// Shapes of machines, and the commands for them.
mod machine;

// Shapes of orders and their jobs.
mod deployment;

// Shapes of retries: jobs that failed or were refused, ordered again.
mod retry;

// What an image can boot on and be given.
mod traits;

// Profiles, and orders by them.
mod profile;

// The status of a swarm.
mod swarm;

// What a dashboard is told as it happens.
pub mod live;

// Who holds which chunks, and what changed.
pub mod maps;

// Those who are told of events.
mod subscriber;

// Conclusions about a machine that has fallen silent.
mod silence;

// Warnings about an order.
mod warning;

use common::id::{DeploymentId, JobId, MachineId};
use common::step::{Sources, Step, What};
use common::trust::PublicKey;
use common::wire::http::Refused;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use access::{Caller, Role, Scope, TokenMade, TokenOrder, TokenShown, UnknownRole, WhoAmI};
pub use deployment::{
    Cancel, DeployAnswer, DeployLine, DeployOrder, DeploymentShown, JobShown, JobState, Pause, Shown,
    ShownLine, WaitsFor,
};
pub use machine::{
    Doubt, MachineAction, MachineChanged, MachineCommand, MachineCount, MachineShown, MachineState,
    MachineWake,
};
pub use profile::{
    DeployPart, HookShown, ProfileAdd, ProfileAdded, ProfileChoice, ProfileFile, ProfileShown, ShownProfile,
    UsedProfile, Wish,
};
pub use relay::{
    ImageStage, RelayHolds, RelayInvite, RelayInvited, RelayShown, RelayState, Staged, StagedAt,
};
pub use retry::{Retry, RetryLine, RetryShown};
pub use selection::Selection;
pub use silence::Silence;
pub use stores::{
    ImageAdd, ImageRemoved, ImageShown, ImageUpdate, ImageVerified, KitImport, KitShown, KitSource,
};
pub use subscriber::{SubscriberShown, SubscriberState};
pub use swarm::{NodeStatus, SwarmShown, SwarmStatus};
pub use traits::{BiosBoot, CloudInit, ImageTraits, PartitionMarks, UefiBoot};
pub use upload::{UploadEnd, UploadOrder, UploadShown};
pub use warning::{ACCEPTABLE, Warning};

/// The path that all routes of the admin's API begin with.
pub const PREFIX: &str = "/api/v1";

/// One line of the response of a long task.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskLine<T> {
    /// How far the task is.
    Progress {
        /// How many units are done: bytes, or files.
        done: u64,
        /// Of how many, when that is known.
        total: Option<u64>,
        /// What is being done, in a few words.
        text: String,
    },
    /// Something the admin should know that is no failure.
    Note(String),
    /// The last line of a task that succeeded, with its result.
    Done(T),
    /// It failed; nothing was changed.
    Failed(Refused),
}

/// The answer to `status`: the server itself, without its machines.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerStatus {
    /// The version of the server's program, which may differ from the client's.
    pub version: String,
    /// The server's public key, against which machines check its signatures.
    pub key: PublicKey,
    /// The base URL at which machines reach the server over HTTP.
    pub url: String,
    /// `dhcp` or `proxy-dhcp`, with the range or the interface.
    pub mode: String,
    /// When the server's process started.
    pub started: Timestamp,
    /// What an admin should look at, each in one sentence: no boot kit, another DHCP server, a full disk.
    pub warnings: Vec<String>,
    /// Where the API is served over TLS; `None` when it is on the admin socket alone.
    #[serde(default)]
    pub api: Option<ApiShown>,
    /// Set while the server is frozen and starts nothing new.
    #[serde(default)]
    pub frozen: Option<Frozen>,
    /// Those who are told of events: webhooks and exports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribers: Vec<SubscriberShown>,
}

/// Where the API is served over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApiShown {
    /// Its base URL.
    pub url: String,
    /// The SHA-256 of its certificate.
    pub fingerprint: String,
}

/// Freezes the server, so that it starts nothing new, or ends the freeze.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Freeze {
    /// True to freeze, false to end the freeze.
    pub freeze: bool,
    /// Why, for the log and for whoever orders meanwhile.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A freeze that is in force: nothing new is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Frozen {
    /// When the freeze began.
    pub since: Timestamp,
    /// The reason that the admin gave, if any.
    pub reason: Option<String>,
}

impl std::fmt::Display for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "frozen since {:.0}", self.since)?;
        self.reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

/// The query of the log: which events are wanted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Of these machines, comma-separated; all when empty.
    pub machines: String,
    /// Of machines that fit these selectors now, with commas between; of all when empty.
    pub labels: String,
    /// Only events of this deployment; of all when `None`.
    pub deployment: Option<DeploymentId>,
    /// Only events of the step of this name; of all when `None`.
    pub step: Option<String>,
    /// Only events at or after this time; from the beginning when `None`.
    pub since: Option<Timestamp>,
    /// Whether progress events are included, of which only the newest is kept.
    pub progress: bool,
    /// Whether the response goes on with new events as they happen.
    pub follow: bool,
    /// Only events behind the one of this number; from the beginning when `None`.
    pub after: Option<u64>,
    /// Only a page of so many events; all of them when `None`.
    pub limit: Option<u32>,
}

/// One event of the log.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogEvent {
    /// The event's number, which counts up over all events.
    pub id: u64,
    /// When it happened, by the server's clock.
    pub at: Timestamp,
    /// The machine's number, once it is known.
    pub machine: Option<MachineId>,
    /// The machine's name, or the Ethernet address it was seen by.
    pub name: String,
    /// The deployment, where the event is part of one.
    pub deployment: Option<DeploymentId>,
    /// The job, where the event is part of one.
    pub job: Option<JobId>,
    /// The attempt of the job, counted from 1, where the event is part of one.
    pub attempt: Option<u32>,
    /// The step that the event is about.
    pub step: Step,
    /// What happened in the step: that it began, how far it is, how it ended.
    #[serde(flatten)]
    pub what: What,
    /// Where the image's bytes came from so far; `None` where the event does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Sources>,
    /// Who asked for it: a token's name, or a user of the server's host; `None` where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Whether the machine reported it; otherwise the server did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_machine: bool,
}
