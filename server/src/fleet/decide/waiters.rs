//! Core: the machines that wait for an order with an open request ("waiters"): what each was told on its last report, and
//! how many requests are open. Nothing of it is recorded: after a restart every machine that waits reports once. Who is
//! woken is decided in `wake`. Touches `common`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use common::id::{DeploymentId, Hash, JobId, MachineId};
use common::trust::PublicKey;

/// The answer to a waiting machine's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// No machine's present boot was told anything lasting on that report.
    Unknown,
    /// The request was made before: it is a replay.
    Repeated,
    /// A report would be answered otherwise now.
    News,
    /// Nothing has changed, and as many requests as may be are open.
    Full,
    /// Nothing has changed: the request stays open, for at most this long.
    Waits(Duration),
}

/// A machine whose open request is to be answered: it is to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// The key of its boot.
    pub key: PublicKey,
    /// How long it pauses before that; not zero where many are woken at once.
    pub pause: Duration,
}

/// What a report of a machine would come to, as far as a machine that waits should report because of it. The reason for
/// waiting is no part of it: a freeze would wake the whole fleet, only to show another text on its consoles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// The plan of this job, which has begun so many attempts.
    Plan(JobId, u32),
    /// A new job of this open deployment.
    Open(DeploymentId),
    /// Nothing is to be done, and its disk was sealed by a job.
    Disk,
    /// Nothing is to be done.
    Wait {
        /// Whether its report was kept shortened because nobody has let it in: once somebody has, it is to report again,
        /// or an order would be previewed without the disks that were left out.
        short: bool,
        /// Whether an admin has it stay in the loader, although it may have a disk to boot.
        stays: bool,
    },
}

/// What the present boot of a machine was told on its last report.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) key: PublicKey,
    pub(super) report: Hash,
    pub(super) outlook: Outlook,
    pub(super) reason: String,
    /// The number of its last request.
    pub(super) number: u64,
    /// The address from which its request is open; `None` while none is.
    pub(super) waits: Option<IpAddr>,
}

/// What waiting machines were told, and whose requests are open.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    pub(super) told: BTreeMap<MachineId, Told>,
    open: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Waiters {
    /// The request of machine `id` is open, from `address`.
    pub(super) fn enter(&mut self, id: MachineId, address: IpAddr) {
        self.leave(id);
        if let Some(told) = self.told.get_mut(&id) {
            told.waits = Some(address);
            self.open += 1;
            *self.by_address.entry(address).or_default() += 1;
        }
    }

    /// The request of machine `id`, if one is open, is so no more.
    pub(super) fn leave(&mut self, id: MachineId) {
        let Some(address) = self.told.get_mut(&id).and_then(|told| told.waits.take()) else { return };
        self.open -= 1;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// Forgets what machine `id` was told.
    pub(super) fn remove(&mut self, id: MachineId) {
        self.leave(id);
        self.told.remove(&id);
    }

    /// How many requests are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many of them are from `address`.
    pub(super) fn open_from(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).copied().unwrap_or(0)
    }
}
