//! Core: everything the fleet knows, and the changes that take it from one state to the next. A change is
//! both what is applied here and what is written to the records, so that the two cannot tell different
//! stories. Touches `api`, `common` and the other cores of the fleet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, JobId, Mac, MachineId};
use common::trust::PublicKey;

use super::deployment::Deployment;
use super::job::Job;
use super::machine::Machine;
use super::standing::Standings;
use crate::api::{Frozen, LogEvent};

/// One change of what the fleet knows.
#[derive(Debug, Clone)]
pub enum Change {
    /// A machine is new or different; its hardware is not part of this.
    Machine(Box<Machine>),
    /// A machine's hardware is this.
    Hardware(MachineId, Arc<CheckedHardware>),
    /// A machine and its jobs are forgotten.
    Forget(MachineId),
    /// A deployment is new or different.
    Deployment(Box<Deployment>),
    /// A job is new or different.
    Job(Box<Job>),
    /// Nothing new begins, or it may again.
    Frozen(Option<Frozen>),
    /// Something happened; it is only ever added.
    Event(Box<LogEvent>),
}

/// Everything the fleet knows but its events.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// All machines.
    pub machines: BTreeMap<MachineId, Machine>,
    /// All deployments.
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    /// All jobs.
    pub jobs: BTreeMap<JobId, Job>,
    /// Set while nothing new begins.
    pub frozen: Option<Frozen>,
    /// The number of the last event.
    pub last_event: u64,
    /// The highest numbers ever given, so that no number is given twice after a machine was forgotten.
    pub last_machine: u64,
    /// As `last_machine`.
    pub last_job: u64,
    newest_job: HashMap<MachineId, JobId>,
    by_key: HashMap<PublicKey, MachineId>,
    by_mac: HashMap<Mac, MachineId>,
}

impl State {
    /// Applies one change.
    pub fn adopt(&mut self, change: &Change) {
        match change {
            Change::Machine(machine) => self.adopt_machine(machine),
            Change::Hardware(id, hardware) => {
                if let Some(machine) = self.machines.get_mut(id) {
                    machine.hardware = Some(Arc::clone(hardware));
                }
            }
            Change::Forget(id) => self.forget(*id),
            Change::Deployment(deployment) => {
                self.deployments.insert(deployment.id, (**deployment).clone());
            }
            Change::Job(job) => {
                self.last_job = self.last_job.max(job.id.0);
                let newest = self.newest_job.entry(job.machine).or_insert(job.id);
                *newest = (*newest).max(job.id);
                self.jobs.insert(job.id, (**job).clone());
            }
            Change::Frozen(frozen) => self.frozen.clone_from(frozen),
            Change::Event(event) => self.last_event = self.last_event.max(event.id),
        }
    }

    fn adopt_machine(&mut self, machine: &Machine) {
        self.last_machine = self.last_machine.max(machine.id.0);
        if let Some(before) = self.machines.get(&machine.id) {
            for mac in before.fingerprint.macs.difference(&machine.fingerprint.macs) {
                if self.by_mac.get(mac) == Some(&machine.id) {
                    self.by_mac.remove(mac);
                }
            }
            if let Some(boot) = before.boot {
                self.by_key.remove(&boot.key);
            }
        }
        for mac in &machine.fingerprint.macs {
            // An address stands for one machine: the one that showed it last.
            if let Some(other) = self.by_mac.insert(*mac, machine.id)
                && other != machine.id
                && let Some(other) = self.machines.get_mut(&other)
            {
                other.fingerprint.macs.remove(mac);
            }
        }
        if let Some(boot) = machine.boot {
            self.by_key.insert(boot.key, machine.id);
        }
        let hardware = self.machines.remove(&machine.id).and_then(|before| before.hardware);
        let mut machine = machine.clone();
        machine.hardware = hardware;
        self.machines.insert(machine.id, machine);
    }

    fn forget(&mut self, id: MachineId) {
        if let Some(machine) = self.machines.remove(&id) {
            self.by_mac.retain(|_, owner| *owner != id);
            if let Some(boot) = machine.boot {
                self.by_key.remove(&boot.key);
            }
        }
        self.jobs.retain(|_, job| job.machine != id);
        self.newest_job.remove(&id);
    }

    /// The newest job of a machine.
    #[must_use]
    pub fn newest_job(&self, machine: MachineId) -> Option<&Job> {
        self.newest_job.get(&machine).and_then(|job| self.jobs.get(job))
    }

    /// The machine whose present boot has this key.
    #[must_use]
    pub fn by_key(&self, key: &PublicKey) -> Option<&Machine> {
        self.by_key.get(key).and_then(|id| self.machines.get(id))
    }

    /// The machine with this Ethernet address.
    #[must_use]
    pub fn by_mac(&self, mac: Mac) -> Option<&Machine> {
        self.by_mac.get(&mac).and_then(|id| self.machines.get(id))
    }

    /// The jobs of a deployment.
    pub fn jobs_of(&self, deployment: DeploymentId) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(move |job| job.deployment == deployment)
    }

    /// What the doors need to know.
    #[must_use]
    pub fn standings(&self, discover: bool) -> Standings {
        let mut table = Standings::default();
        let mut shared = std::collections::HashSet::new();
        for machine in self.machines.values() {
            let entry =
                (machine.id, machine.standing(self.newest_job(machine.id), discover, self.frozen.is_some()));
            table.by_mac.extend(machine.fingerprint.macs.iter().map(|mac| (*mac, entry)));
            if let Some(uuid) = &machine.fingerprint.uuid
                && table.by_uuid.insert(uuid.clone(), entry).is_some()
            {
                shared.insert(uuid.clone());
            }
        }
        table.by_uuid.retain(|uuid, _| !shared.contains(uuid));
        table
    }

    /// The machines that `text` names: by id, name, Ethernet address or serial number.
    #[must_use]
    pub fn named(&self, text: &str) -> Vec<MachineId> {
        if let Some(machine) = text.parse().ok().and_then(|id| self.machines.get(&id)) {
            return vec![machine.id];
        }
        if let Some(machine) = text.parse().ok().and_then(|mac| self.by_mac(mac)) {
            return vec![machine.id];
        }
        let by = |fits: &dyn Fn(&Machine) -> bool| -> Vec<MachineId> {
            self.machines.values().filter(|machine| fits(machine)).map(|machine| machine.id).collect()
        };
        let names = by(&|machine| machine.name.as_deref() == Some(text));
        if !names.is_empty() {
            return names;
        }
        let serial = text.trim().to_lowercase();
        by(&|machine| {
            let print = &machine.fingerprint;
            [&print.system_serial, &print.chassis_serial, &print.board_serial]
                .into_iter()
                .any(|mark| mark.as_ref() == Some(&serial))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::identity::Fingerprint;
    use crate::fleet::machine::Rest;
    use crate::fleet::standing::{Asker, Standing};
    use jiff::Timestamp;

    fn machine(id: u64, macs: &[u8], uuid: &str) -> Machine {
        let fingerprint = Fingerprint {
            uuid: Some(uuid.to_owned()),
            macs: macs.iter().map(|last| Mac([2, 0, 0, 0, 0, *last])).collect(),
            ..Fingerprint::default()
        };
        Machine::new(MachineId(id), fingerprint, "lab".to_owned(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_address_belongs_to_who_showed_it_last() {
        let mut state = State::default();
        state.adopt(&Change::Machine(Box::new(machine(1, &[1, 2], "a"))));
        state.adopt(&Change::Machine(Box::new(machine(2, &[2], "b"))));
        let mac = Mac([2, 0, 0, 0, 0, 2]);
        assert_eq!(state.by_mac(mac).map(|machine| machine.id), Some(MachineId(2)));
        assert!(!state.machines[&MachineId(1)].fingerprint.macs.contains(&mac));
        state.adopt(&Change::Forget(MachineId(2)));
        assert!(state.by_mac(mac).is_none());
    }

    #[test]
    fn a_uuid_that_two_machines_share_names_neither() {
        let mut state = State::default();
        let mut settled = machine(1, &[1], "a");
        settled.rest = Rest::BootDisk;
        state.adopt(&Change::Machine(Box::new(settled)));
        let asker = Asker { mac: None, uuid: Some("a".to_owned()), serial: None };
        assert_eq!(state.standings(true).of(&asker).1, Standing::BootDisk);
        state.adopt(&Change::Machine(Box::new(machine(2, &[2], "a"))));
        assert_eq!(state.standings(true).of(&asker), (None, Standing::Unknown));
    }

    #[test]
    fn a_machine_is_named_in_many_ways() {
        let mut state = State::default();
        let mut named = machine(3, &[7], "a");
        named.name = Some("web1".to_owned());
        named.fingerprint.system_serial = Some("czc1".to_owned());
        state.adopt(&Change::Machine(Box::new(named)));
        for text in ["m3", "02:00:00:00:00:07", "web1", "CZC1"] {
            assert_eq!(state.named(text), [MachineId(3)], "{text}");
        }
        assert!(state.named("m4").is_empty());
    }
}
