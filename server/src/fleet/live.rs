//! Core: machines and deployments as the live stream tells them: those that were touched since it looked last. A second
//! of the stream costs the fleet as much as what happened in it, and a walk over the jobs for each scope. Touches `api`
//! and the fleet's state.

use std::collections::BTreeSet;

use common::id::{DeploymentId, MachineId};

use super::decide::Fleet;
use super::deployment::Deployment;
use super::machine::Machine;
use super::scope::Reach;
use super::state::State;
use super::touched::Touched;
use crate::api::shapes::live::{LiveDeployment, LiveJob, LiveJobs, LiveMachine, LiveProgress};
use crate::api::shapes::{Frozen, Scope};

/// What the live stream asks for the readers of one scope.
#[derive(Debug, Clone)]
pub struct AskedRows {
    /// What they may see.
    pub scope: Scope,
    /// Whether all rows are wanted; otherwise those that may have changed since the last call.
    pub whole: bool,
}

/// What the fleet tells the live stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetRows {
    /// Whether these are all rows; otherwise those that may have changed.
    pub whole: bool,
    /// Machines, each with how far its step is.
    pub machines: Vec<(LiveMachine, LiveProgress)>,
    /// Machines that were forgotten, or are not in the scope; empty when these are all rows.
    pub gone: Vec<MachineId>,
    /// Deployments.
    pub deployments: Vec<LiveDeployment>,
    /// Deployments of which nothing is in the scope; empty when these are all rows.
    pub ended: Vec<DeploymentId>,
    /// The freeze that is in force.
    pub frozen: Option<Frozen>,
}

impl Fleet {
    /// The rows for each of `asked`, in that order.
    pub(super) fn live_rows(&mut self, asked: &[AskedRows]) -> Vec<FleetRows> {
        let touched = self.touched.replace(Touched::default());
        asked
            .iter()
            .map(|AskedRows { scope, whole }| {
                let reach = self.reach_of(Some(scope));
                match touched.as_ref().filter(|_| !whole) {
                    Some(touched) => self.touched_rows(touched, &reach),
                    None => self.all_rows(&reach),
                }
            })
            .collect()
    }

    fn all_rows(&self, reach: &Reach<'_>) -> FleetRows {
        let seen = self.state.machines.values().filter(|machine| reach.has(machine));
        let machines = seen.map(|machine| self.state.live_machine(machine)).collect();
        let every = self.state.deployments.keys().copied().collect();
        let deployments = self.live_deployments(&every, reach);
        let frozen = self.state.frozen.clone();
        FleetRows { whole: true, machines, deployments, frozen, ..FleetRows::default() }
    }

    fn touched_rows(&self, touched: &Touched, reach: &Reach<'_>) -> FleetRows {
        let (mut machines, mut gone) = (vec![], vec![]);
        for id in &touched.machines {
            match self.state.machines.get(id).filter(|machine| reach.has(machine)) {
                Some(machine) => machines.push(self.state.live_machine(machine)),
                None => gone.push(*id),
            }
        }
        let wanted = if reach.is_everything() {
            touched.deployments.clone()
        } else {
            touched.deployments_beside(&self.state)
        };
        let deployments = self.live_deployments(&wanted, reach);
        let told: BTreeSet<DeploymentId> = deployments.iter().map(|order| order.d).collect();
        let ended = wanted.difference(&told).copied().collect();
        let frozen = self.state.frozen.clone();
        FleetRows { whole: false, machines, gone, deployments, ended, frozen }
    }

    /// The deployments of these numbers, counted over the jobs that `reach` has; without those of which it has none.
    fn live_deployments(&self, wanted: &BTreeSet<DeploymentId>, reach: &Reach<'_>) -> Vec<LiveDeployment> {
        let everything = reach.is_everything();
        let seen = |id| everything || self.state.machines.get(id).is_some_and(|machine| reach.has(machine));
        let shown = |order: &Deployment| {
            let mut jobs = LiveJobs::default();
            let mut is_seen = everything;
            for job in self.state.jobs_of(order.id).filter(|job| seen(&job.machine)) {
                jobs.count(job.state);
                is_seen = true;
            }
            is_seen.then(|| LiveDeployment {
                d: order.id,
                image: order.image_name.clone(),
                image_id: order.image,
                ordered: order.ordered,
                open: order.open,
                paused: order.paused,
                wire_bytes: order.wire_bytes,
                jobs,
            })
        };
        wanted.iter().filter_map(|id| shown(self.state.deployments.get(id)?)).collect()
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
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::fleet::identity::Fingerprint;
    use crate::fleet::state::{Change, State};

    fn scope(sites: &[&str], labels: &[&str]) -> Scope {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        Scope { sites: texts(sites), labels: texts(labels) }
    }

    fn machine(n: u64, site: &str) -> Machine {
        Machine::new(MachineId(n), Fingerprint::default(), site.to_owned(), Timestamp::UNIX_EPOCH)
    }

    /// Machines 1 and 2 at `lab`, 3 at `branch`.
    fn fleet() -> Fleet {
        let mut fleet = Fleet::new(State::default(), crate::fleet::testing::settings());
        for (n, site) in [(1, "lab"), (2, "lab"), (3, "branch")] {
            fleet.put_machine(machine(n, site));
        }
        fleet
    }

    fn ask(fleet: &mut Fleet, scope: &Scope, whole: bool) -> FleetRows {
        fleet.live_rows(&[AskedRows { scope: scope.clone(), whole }]).pop().unwrap()
    }

    fn ids(rows: &FleetRows) -> Vec<u64> {
        rows.machines.iter().map(|(machine, _)| machine.m.0).collect()
    }

    #[test]
    fn only_what_was_touched_is_told_again() {
        let (mut fleet, all) = (fleet(), Scope::default());
        assert_eq!(ids(&ask(&mut fleet, &all, false)), [1, 2, 3], "the first look is for everything");
        assert_eq!(ask(&mut fleet, &all, false), FleetRows::default(), "nothing happened");
        fleet.put_machine(machine(2, "lab"));
        fleet.put(Change::Forget(MachineId(3)));
        let rows = ask(&mut fleet, &all, false);
        assert_eq!((ids(&rows), rows.gone), (vec![2], vec![MachineId(3)]));
        assert_eq!(ids(&ask(&mut fleet, &all, true)), [1, 2]);
        fleet.live_ends();
        fleet.put_machine(machine(1, "lab"));
        assert!(ask(&mut fleet, &all, false).whole, "nothing was noted while nobody looked");
    }

    #[test]
    fn a_scope_has_its_own_part_only_and_what_leaves_it_is_gone() {
        let mut fleet = fleet();
        let lab = scope(&["lab"], &[]);
        assert_eq!(ids(&ask(&mut fleet, &lab, true)), [1, 2]);
        for scope in [scope(&["moon"], &[]), scope(&["lab"], &["no selector"])] {
            assert!(ask(&mut fleet, &scope, true).machines.is_empty(), "{scope}");
        }
        fleet.put_machine(machine(2, "branch"));
        fleet.put_machine(machine(3, "lab"));
        let rows = ask(&mut fleet, &lab, false);
        assert_eq!((ids(&rows), rows.gone), (vec![3], vec![MachineId(2)]));
    }
}
