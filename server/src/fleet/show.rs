//! Core: machines, jobs and deployments in the shapes that the API shows. Touches `api`, `common` and the fleet's
//! state.

use common::id::DeploymentId;

use super::boot_policy::IdleBoot;
use super::deployment::Deployment;
use super::job::Job;
use super::machine::Machine;
use super::rules::Rules;
use super::state::State;
use crate::api::shapes::{DeploymentShown, JobShown, MachineShown, Silence};

impl State {
    /// A machine as the API shows it, with the labels that `rules` give it; without the devices of its hardware unless `whole`: a list of 2,000 machines
    /// would have 200,000 of them.
    #[must_use]
    pub fn show_machine(&self, machine: &Machine, rules: &Rules, whole: bool) -> MachineShown {
        let hardware = machine.hardware.as_ref();
        MachineShown {
            id: machine.id,
            name: machine.shown_name(),
            state: machine.state,
            held: machine.held,
            stays: machine.idle_boot == IdleBoot::Stay,
            doubts: machine.doubts.clone(),
            site: machine.site.clone(),
            labels: machine.labels.clone(),
            rule_labels: rules.labels(machine),
            // Those that identify it alone come first: a list of machines shows one address.
            macs: machine
                .fingerprint
                .own()
                .chain(machine.fingerprint.weak.intersection(&machine.fingerprint.macs).copied())
                .collect(),
            firmware: hardware.map(|checked| checked.report().firmware),
            first_seen: machine.first_seen,
            last_seen: machine.last_seen,
            job: self.newest_job(machine.id).map(|job| self.show_job(job)),
            deployed_image: machine.deployed_image.clone(),
            note: self.notes.get(&machine.id).cloned(),
            hardware: hardware.map(|checked| {
                let report = checked.report();
                if whole { report.clone() } else { report.without_devices() }
            }),
        }
    }

    /// A job as the API shows it, with the names of its machine and image; the machine's number, and no image, if they
    /// were forgotten.
    #[must_use]
    pub fn show_job(&self, job: &Job) -> JobShown {
        let order = self.deployments.get(&job.deployment);
        let waits = order.and_then(|order| self.waits_for(job, self.places(order)));
        JobShown { waits, ..self.show_job_of(job, order) }
    }

    /// As [`State::show_job`], with its deployment, and without what it waits for.
    fn show_job_of(&self, job: &Job, order: Option<&Deployment>) -> JobShown {
        let machine = self.machines.get(&job.machine);
        JobShown {
            id: job.id,
            deployment: job.deployment,
            machine: job.machine,
            name: machine.map_or_else(|| job.machine.to_string(), Machine::shown_name),
            image: order.map(|order| order.image_name.clone()).unwrap_or_default(),
            state: job.state,
            attempt: job.attempt,
            step: job.step.clone(),
            done: job.done,
            total: job.total,
            sources: job.sources,
            cause: job.cause.clone(),
            waits: None,
            note: self.note_of(job),
            changed: job.changed,
        }
    }

    /// What is concluded of the machine's silence; `None` if the job is over or not the machine's newest.
    fn note_of(&self, job: &Job) -> Option<Silence> {
        let newest = self.newest_job(job.machine).is_some_and(|newest| newest.id == job.id);
        self.notes.get(&job.machine).filter(|_| newest && !job.state.is_over()).cloned()
    }

    /// A deployment with all its jobs, as the API shows it.
    #[must_use]
    pub fn show_deployment(&self, order: &Deployment) -> DeploymentShown {
        // Counted once, and not for each of the jobs.
        let places = self.places(order);
        DeploymentShown {
            id: order.id,
            image: order.image_name.clone(),
            image_id: order.image,
            profile: order.request.as_ordered().profile.clone(),
            with: self.placed_with(order),
            ordered: order.ordered,
            open: order.open,
            paused: order.paused,
            max_parallel: order.request.as_ordered().max_parallel,
            is_full: order.is_full(self.jobs_of(order.id).count()),
            wire_bytes: order.wire_bytes,
            jobs: self
                .jobs_of(order.id)
                .map(|job| JobShown {
                    waits: self.waits_for(job, places),
                    ..self.show_job_of(job, Some(order))
                })
                .collect(),
        }
    }

    /// The other deployments of the same order. They were placed at once, so their numbers follow each other.
    pub(super) fn placed_with(&self, order: &Deployment) -> Vec<DeploymentId> {
        let Some(first) = order.placed_with else { return vec![] };
        let all = self.deployments.range(first..).map(|(_, other)| other);
        let same = all.take_while(|other| other.placed_with == Some(first));
        same.map(|other| other.id).filter(|id| *id != order.id).collect()
    }

    /// The deployment with this number, as the API shows it.
    #[must_use]
    pub fn find_deployment(&self, id: DeploymentId) -> Option<DeploymentShown> {
        self.deployments.get(&id).map(|order| self.show_deployment(order))
    }
}
