//! The recorded form of API and fleet types that are stored as a word or as JSON. They are types of their own, so that
//! the API can change while rows that were written years ago stay readable. A field is only ever added here, with a
//! default for rows that lack it.
//!
//! Hardware reports, disks, hooks, sources, steps and user-data are recorded in the formats of `common`, which have to stay
//! readable for other reasons as well. Touches `api`, `common`, `fleet::bound`, `fleet::selectors`.

use std::collections::BTreeSet;

use common::hooks::{Hook, RootRule};
use common::id::{ImageId, Mac, MachineId};
use common::plan::{DiskIdentity, Finish};
use common::user_data::UserData;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::shapes::{
    DeployOrder, Doubt, JobState, MachineState, Selection, Shown, ShownLine, UsedProfile,
};
use crate::fleet::bound::Marks;
use crate::fleet::selectors::{is_one_label, of_one_label};

/// Defines the recorded form of an enum of the API, with the same variants and the word that is recorded for each, and
/// the conversions between the two.
macro_rules! words {
    ($(#[$doc:meta])* $stored:ident for $shown:ident: $($variant:ident = $word:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        pub(super) enum $stored {
            $(#[serde(rename = $word)] $variant,)+
        }

        impl $stored {
            /// The word that is recorded.
            pub(super) fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl From<$shown> for $stored {
            fn from(shown: $shown) -> Self {
                match shown {
                    $($shown::$variant => Self::$variant,)+
                }
            }
        }

        impl From<$stored> for $shown {
            fn from(stored: $stored) -> Self {
                match stored {
                    $($stored::$variant => Self::$variant,)+
                }
            }
        }
    };
}

words! {
    /// The column `state` of a machine, and `machine_before` of a job.
    StoredMachineState for MachineState:
    Discovered = "discovered",
    Inspected = "inspected",
    Approved = "approved",
    Deploying = "deploying",
    Deployed = "deployed",
    Failed = "failed",
    Rejected = "rejected",
    Retired = "retired",
}

words! {
    /// The column `state` of a job.
    StoredJobState for JobState:
    Ordered = "ordered",
    Running = "running",
    Written = "written",
    Deployed = "deployed",
    Failed = "failed",
    Refused = "refused",
    Cancelled = "cancelled",
}

/// An entry of the column `doubts` of a machine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredDoubt {
    other: MachineId,
    shared: Vec<String>,
    against: Vec<String>,
}

impl From<&Doubt> for StoredDoubt {
    fn from(doubt: &Doubt) -> Self {
        let Doubt { other, shared, against } = doubt.clone();
        Self { other, shared, against }
    }
}

impl From<StoredDoubt> for Doubt {
    fn from(stored: StoredDoubt) -> Self {
        let StoredDoubt { other, shared, against } = stored;
        Self { other, shared, against }
    }
}

/// The column `marks` of a job: the marks of the machine that the job is bound to.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoredMarks {
    system_serial: Option<String>,
    chassis_serial: Option<String>,
    board_serial: Option<String>,
    uuid: Option<String>,
    macs: BTreeSet<Mac>,
}

impl From<&Marks> for StoredMarks {
    fn from(marks: &Marks) -> Self {
        // `uuids` is used only for a machine that is compared, and is not recorded.
        let Marks { system_serial, chassis_serial, board_serial, uuid, uuids: _, macs } = marks.clone();
        Self { system_serial, chassis_serial, board_serial, uuid, macs }
    }
}

impl From<StoredMarks> for Marks {
    fn from(stored: StoredMarks) -> Self {
        let StoredMarks { system_serial, chassis_serial, board_serial, uuid, macs } = stored;
        Self { system_serial, chassis_serial, board_serial, uuid, uuids: BTreeSet::new(), macs }
    }
}

/// The selection of an order, as it was given.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredSelection {
    machines: Vec<String>,
    labels: Vec<String>,
    /// The grammar of `labels`: 0, each is one label with its value as it stands, as all were once; 1, selectors.
    #[serde(skip_serializing_if = "is_zero")]
    grammar: u8,
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// What an admin was shown before the order. It is removed before an order is recorded; rows of earlier versions may
/// have it.
#[derive(Debug, Serialize, Deserialize)]
struct StoredShown {
    image: ImageId,
    machines: Vec<StoredShownLine>,
}

/// One machine that the admin was shown, with the disk that would be written.
#[derive(Debug, Serialize, Deserialize)]
struct StoredShownLine {
    machine: MachineId,
    disk: Option<DiskIdentity>,
}

/// The profile that an order was placed by, as it was then.
#[derive(Debug, Serialize, Deserialize)]
struct StoredProfile {
    name: String,
    number: u64,
    /// Milliseconds since 1970.
    added: i64,
}

impl From<UsedProfile> for StoredProfile {
    fn from(used: UsedProfile) -> Self {
        let UsedProfile { name, number, added } = used;
        Self { name, number, added: added.as_millisecond() }
    }
}

impl From<StoredProfile> for UsedProfile {
    fn from(stored: StoredProfile) -> Self {
        let StoredProfile { name, number, added } = stored;
        // A time that makes no sense does not make the order unreadable.
        Self { name, number, added: Timestamp::from_millisecond(added).unwrap_or_default() }
    }
}

/// The column `demand` of a deployment: the order as it was placed. The column `wish` of a profile: what it says, as an
/// order that names no machines.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredOrder {
    image: String,
    selection: StoredSelection,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    disk: String,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    ssh_keys: Vec<String>,
    #[serde(default)]
    user_data: Option<UserData>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hooks: Vec<Hook>,
    #[serde(default, skip_serializing_if = "is_auto")]
    hook_root: RootRule,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    secrets_removed: bool,
    #[serde(default)]
    no_personalise: bool,
    #[serde(default)]
    no_confirm: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finish: Option<Finish>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<StoredProfile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_parallel: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_machines: Option<u32>,
    #[serde(default)]
    gather: Option<u32>,
    #[serde(default)]
    gather_seconds: Option<u64>,
    #[serde(default)]
    expires_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown: Option<StoredShown>,
    #[serde(default)]
    accept: Vec<String>,
    #[serde(default)]
    dry_run: bool,
}

fn is_auto(rule: &RootRule) -> bool {
    *rule == RootRule::Auto
}

impl From<&DeployOrder> for StoredOrder {
    fn from(order: &DeployOrder) -> Self {
        let order = order.clone();
        let line = |line: ShownLine| StoredShownLine { machine: line.machine, disk: line.disk };
        let Selection { machines, labels } = order.selection;
        Self {
            image: order.image,
            selection: StoredSelection {
                grammar: u8::from(!labels.iter().all(|label| is_one_label(label))),
                machines,
                labels,
            },
            open: order.open,
            limit: order.limit,
            disk: order.disk,
            hostname: order.hostname,
            ssh_keys: order.ssh_keys,
            user_data: order.user_data,
            hooks: order.hooks,
            hook_root: order.hook_root,
            secrets_removed: order.secrets_removed,
            no_personalise: order.no_personalise,
            no_confirm: order.no_confirm,
            finish: order.finish,
            profile: order.profile.map(StoredProfile::from),
            max_parallel: order.max_parallel,
            max_machines: order.max_machines,
            gather: order.gather,
            gather_seconds: order.gather_seconds,
            expires_seconds: order.expires_seconds,
            shown: order.shown.map(|shown| StoredShown {
                image: shown.image,
                machines: shown.machines.into_iter().map(line).collect(),
            }),
            accept: order.accept,
            dry_run: order.dry_run,
        }
    }
}

impl From<StoredOrder> for DeployOrder {
    fn from(stored: StoredOrder) -> Self {
        let line =
            |line: StoredShownLine| ShownLine { machine: line.machine, disk: line.disk, profile: None };
        let StoredSelection { machines, labels, grammar } = stored.selection;
        let read = |label: String| if grammar == 0 { of_one_label(&label) } else { label };
        Self {
            image: stored.image,
            selection: Selection { machines, labels: labels.into_iter().map(read).collect() },
            open: stored.open,
            limit: stored.limit,
            disk: stored.disk,
            hostname: stored.hostname,
            ssh_keys: stored.ssh_keys,
            user_data: stored.user_data,
            hooks: stored.hooks,
            hook_root: stored.hook_root,
            secrets_removed: stored.secrets_removed,
            no_personalise: stored.no_personalise,
            no_confirm: stored.no_confirm,
            finish: stored.finish,
            profiles: vec![],
            profile: stored.profile.map(UsedProfile::from),
            max_parallel: stored.max_parallel,
            max_machines: stored.max_machines,
            gather: stored.gather,
            gather_seconds: stored.gather_seconds,
            expires_seconds: stored.expires_seconds,
            shown: stored.shown.map(|shown| Shown {
                image: shown.image,
                machines: shown.machines.into_iter().map(line).collect(),
                profiles: vec![],
            }),
            accept: stored.accept,
            dry_run: stored.dry_run,
        }
    }
}
