//! Core, part of the fleet: what holds the jobs of one deployment back: a pause, and how many of its machines may be
//! written at once. A job that has begun goes on in any case, also after its machine lost power: only what has not begun
//! is held back. Touches `api`, `common` and the other cores of the fleet.

use common::id::{DeploymentId, MachineId};
use common::limits::{EVENT_TEXT_MAX, cut};
use common::step::{Step, What};
use common::text::harmless;
use common::wire::http::Refused;
use jiff::Timestamp;

use super::decide::{Bar, Fleet, Whose};
use super::deployment::Deployment;
use super::job::Job;
use super::order::refused;
use super::state::{Change, State};
use crate::api::shapes::{JobState, Pause, WaitsFor};

/// Whether a machine is being written: it was given a plan, and its disk is not sealed yet.
fn is_written_now(job: &Job) -> bool {
    job.state == JobState::Running && !job.sealed
}

impl State {
    /// How many more machines of `order` may begin now.
    #[must_use]
    pub fn places(&self, order: &Deployment) -> usize {
        let Some(most) = order.request.as_ordered().max_parallel else { return usize::MAX };
        let busy = self.jobs_of(order.id).filter(|job| is_written_now(job)).count();
        usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(busy)
    }

    /// What an ordered job waits for, when `places` more of its deployment may begin; `None` when it has begun or is
    /// over.
    #[must_use]
    pub fn waits_for(&self, job: &Job, places: usize) -> Option<WaitsFor> {
        if job.state != JobState::Ordered {
            return None;
        }
        let (machine, order) = (self.machines.get(&job.machine)?, self.deployments.get(&job.deployment)?);
        if machine.held {
            return Some(WaitsFor::Release);
        }
        if !machine.doubts.is_empty() {
            return Some(WaitsFor::Identity);
        }
        if self.frozen.is_some() {
            return Some(WaitsFor::Unfreeze);
        }
        if order.paused.is_some() {
            return Some(WaitsFor::Resume);
        }
        let most = order.request.as_ordered().max_parallel.filter(|_| places == 0);
        Some(most.map_or(WaitsFor::Machine, |most| WaitsFor::Turn { most }))
    }
}

impl Fleet {
    /// Pauses a deployment or all of its order, or ends the pause. To pause it again is no error, and keeps the time. Of
    /// several, those of which nothing is left are passed over.
    ///
    /// # Errors
    /// When there is no such deployment, or nothing of it is left to begin; then none is paused.
    pub fn pause(&mut self, id: DeploymentId, pause: &Pause, now: Timestamp) -> Result<(), Refused> {
        let ids = self.meant(id, pause.together)?;
        let orders: Vec<Deployment> =
            ids.iter().filter_map(|id| self.state.deployments.get(id)).cloned().collect();
        let reach = self.reach();
        let is_whole = |order: &&Deployment| {
            let all_seen = !order.open && self.state.jobs_of(order.id).all(|job| reach.has_id(job.machine));
            reach.is_everything() || all_seen
        };
        if let Some(order) = orders.iter().find(|order| !is_whole(order)) {
            return Err(refused(
                format!(
                    "{} has machines that your token is not for, and a pause is for all of them",
                    order.id
                ),
                "`swarmboot machine hold` holds those that it is for",
            ));
        }
        let is_left =
            |order: &Deployment| order.open || self.state.jobs_of(order.id).any(|job| !job.state.is_over());
        let left: Vec<Deployment> =
            orders.into_iter().filter(|order| !pause.pause || is_left(order)).collect();
        if left.is_empty() {
            return Err(refused(
                format!("{id} is over: nothing of it is left to pause"),
                "`swarmboot deploy status` shows what became of each machine",
            ));
        }
        for order in left.into_iter().filter(|order| pause.pause != order.paused.is_some()) {
            self.pause_one(order, pause, now);
        }
        Ok(())
    }

    fn pause_one(&mut self, mut order: Deployment, pause: &Pause, now: Timestamp) {
        let id = order.id;
        let reason = pause.reason.as_ref().map(|text| cut(&harmless(text), EVENT_TEXT_MAX / 2).to_owned());
        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = match order.paused {
            None => format!("{}: paused, nothing more of it begins{why}", self.caller_name()),
            Some(since) => {
                // The time of the pause does not count against the lifetime of the order.
                if let Some(life) = self.lifetime(&order) {
                    let paused = now.duration_since(since).as_secs().max(0).unsigned_abs();
                    order.request.lengthen(life.as_secs().unsigned_abs(), paused);
                }
                format!("{}: goes on{why}", self.caller_name())
            }
        };
        order.paused = pause.pause.then_some(now);
        self.put(Change::Deployment(Box::new(order)));
        self.log(now, Whose::Order(id), Step::Decide, What::Note { text });
    }

    /// What holds `job` back in its deployment; `None` for one that has begun.
    pub(super) fn held_back(&self, job: &Job) -> Option<Bar> {
        let order = self.state.deployments.get(&job.deployment).filter(|_| job.state == JobState::Ordered)?;
        if order.paused.is_some() {
            return Some(Bar::Paused(order.id));
        }
        let most = order.request.as_ordered().max_parallel?;
        (self.state.places(order) == 0).then_some(Bar::Turn { deployment: order.id, most })
    }

    /// The machines whose turn it is when `job` has made room: the first that wait, as many as there are places. Where
    /// one of them does not come, the next asks anew when its open request has lasted its time.
    pub(super) fn next_in_turn(&self, job: &Job, is_waiting: impl Fn(MachineId) -> bool) -> Vec<MachineId> {
        let order = self.state.deployments.get(&job.deployment);
        let limited = order.filter(|order| order.request.as_ordered().max_parallel.is_some());
        let Some(order) = limited.filter(|_| !is_written_now(job) && job.state != JobState::Ordered) else {
            return vec![];
        };
        let waiting = self.state.jobs_of(order.id).filter(|job| job.state == JobState::Ordered);
        let machines = waiting.map(|job| job.machine).filter(|machine| is_waiting(*machine));
        machines.take(self.state.places(order)).collect()
    }
}
