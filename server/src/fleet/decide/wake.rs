//! Core, part of the fleet: who of the machines that wait with an open request is woken: only whose report would be
//! answered otherwise now. That is found by comparing and not by listing commands, so no command can be forgotten here.
//! Touches `api`, `common` and the other cores of the fleet.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use common::hardware::Firmware;
use common::id::{DeploymentId, Hash, JobId, MachineId};
use common::limits::{WAKES_AT_ONCE, WAKES_EVERY};
use common::plan::Instruction;
use common::trust::PublicKey;
use common::wire::http::WaitRequest;
use jiff::Timestamp;

use super::super::boot_policy::IdleBoot;
use super::super::machine::Machine;
use super::super::silence::Seen;
use super::super::state::Change;
use super::Fleet;
use super::waiters::{Heard, Outlook, Told, Wake};
use crate::api::shapes::JobState;

impl Fleet {
    /// Remembers that the report `report` of the boot with `key` was answered with `instruction`, so that its machine can
    /// wait. Not where it is only a matter of time until the machine is told something else.
    pub fn answered(&mut self, key: &PublicKey, report: Hash, instruction: &Instruction) {
        let Some(machine) = self.state.by_key(key) else { return };
        let id = machine.id;
        let (outlook, reason) = self.outlook(machine, key);
        self.waiters.remove(id);
        let lasts = match instruction {
            // An agent that has ended this attempt waits for the next one.
            Instruction::Deploy(_) => matches!(outlook, Outlook::Plan(..)),
            Instruction::Wait { .. } => matches!(outlook, Outlook::Wait { .. }),
            Instruction::BootDisk { .. } => false,
        };
        if lasts {
            let told = Told { key: *key, report, outlook, reason, number: 0, waits: None };
            self.waiters.told.insert(id, told);
        }
    }

    /// Takes the request of a waiting machine from `address`; its signature by the key in it has been checked.
    pub fn wait(&mut self, request: &WaitRequest, address: IpAddr, now: Timestamp) -> Heard {
        let Some(machine) = self.state.by_key(&request.key).cloned() else { return Heard::Unknown };
        let id = machine.id;
        let (outlook, reason) = self.outlook(&machine, &request.key);
        let told = self.waiters.told.get_mut(&id);
        let Some(told) = told.filter(|told| told.key == request.key && told.report == request.report) else {
            return Heard::Unknown;
        };
        if request.number <= told.number {
            self.dropped += 1;
            return Heard::Repeated;
        }
        told.number = request.number;
        // A machine in doubt is looked at anew whenever it asks: what settles it may be another machine's doing.
        let is_sure = machine.doubts.is_empty() || request.number == 1;
        let same = told.outlook == outlook && told.reason == reason && is_sure;
        self.waiters.leave(id);
        self.put_machine(Machine { last_seen: now, ..machine });
        self.boots.hear(request.key, now);
        self.remember(address, id);
        self.trace(id, Seen::Reported, now);
        if !same {
            return Heard::News;
        }
        if !self.has_place(id, address) {
            return Heard::Full;
        }
        self.waiters.enter(id, address);
        Heard::Waits(self.settings.waiters.time)
    }

    /// Whether one more request may stay open. The last sixth is kept for machines that an admin let in: keys of
    /// strangers cost their maker nothing.
    fn has_place(&self, id: MachineId, address: IpAddr) -> bool {
        let bounds = self.settings.waiters;
        let all = if self.is_let_in(id) { bounds.all } else { bounds.all - bounds.all / 6 };
        let own = self.waiters.open_from(address);
        self.waiters.open() < all && own < bounds.per_address
    }

    /// The request of the boot with `key` is not open any more: it was answered, or its connection has ended.
    pub fn waits_no_more(&mut self, key: &PublicKey) {
        if let Some(id) = self.state.by_key(key).map(|machine| machine.id) {
            self.waiters.leave(id);
        }
    }

    /// How many requests of waiting machines are open.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.open()
    }

    /// Adds to the effects who is to be woken because of the changes in them.
    pub(super) fn wake_waiters(&mut self) {
        if self.waiters.told.is_empty() {
            return;
        }
        let (mut touched, mut everyone) = (BTreeSet::new(), false);
        let is_waiting = |id| self.waiters.told.get(&id).is_some_and(|told| told.waits.is_some());
        for change in &self.after.changes {
            match change {
                Change::Machine(machine) => drop(touched.insert(machine.id)),
                Change::Job(job) => {
                    touched.insert(job.machine);
                    touched.extend(self.next_in_turn(job, is_waiting));
                }
                Change::Forget(id) => drop(touched.insert(*id)),
                // An open order may take any machine, and a freeze holds all of them.
                Change::Deployment(_) | Change::Frozen(_) => everyone = true,
                Change::Hardware(..)
                | Change::Relay(_)
                | Change::Stage(_)
                | Change::Unstage(_)
                | Change::Token(_)
                | Change::TokenGone(_)
                | Change::Profile(_)
                | Change::ProfileGone(_)
                | Change::Answer(_)
                | Change::AnswerGone { .. }
                | Change::Cursor { .. }
                | Change::Event(_) => {}
            }
        }
        if everyone {
            touched = self.waiters.told.keys().copied().collect();
        }
        // Of machines that wait for their turn, only as many are woken as there are places.
        let mut places: HashMap<DeploymentId, usize> = HashMap::new();
        for id in touched {
            let Some(told) = self.waiters.told.get(&id) else { continue };
            let (key, waits) = (told.key, told.waits.is_some());
            let present =
                self.state.machines.get(&id).filter(|known| known.boot.is_some_and(|boot| boot.key == key));
            match present.map(|machine| self.outlook(machine, &key).0) {
                Some(outlook) if outlook == told.outlook => continue,
                Some(Outlook::Plan(job, _)) if waits && !self.takes_place(job, &mut places) => continue,
                Some(_) => self.waiters.leave(id),
                // It was forgotten, or another boot of it has reported.
                None => self.waiters.remove(id),
            }
            if waits {
                let before = u32::try_from(self.after.woken.len() / WAKES_AT_ONCE).unwrap_or(u32::MAX);
                self.after.woken.push(Wake { key, pause: WAKES_EVERY.saturating_mul(before) });
            }
        }
    }

    /// Takes one of the places of the deployment of `job`; false where none is left in `places`, which has those of the
    /// deployments that were asked for before.
    fn takes_place(&self, job: JobId, places: &mut HashMap<DeploymentId, usize>) -> bool {
        let job = self.state.jobs.get(&job).filter(|job| job.state == JobState::Ordered);
        let Some(order) = job.and_then(|job| self.state.deployments.get(&job.deployment)) else {
            return true;
        };
        let left = places.entry(order.id).or_insert_with(|| self.state.places(order));
        let takes = *left > 0;
        *left = left.saturating_sub(1);
        takes
    }

    /// What a report of the boot with `key` of `machine` would come to now, and the reason that it would be given.
    fn outlook(&self, machine: &Machine, key: &PublicKey) -> (Outlook, String) {
        let bar = self.bar_plan(machine, key);
        let job = self.state.newest_job(machine.id);
        if bar.is_none() {
            let wanted = job.filter(|job| job.wants_plan());
            if let Some(job) = wanted.filter(|job| self.state.deployments.contains_key(&job.deployment)) {
                return (Outlook::Plan(job.id, job.attempt), String::new());
            }
            if let Some(order) = self.open_for(machine) {
                return (Outlook::Open(order), String::new());
            }
        }
        let reason = self.reason(machine.id, bar);
        let report = machine.hardware.as_ref().map(|hardware| hardware.report());
        let is_process = report.is_some_and(|report| report.firmware == Firmware::None);
        if job.is_some_and(|job| job.sealed) && !is_process && machine.idle_boot != IdleBoot::Stay {
            return (Outlook::Disk, reason);
        }
        let is_cut = report.is_some_and(|report| !report.truncated.is_empty());
        let stays = machine.idle_boot == IdleBoot::Stay;
        (Outlook::Wait { short: is_cut && !self.is_let_in(machine.id), stays }, reason)
    }
}

#[cfg(test)]
mod tests;
