//! Machines as they cross the admin socket: what is shown of them and what can be done with them. Touches
//! `common`.

use std::collections::BTreeMap;

use common::hardware::{Firmware, HardwareReport};
use common::id::{Mac, MachineId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{JobShown, Silence};

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

/// Why it is not clear who a machine is: it shows marks of another one on record, and not all of them. It gets no
/// plan until an admin has said whether it is that one (`merge`) or not (`release`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The other machine.
    pub other: MachineId,
    /// The marks that both show.
    pub shared: Vec<String>,
    /// What speaks against their being one.
    pub against: Vec<String>,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it shows {} of {}", self.shared.join(" and "), self.other)?;
        if !self.against.is_empty() {
            write!(f, ", but {}", self.against.join(", "))?;
        }
        Ok(())
    }
}

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineShown {
    /// The number the server gave it.
    pub id: MachineId,
    /// The name an admin gave it; else its id.
    pub name: String,
    /// How far it is on its way to an OS, and whether it is wanted at all.
    pub state: MachineState,
    /// Whether an admin holds it: nothing is ordered for it until it is released.
    pub held: bool,
    /// Why it is not clear who it is; empty when it is.
    #[serde(default)]
    pub doubts: Vec<Doubt>,
    /// The site it was last seen at.
    pub site: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its Ethernet addresses.
    pub macs: Vec<Mac>,
    /// What started it last.
    pub firmware: Option<Firmware>,
    /// When it was first heard of.
    pub first_seen: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// Its open or last job.
    pub job: Option<JobShown>,
    /// The image whose OS called home last.
    pub deployed_image: Option<String>,
    /// What is concluded of it, when it is silent or does not come up as ordered.
    #[serde(default)]
    pub note: Option<Silence>,
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
    /// The machines that are meant.
    pub selection: Selection,
    /// What is to be done with each of them.
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
    /// End a hold, a rejection, a failure or a doubt: it is another machine than those whose marks it shows.
    Release,
    /// It is the machine that this names, which keeps its name, labels and orders and takes over what this one shows.
    Merge {
        /// Its id, name, serial or Ethernet address.
        into: String,
    },
    /// Delete all records of it but its events.
    Forget,
}

/// What a command did to one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineChanged {
    /// The machine, by its number.
    pub machine: MachineId,
    /// The name an admin gave it; else its id.
    pub name: String,
    /// What was done, or would be.
    pub text: String,
}
