//! What `GET /live` streams for dashboards: everything once, and then each second at the most what changed. Names are
//! short, because two hundred machines that transfer an image have an entry each second. Touches `common` and the
//! shapes of `traffic`.
//!
//! Server-sent events of two kinds, both with a [`Live`] as their data: `snapshot` first, and again whenever the stream
//! could not follow (forget everything then), and `changes`. An entry of a list replaces the whole earlier entry of the
//! same key; what is not in a message is as before; `gone` names the entries that ended. Rates are the reader's: two
//! counts and the difference of their `at`.
//!
//! Whoever has a token for some machines only gets these: their jobs are what a deployment's sums are of, a swarm has
//! their agents alone and as its `injected_bytes` what the server sent them, and there are no relays and no sites.

use common::id::{DeploymentId, ImageId, JobId, MachineId};
use common::step::Step;
use common::wire::swarm::Bottleneck;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Frozen, JobState, MachineState};
use crate::traffic::SiteTraffic;

/// One message of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Live {
    /// When it was put together, by the server's clock.
    pub at: Timestamp,
    /// Machines that are new or changed in more than the units of their step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<LiveMachine>,
    /// Machines whose step got on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub progress: Vec<LiveProgress>,
    /// Deployments that are new or whose sums changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<LiveDeployment>,
    /// Swarms that are new or got on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub swarms: Vec<LiveSwarm>,
    /// Agents and relays that joined, left or changed their place in a swarm.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<LiveNode>,
    /// Agents and relays whose counts changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<LiveCounts>,
    /// Sites into which something was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteTraffic>,
    /// The freeze: in every snapshot, and when it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<LiveServer>,
    /// The entries that ended.
    #[serde(skip_serializing_if = "LiveGone::is_empty")]
    pub gone: LiveGone,
}

impl Live {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
            && self.progress.is_empty()
            && self.deployments.is_empty()
            && self.swarms.is_empty()
            && self.nodes.is_empty()
            && self.counts.is_empty()
            && self.sites.is_empty()
            && self.server.is_none()
            && self.gone.is_empty()
    }
}

/// The server itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveServer {
    /// The freeze that is in force; null when there is none.
    #[serde(default)]
    pub frozen: Option<Frozen>,
}

/// Entries that ended, by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct LiveGone {
    /// Machines that were forgotten, or left the reader's scope.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineId>,
    /// Deployments that have no machine in the reader's scope any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<DeploymentId>,
    /// Images whose swarm has no member any more; its nodes ended with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub swarms: Vec<ImageId>,
    /// Agents and relays that left their swarm for good, by their `k`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
}

impl LiveGone {
    /// Whether nothing ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
            && self.deployments.is_empty()
            && self.swarms.is_empty()
            && self.nodes.is_empty()
    }
}

/// A machine, by its number. Its step's units are in [`LiveProgress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveMachine {
    /// The machine, by its number.
    pub m: MachineId,
    /// Its name; its id where no admin has named it.
    pub name: String,
    /// The site that it was last seen at.
    pub site: String,
    /// How far it is on its way to an OS.
    pub state: MachineState,
    /// Whether an admin holds it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Whether its identity is in doubt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubted: bool,
    /// Its open job, or else its last; absent when it never had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<LiveJob>,
    /// What is concluded about it, in words, when it is silent or does not come up as ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A machine's newest job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveJob {
    /// The job's number.
    pub j: JobId,
    /// The deployment that it is part of.
    pub d: DeploymentId,
    /// Whether it waits, runs, or how it ended.
    pub state: JobState,
    /// How many attempts were started.
    pub attempt: u32,
    /// The step that it is at, as the machine last reported; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Why it failed, was refused or cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When its state last changed.
    pub changed: Timestamp,
}

/// How far the step of a machine's newest job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveProgress {
    /// The machine, by its number.
    pub m: MachineId,
    /// Units of the step that are done: bytes, or machines at the gate.
    pub d: u64,
    /// Units of the step in all; 0 while unknown.
    pub t: u64,
}

/// A deployment's sums; the jobs of its machines are in [`LiveMachine`] as long as they are the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveDeployment {
    /// The deployment's number.
    pub d: DeploymentId,
    /// The image's name when it was ordered.
    pub image: String,
    /// The image's id.
    pub image_id: ImageId,
    /// When it was ordered.
    pub ordered: Timestamp,
    /// Whether it still takes machines that appear later.
    pub open: bool,
    /// Since when an admin has paused it; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Timestamp>,
    /// Bytes that one copy of the image takes on the network.
    pub wire_bytes: u64,
    /// How many of its jobs are in each state.
    pub jobs: LiveJobs,
}

/// How many jobs are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct LiveJobs {
    /// Their machines have not been given a plan yet.
    pub ordered: u32,
    /// They run.
    pub running: u32,
    /// Their disks are sealed, and the installed OS has not called home yet.
    pub written: u32,
    /// They are done.
    pub deployed: u32,
    /// They failed.
    pub failed: u32,
    /// No plan could be made.
    pub refused: u32,
    /// An admin cancelled them.
    pub cancelled: u32,
}

impl LiveJobs {
    /// Counts one job in this state.
    pub fn count(&mut self, state: JobState) {
        *match state {
            JobState::Ordered => &mut self.ordered,
            JobState::Running => &mut self.running,
            JobState::Written => &mut self.written,
            JobState::Deployed => &mut self.deployed,
            JobState::Failed => &mut self.failed,
            JobState::Refused => &mut self.refused,
            JobState::Cancelled => &mut self.cancelled,
        } += 1;
    }
}

/// The swarm of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveSwarm {
    /// The image, by the hash of its manifest.
    pub image: ImageId,
    /// How many chunks a blank machine has to fetch.
    pub chunks: u32,
    /// Bytes that one copy takes on the network.
    pub wire_bytes: u64,
    /// Bytes of the image that the server has sent so far: over `wire_bytes` these are copies out of the server.
    pub injected_bytes: u64,
}

/// An agent or a relay in a swarm. What it has and sent is in [`LiveCounts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveNode {
    /// Its key in this stream: the job's number, or for a relay `NAME@IMAGE` with the image's first digits.
    pub k: String,
    /// The image of its swarm.
    pub image: ImageId,
    /// The machine, by its number; absent for a relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub m: Option<MachineId>,
    /// The machine's or relay's name.
    pub name: String,
    /// The site it was last seen at.
    pub site: String,
    /// Whether its control stream is connected.
    pub connected: bool,
    /// Whether its disk is sealed.
    pub sealed: bool,
}

/// What an agent or relay has and sent, counted since it joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveCounts {
    /// Its key, that of its [`LiveNode`].
    pub k: String,
    /// How many chunks it has and can serve.
    pub h: u32,
    /// How many chunks are leased to it, to be fetched from the server for its site; absent for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub l: u32,
    /// Bytes that the server sent it.
    pub s: u64,
    /// Bytes that peers sent it, as it reports them.
    pub p: u64,
    /// Bytes that it sent to peers, as it reports them.
    pub u: u64,
    /// What slowed it down when it last reported; absent when it was fetching nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b: Option<Bottleneck>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// One image's swarm in detail: who holds which chunks, and who may take them from whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SwarmDetail {
    /// The image, by the hash of its manifest.
    pub image: ImageId,
    /// How many chunks the image has, holes included: the bits of each map.
    pub places: u32,
    /// The chunks that a blank machine has to fetch, as a map like those of its nodes.
    pub wanted: String,
    /// How many these are.
    pub chunks: u32,
    /// Bytes that one copy takes on the network.
    pub wire_bytes: u64,
    /// Bytes of the image that the server has sent so far.
    pub injected_bytes: u64,
    /// Bytes of the image that the server has sent into each site, by the site's name, counted over its members.
    pub into_sites: std::collections::BTreeMap<String, u64>,
    /// Its agents and relays, including those that are not connected.
    pub nodes: Vec<SwarmNode>,
}

/// One agent or relay of a swarm in detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SwarmNode {
    /// What `swarm status` shows of it.
    #[serde(flatten)]
    pub status: super::NodeStatus,
    /// The chunks that it has: base64 without padding of one bit for each chunk of the image, the lowest bit of a byte
    /// first.
    pub map: String,
    /// The speed of its uplink in bytes a second, as its own reports show it; `None` while it has sent nothing.
    pub uplink: Option<u64>,
    /// Whom it may fetch from, by their places in this list. Which of them sends how much is known to the agents alone.
    pub neighbours: Vec<usize>,
}
