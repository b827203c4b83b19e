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
//! | `GET /logs?…` ([`LogQuery`]) | | lines of [`LogEvent`]; does not end with `follow` |
//! | `GET /swarm` | | list of `swarm` status, one per image |
//!
//! An error is a [`common::wire::http::Refused`] with a status of 4xx or 5xx.

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::hardware::{Firmware, HardwareReport};
use common::id::{DeploymentId, ImageId, JobId, Mac, MachineId};
use common::plan::Finish;
use common::step::{Sources, Step, What};
use common::trust::PublicKey;
use common::wire::http::Refused;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// Its version.
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
}

/// Where the parts of a boot kit come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KitSource {
    /// The server's own installation.
    Host,
    /// A folder laid out like a root file system.
    Folder(PathBuf),
    /// A Debian package.
    Deb(PathBuf),
}

/// An order to import a boot kit. Paths are read by the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KitImport {
    /// The kit's name; its kernel's version when none is given.
    pub name: Option<String>,
    /// Which kernel, where the sources hold several.
    pub kernel: Option<String>,
    /// The parts.
    pub sources: Vec<KitSource>,
}

/// A boot kit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KitShown {
    /// Its name.
    pub name: String,
    /// Its kernel's version.
    pub kernel: String,
    /// Its architecture.
    pub architecture: String,
    /// Whether machines are booted with it.
    pub in_use: bool,
    /// When it was imported.
    pub imported: Timestamp,
    /// How many modules it has.
    pub modules: u64,
    /// How many firmware files it has.
    pub firmware_files: u64,
    /// Network boot programs that it has.
    pub boot_programs: Vec<String>,
    /// Bytes of the kernel.
    pub kernel_bytes: u64,
    /// Bytes of the loader initramfs, compressed.
    pub loader_bytes: u64,
    /// What it lacks, each with the package that has it.
    pub missing: Vec<String>,
}

/// An order to add an image from a file that the server can read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageAdd {
    /// The image's name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its sector size, where that cannot be seen from its partition table.
    pub sector_bytes: Option<u32>,
}

/// An image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageShown {
    /// Its name.
    pub name: String,
    /// The hash of its manifest.
    pub id: ImageId,
    /// When it was added.
    pub added: Timestamp,
    /// Bytes, raw.
    pub bytes: u64,
    /// Wire bytes of one copy: what it costs a line.
    pub wire_bytes: u64,
    /// How many chunks it has.
    pub chunks: u32,
    /// How many of them are zeros.
    pub zero_chunks: u32,
    /// Sector size.
    pub sector_bytes: u32,
    /// `gpt`, `mbr` or `none`.
    pub partition_table: String,
    /// What it was made from: a file's name or `standard input`, and its format.
    pub source: String,
}

/// What `image verify` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageVerified {
    /// The image.
    pub name: String,
    /// Chunks that were checked.
    pub chunks: u32,
    /// Chunks that are damaged or gone.
    pub damaged: Vec<u32>,
}

/// The states of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// It showed itself; nobody has said anything about it.
    Discovered,
    /// An admin has named, labelled or held it.
    Inspected,
    /// An admin approved it.
    Approved,
    /// A job is open.
    Deploying,
    /// Its installed OS called home.
    Deployed,
    /// Its last job failed.
    Failed,
    /// An admin wants nothing to do with it: never answered.
    Rejected,
    /// Taken out of service; kept for the record.
    Retired,
}

impl MachineState {
    /// The state's name, as it is shown and kept.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Inspected => "inspected",
            Self::Approved => "approved",
            Self::Deploying => "deploying",
            Self::Deployed => "deployed",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Retired => "retired",
        }
    }
}

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineShown {
    /// The number the server gave it.
    pub id: MachineId,
    /// The name an admin gave it; else its id.
    pub name: String,
    /// Its state.
    pub state: MachineState,
    /// Whether an admin holds it: nothing is ordered for it until it is released.
    pub held: bool,
    /// The site it was last seen at.
    pub site: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its Ethernet addresses.
    pub macs: Vec<Mac>,
    /// What started it last.
    pub firmware: Option<Firmware>,
    /// When it was first and last heard of.
    pub first_seen: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// Its open or last job.
    pub job: Option<JobShown>,
    /// The image whose OS called home last.
    pub deployed_image: Option<String>,
    /// Its last hardware report, in a list without its devices; none while it was only seen by DHCP.
    pub hardware: Option<HardwareReport>,
}

/// Machines named by an admin: ids, names, serials, Ethernet addresses, hostlists such as `rack1-[01-16]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Names, each maybe a hostlist.
    pub machines: Vec<String>,
    /// `key=value`: all of them must match.
    pub labels: Vec<String>,
}

/// Something to do with machines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineCommand {
    /// Which.
    pub selection: Selection,
    /// What.
    pub action: MachineAction,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What can be done with a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineAction {
    /// It may be deployed by open deployments.
    Approve,
    /// Never answer it again.
    Reject,
    /// Give it a name.
    Name(String),
    /// Set and remove labels.
    Label {
        /// To set.
        set: BTreeMap<String, String>,
        /// To remove.
        remove: Vec<String>,
    },
    /// Order nothing for it until it is released.
    Hold,
    /// End a hold, a rejection or a failure.
    Release,
    /// Delete all records of it but its events.
    Forget,
}

/// What a command did to one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineChanged {
    /// The machine.
    pub machine: MachineId,
    /// Its name.
    pub name: String,
    /// What was done, or would be.
    pub text: String,
}

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
    /// cloud-init user-data.
    #[serde(default)]
    pub user_data: Option<String>,
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
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
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
}

/// What an order means for one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployLine {
    /// The machine.
    pub machine: MachineId,
    /// Its name.
    pub name: String,
    /// The disk that will be written and what stands on it, when its hardware is known.
    pub target: Option<String>,
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
    /// The job.
    pub id: JobId,
    /// The deployment it is part of.
    pub deployment: DeploymentId,
    /// The machine.
    pub machine: MachineId,
    /// The machine's name.
    pub name: String,
    /// The image's name.
    pub image: String,
    /// Its state.
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
    /// When it last changed.
    pub changed: Timestamp,
}

/// A deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeploymentShown {
    /// Its number.
    pub id: DeploymentId,
    /// The image's name.
    pub image: String,
    /// The image.
    pub image_id: ImageId,
    /// When it was ordered.
    pub ordered: Timestamp,
    /// Whether it takes machines that appear later.
    pub open: bool,
    /// Wire bytes of one copy of the image.
    pub wire_bytes: u64,
    /// Its jobs.
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
    /// The deployment.
    pub deployment: Option<DeploymentId>,
    /// The job.
    pub job: Option<JobId>,
    /// The job's attempt.
    pub attempt: Option<u32>,
    /// The step.
    pub step: Step,
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// Where the bytes came from so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Sources>,
}
