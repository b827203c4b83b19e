//! Core: machines and deployments as the live stream tells them: those that were touched since it looked last. A second
//! of the stream costs the fleet as much as what happened in it, however many machines there are. Touches `api` and the
//! fleet's state.

use std::collections::{BTreeMap, BTreeSet};

use common::id::{DeploymentId, MachineId};

use super::decide::Fleet;
use super::machine::Machine;
use super::state::State;
use super::touched::Touched;
use crate::api::shapes::Frozen;
use crate::api::shapes::live::{LiveDeployment, LiveJob, LiveJobs, LiveMachine, LiveProgress};

/// What the fleet tells the live stream.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetRows {
    /// Whether these are all rows; otherwise those that may have changed.
    pub whole: bool,
    /// Machines, each with how far its step is.
    pub machines: Vec<(LiveMachine, LiveProgress)>,
    /// Machines that were forgotten; empty when these are all rows.
    pub gone: Vec<MachineId>,
    /// Deployments.
    pub deployments: Vec<LiveDeployment>,
    /// The freeze that is in force.
    pub frozen: Option<Frozen>,
}

impl Fleet {
    /// The rows that may have changed since the last call; all of them when `whole`, or when nothing was noted since.
    pub(super) fn live_rows(&mut self, whole: bool) -> FleetRows {
        let touched = self.touched.replace(Touched::default()).filter(|_| !whole);
        let frozen = self.state.frozen.clone();
        let Some(touched) = touched else {
            let machines = self.state.machines.values().map(|machine| self.state.live_machine(machine));
            let machines = machines.collect();
            let every: BTreeSet<DeploymentId> = self.state.deployments.keys().copied().collect();
            let deployments = self.state.live_deployments(&every);
            return FleetRows { whole: true, machines, gone: vec![], deployments, frozen };
        };
        let (mut machines, mut gone) = (vec![], vec![]);
        for id in touched.machines {
            match self.state.machines.get(&id) {
                Some(machine) => machines.push(self.state.live_machine(machine)),
                None => gone.push(id),
            }
        }
        let deployments = self.state.live_deployments(&touched.deployments);
        FleetRows { whole: false, machines, gone, deployments, frozen }
    }

    /// Nobody looks any more: nothing is noted until the next call of [`Fleet::live_rows`].
    pub(super) fn live_ends(&mut self) {
        self.touched = None;
    }
}

impl State {
    fn live_machine(&self, machine: &Machine) -> (LiveMachine, LiveProgress) {
        let job = self.newest_job(machine.id);
        let progress = LiveProgress {
            m: machine.id,
            d: job.map_or(0, |job| job.done),
            t: job.map_or(0, |job| job.total),
        };
        let live = LiveMachine {
            m: machine.id,
            name: machine.shown_name(),
            site: machine.site.clone(),
            state: machine.state,
            held: machine.held,
            doubted: !machine.doubts.is_empty(),
            job: job.map(|job| LiveJob {
                j: job.id,
                d: job.deployment,
                state: job.state,
                attempt: job.attempt,
                step: job.step.clone(),
                cause: job.cause.clone(),
                changed: job.changed,
            }),
            note: self.notes.get(&machine.id).map(ToString::to_string),
        };
        (live, progress)
    }

    /// The deployments of these numbers. One pass over the jobs serves all of them.
    fn live_deployments(&self, wanted: &BTreeSet<DeploymentId>) -> Vec<LiveDeployment> {
        if wanted.is_empty() {
            return vec![];
        }
        let mut jobs: BTreeMap<DeploymentId, LiveJobs> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| wanted.contains(&job.deployment)) {
            jobs.entry(job.deployment).or_default().count(job.state);
        }
        let orders = wanted.iter().filter_map(|id| self.deployments.get(id));
        orders
            .map(|order| LiveDeployment {
                d: order.id,
                image: order.image_name.clone(),
                image_id: order.image,
                ordered: order.ordered,
                open: order.open,
                wire_bytes: order.wire_bytes,
                jobs: jobs.get(&order.id).copied().unwrap_or_default(),
            })
            .collect()
    }
}
