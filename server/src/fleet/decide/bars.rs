//! Core, part of the fleet: why a machine gets no plan now, whatever was ordered for it. Checked when an order is
//! shown, when it is placed, when the machine reports, and again when its plan is ready: an admin's command is in force
//! as soon as it was answered. Touches `api`, `common` and the other cores of the fleet.

use common::hardware::Firmware;
use common::id::DeploymentId;
use common::trust::PublicKey;

use super::super::bound::Marks;
use super::super::machine::Machine;
use super::Fleet;
use crate::api::shapes::{Frozen, JobState, MachineState};

/// Why a machine gets no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Bar {
    /// An admin rejected it.
    #[error("this machine is rejected; `swarmboot machine release` ends that")]
    Rejected,
    /// It is retired. No command makes a machine so today, but records may have that state.
    #[error("this machine is retired; `swarmboot machine release` ends that")]
    Retired,
    /// An admin put it on hold.
    #[error("this machine is held; `swarmboot machine release` ends that")]
    Held,
    /// Its identity is in doubt: it shows marks of another machine, but not all of them.
    #[error("it is in doubt which machine this is; `swarmboot machine show` says why")]
    Doubt,
    /// The fleet is frozen.
    #[error("{0}")]
    Frozen(Frozen),
    /// Its deployment is paused.
    #[error("{0} is paused; `swarmboot deploy resume {0}` ends that")]
    Paused(DeploymentId),
    /// As many machines of its deployment are written as may be at once.
    #[error("{deployment} writes {most} machines at once, and this one waits for its turn")]
    Turn {
        /// The deployment.
        deployment: DeploymentId,
        /// The most machines that are written at once.
        most: u32,
    },
    /// It is the machine that the server runs on; the mark that shows it, in words.
    #[error("this is the machine that the server runs on: it shows {0}")]
    ServerItself(String),
}

impl Bar {
    /// Whether it ends by itself, so that the machine had better stay and wait than boot its own disk.
    #[must_use]
    pub(in super::super) fn passes(&self) -> bool {
        matches!(self, Self::Turn { .. })
    }
}

impl Fleet {
    /// Why `machine` may get no plan now; `None` if it may. A freeze is not considered.
    pub(in super::super) fn bar(&self, machine: &Machine) -> Option<Bar> {
        match machine.state {
            MachineState::Rejected => return Some(Bar::Rejected),
            MachineState::Retired => return Some(Bar::Retired),
            _ if machine.held => return Some(Bar::Held),
            _ if !machine.doubts.is_empty() => return Some(Bar::Doubt),
            _ => {}
        }
        // An agent that runs as an ordinary process writes to a file that it was given, not to a disk of the machine.
        let firmware = machine.hardware.as_ref().map(|checked| checked.report().firmware);
        let is_process = firmware == Some(Firmware::None);
        let own = self.settings.own.shows(&Marks::of(&machine.fingerprint)).filter(|_| !is_process);
        own.map(Bar::ServerItself)
    }

    /// Why the boot of `machine` with this key may get no plan now; `None` if it may. During a freeze, only a boot that
    /// got its plan before may get it again.
    pub(in super::super) fn bar_plan(&self, machine: &Machine, key: &PublicKey) -> Option<Bar> {
        let job = self.state.newest_job(machine.id);
        let again = job.is_some_and(|job| job.state == JobState::Running && job.key.as_ref() == Some(key));
        let frozen = self.state.frozen.clone().filter(|_| !again).map(Bar::Frozen);
        self.bar(machine).or(frozen).or_else(|| job.and_then(|job| self.held_back(job)))
    }
}
