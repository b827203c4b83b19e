//! Core: which machines and deployments were touched since somebody looked. Touches the fleet's changes and state.

use std::collections::BTreeSet;

use common::id::{DeploymentId, MachineId};

use super::state::{Change, State};

/// What was touched since it was looked at last; kept only while somebody looks.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) machines: BTreeSet<MachineId>,
    pub(super) deployments: BTreeSet<DeploymentId>,
}

impl Touched {
    /// Notes what `change`, which is not applied to `state` yet, is about.
    pub(super) fn note(&mut self, change: &Change, state: &State) {
        match change {
            Change::Machine(machine) => drop(self.machines.insert(machine.id)),
            Change::Hardware(id, _) => drop(self.machines.insert(*id)),
            Change::Job(job) => {
                self.machines.insert(job.machine);
                self.deployments.insert(job.deployment);
            }
            Change::Deployment(order) => drop(self.deployments.insert(order.id)),
            Change::Forget(id) => {
                self.machines.insert(*id);
                let its = state.jobs.values().filter(|job| job.machine == *id);
                self.deployments.extend(its.map(|job| job.deployment));
            }
            // Events are another stream; a freeze is told each time; of the rest the stream tells nothing.
            _ => {}
        }
    }

    /// Notes a conclusion about a machine, which is no change of the records.
    pub(super) fn note_machine(&mut self, id: MachineId) {
        self.machines.insert(id);
    }

    /// The deployments that were touched, and those with a job of a machine that was: whoever may see only some machines
    /// sees more or less of these when a machine was moved or labelled.
    pub(super) fn deployments_beside(&self, state: &State) -> BTreeSet<DeploymentId> {
        let its = state.jobs.values().filter(|job| self.machines.contains(&job.machine));
        self.deployments.iter().copied().chain(its.map(|job| job.deployment)).collect()
    }
}
