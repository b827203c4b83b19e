//! Machines in the admin's API: how they are shown, and the commands for them. Touches `common`.

use std::collections::BTreeMap;

use common::hardware::{Firmware, HardwareReport};
use common::id::{Mac, MachineId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{JobShown, Selection, Silence};

/// The states of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// It was seen; no admin has done anything with it yet.
    Discovered,
    /// An admin has named, labelled or held it.
    Inspected,
    /// An admin approved it.
    Approved,
    /// It has an open job.
    Deploying,
    /// Its installed OS called home.
    Deployed,
    /// Its last job failed.
    Failed,
    /// An admin rejected it: it is never answered.
    Rejected,
    /// Taken out of service; kept in the records only. No command sets it today.
    Retired,
}

impl MachineState {
    /// The state's name, as it is shown and kept in the records.
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

/// Why a machine's identity is in doubt: it shows marks of another one on record, and not all of them. It gets no plan
/// until an admin has said whether it is that one (`merge`) or not (`release`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Doubt {
    /// The other machine, whose marks it shows.
    pub other: MachineId,
    /// The marks that both have, each in words.
    pub shared: Vec<String>,
    /// What contradicts that they are one machine, each in words.
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

/// A machine, as `machine list` and `machine show` print it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineShown {
    /// The number that the server gave it.
    pub id: MachineId,
    /// The name that an admin gave it; its id where there is none.
    pub name: String,
    /// How far it is on its way to an OS, and whether an admin rejected it.
    pub state: MachineState,
    /// Whether an admin holds it: nothing is ordered for it until it is released.
    pub held: bool,
    /// Whether it stays in the loader when it network-boots, for an admin to look at its hardware.
    #[serde(default)]
    pub stays: bool,
    /// Why its identity is in doubt; empty when it is not.
    #[serde(default)]
    pub doubts: Vec<Doubt>,
    /// The site that it was last seen at.
    pub site: String,
    /// Labels that an admin gave it, as keys and values.
    pub labels: BTreeMap<String, String>,
    /// Labels that rules give it for what it is; those that an admin gave it count before them.
    #[serde(default)]
    pub rule_labels: BTreeMap<String, String>,
    /// All Ethernet addresses that it was ever seen with.
    pub macs: Vec<Mac>,
    /// The firmware that it last booted with; `None` when it has not reported.
    pub firmware: Option<Firmware>,
    /// When anything was first seen of it.
    pub first_seen: Timestamp,
    /// When anything was last seen of it.
    pub last_seen: Timestamp,
    /// Its open job, or else its last; `None` when it never had one.
    pub job: Option<JobShown>,
    /// The name of the image whose OS called home last.
    pub deployed_image: Option<String>,
    /// What is concluded about it, when it is silent or does not come up as ordered.
    #[serde(default)]
    pub note: Option<Silence>,
    /// Its last hardware report, in a list without its devices; `None` while only DHCP, TFTP or HTTP have seen it.
    pub hardware: Option<HardwareReport>,
}

/// A command for machines.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineCommand {
    /// The machines that the command is for.
    pub selection: Selection,
    /// What is to be done with each of them.
    pub action: MachineAction,
    /// Whether this is a dry run, which only shows what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// A request to wake machines with magic packets.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineWake {
    /// The machines to wake.
    pub selection: Selection,
    /// Whether this is a dry run, which only shows what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What can be done with a machine.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MachineAction {
    /// Approves it: open deployments may take it.
    Approve,
    /// Never answers it again.
    Reject,
    /// Gives it this name.
    Name(String),
    /// Sets and removes labels.
    Label {
        /// Labels to set, as keys and values.
        set: BTreeMap<String, String>,
        /// Keys of labels to remove.
        remove: Vec<String>,
    },
    /// Orders nothing for it until it is released.
    Hold,
    /// From its next network boot on it stays in the loader, whatever is on its disks, until it is released or ordered
    /// something for.
    Inspect,
    /// Ends a hold, a stay in the loader, a rejection, a failure or a doubt; for a doubt it says that this is another machine than those
    /// whose marks it shows.
    Release,
    /// Merges it into the named machine, which keeps its name, labels and orders and takes over what this one shows.
    Merge {
        /// Its id, name, serial or Ethernet address.
        into: String,
    },
    /// Deletes all records of it but its events.
    Forget,
}

/// How many machines a selection means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineCount {
    /// Their number.
    pub count: usize,
    /// Why it is none, with what comes nearest; null where there are some, or nothing is known to say.
    pub nobody: Option<String>,
}

/// What a command did with one machine, or would do.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineChanged {
    /// The machine, by its number.
    pub machine: MachineId,
    /// The machine's name; its id where no admin has named it.
    pub name: String,
    /// What was done, or would be, as one line.
    pub text: String,
}
