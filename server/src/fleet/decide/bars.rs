//! Core, part of the fleet: why a machine is given nothing at this instant, whatever was ordered for it. Asked when
//! an order is shown, when it is placed, when the machine reports, and once more when its plan is ready: an
//! admin's word counts from the moment that it was answered. Touches `api`, `common` and the other cores of the
//! fleet.

use common::hardware::Firmware;
use common::trust::PublicKey;

use super::super::bound::Marks;
use super::super::machine::Machine;
use super::Fleet;
use crate::api::shapes::{Frozen, JobState, MachineState};

/// Why a machine is given nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Bar {
    /// An admin wants nothing to do with it.
    #[error("this machine is rejected; `swarmboot machine release` ends that")]
    Rejected,
    /// It is out of service.
    #[error("this machine is retired; `swarmboot machine release` ends that")]
    Retired,
    /// An admin holds it.
    #[error("this machine is held; `swarmboot machine release` ends that")]
    Held,
    /// It shows marks of another machine, and not all of them.
    #[error("it is in doubt which machine this is; `swarmboot machine show` says why")]
    Doubt,
    /// Nothing new begins.
    #[error("{0}")]
    Frozen(Frozen),
    /// It is the server's own.
    #[error("this is the machine that the server runs on: it shows {0}")]
    ServerItself(String),
}

impl Fleet {
    /// Why `machine` is given nothing now, if something is in the way.
    pub(in super::super) fn bar(&self, machine: &Machine) -> Option<Bar> {
        match machine.state {
            MachineState::Rejected => return Some(Bar::Rejected),
            MachineState::Retired => return Some(Bar::Retired),
            _ if machine.held => return Some(Bar::Held),
            _ if !machine.doubts.is_empty() => return Some(Bar::Doubt),
            _ => {}
        }
        // An agent as an ordinary process writes to a file that somebody named to it, not to a machine.
        let firmware = machine.hardware.as_ref().map(|checked| checked.report().firmware);
        let is_process = firmware == Some(Firmware::None);
        let own = self.settings.own.shows(&Marks::of(&machine.fingerprint)).filter(|_| !is_process);
        own.map(Bar::ServerItself)
    }

    /// Why the boot of `machine` with this key is given no plan now. While nothing new begins it is given again
    /// what it was given before.
    pub(in super::super) fn bar_plan(&self, machine: &Machine, key: &PublicKey) -> Option<Bar> {
        let job = self.state.newest_job(machine.id);
        let again = job.is_some_and(|job| job.state == JobState::Running && job.key.as_ref() == Some(key));
        let frozen = self.state.frozen.clone().filter(|_| !again).map(Bar::Frozen);
        self.bar(machine).or(frozen)
    }
}
