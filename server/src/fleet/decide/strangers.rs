//! Core, part of the fleet: machines that nobody let in ("strangers"): no admin has done anything with them, and no job
//! is for them. They are easily forged, so their number and what is kept of each are limited. Touches `api`, `common`
//! and the other cores of the fleet.

use std::net::IpAddr;
use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::id::{Mac, MachineId};
use common::limits::{BARE_SIGHTINGS_MAX, STRANGER_HARDWARE_BYTES, STRANGERS_MAX};
use jiff::Timestamp;

use super::super::machine::Machine;
use super::Fleet;
use crate::api::shapes::MachineState;

impl Fleet {
    /// Whether an admin has let a machine in, by a command or by an order.
    pub(in super::super) fn is_let_in(&self, id: MachineId) -> bool {
        self.state.machines.get(&id).is_some_and(|machine| !self.is_stranger(machine))
    }

    /// Whether `mac` identifies another machine alone that has reported, or that an admin or an order has named.
    pub(in super::super) fn is_anothers(&self, mac: Mac, id: MachineId) -> bool {
        let mut others = self.state.with_mac(mac).filter(|other| other.id != id);
        others.any(|other| {
            other.fingerprint.owns(mac) && (other.hardware.is_some() || self.is_claimed(other.id))
        })
    }

    /// Whether a job was ever ordered for a machine, or it has a name, a label or a state that an admin gave it.
    pub(in super::super) fn is_claimed(&self, id: MachineId) -> bool {
        let named = self.state.machines.get(&id).is_some_and(Machine::is_claimed);
        named || self.state.newest_job(id).is_some()
    }

    fn is_stranger(&self, machine: &Machine) -> bool {
        machine.state == MachineState::Discovered
            && machine.labels.is_empty()
            && self.state.newest_job(machine.id).is_none()
    }

    /// Whether a report with a new key, of a machine that nobody let in, may be recorded. For a new machine, forgets an
    /// older one if there are too many.
    pub(in super::super) fn admit_stranger(
        &mut self,
        address: Option<IpAddr>,
        is_new: bool,
        now: Timestamp,
    ) -> bool {
        if self.is_tight || address.is_some_and(|address| !self.budgets.new_boot(address, now)) {
            return false;
        }
        !is_new || self.make_room(STRANGERS_MAX, |machine| machine.hardware.is_some())
    }

    /// Whether a machine that only asked to network-boot may be recorded. Forgets an older one if there are too many.
    pub(super) fn admit_sighting(&mut self, now: Timestamp) -> bool {
        !self.is_tight
            && self.budgets.new_sighting(now)
            && self.make_room(BARE_SIGHTINGS_MAX, |machine| machine.hardware.is_none())
    }

    /// Forgets machines of a kind that nobody let in, least recently seen first, until one more makes at most `most`.
    fn make_room(&mut self, most: usize, of_kind: impl Fn(&Machine) -> bool) -> bool {
        let strangers =
            self.state.machines.values().filter(|machine| of_kind(machine) && self.is_stranger(machine));
        let mut silent: Vec<(Timestamp, MachineId)> =
            strangers.map(|machine| (machine.last_seen, machine.id)).collect();
        let over = (silent.len() + 1).saturating_sub(most);
        if over > 0 {
            let _ = silent.select_nth_unstable(over - 1);
        }
        for (_, id) in silent.into_iter().take(over) {
            self.forget(id);
        }
        true
    }

    /// What is recorded of a report: all of it, or shortened if nobody let the machine in.
    pub(in super::super) fn kept(
        &self,
        id: MachineId,
        hardware: &Arc<CheckedHardware>,
    ) -> Arc<CheckedHardware> {
        if self.is_let_in(id) {
            return Arc::clone(hardware);
        }
        match hardware.shortened(STRANGER_HARDWARE_BYTES) {
            Some(short) => Arc::new(short),
            None => Arc::clone(hardware),
        }
    }
}
