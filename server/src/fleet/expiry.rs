//! Core, part of the fleet: orders expire when their machines do not report. A machine that is switched on months later
//! may have been set up by hand meanwhile, and nobody remembers the order. Touches `api`, `common` and the other cores
//! of the fleet.

use std::collections::HashMap;

use common::id::{DeploymentId, JobId};
use common::step::{Step, What};
use jiff::{SignedDuration, Timestamp};

use super::decide::{Fleet, Whose};
use super::deployment::Deployment;
use super::job::{Job, JobEvent};
use super::state::Change;
use crate::api::shapes::JobState;

impl Fleet {
    /// How long `order` waits for machines; `None` if it never expires.
    #[must_use]
    pub(super) fn lifetime(&self, order: &Deployment) -> Option<SignedDuration> {
        match order.request.as_ordered().expires_seconds {
            Some(0) => None,
            Some(seconds) => Some(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))),
            None => self.settings.order_expires,
        }
    }

    /// Closes the open deployments and ends the jobs that have expired by `now`.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let past = |since: Timestamp, order: &Deployment| {
            self.lifetime(order).filter(|life| now.duration_since(since) >= *life)
        };
        // Of an order that is paused, nothing expires; the time is added when it goes on.
        let open = self.state.deployments.values().filter(|order| order.open && order.paused.is_none());
        let closed: Vec<(DeploymentId, SignedDuration)> =
            open.filter_map(|order| Some((order.id, past(order.ordered, order)?))).collect();
        let mut turns: HashMap<DeploymentId, Timestamp> = HashMap::new();
        for job in self.state.jobs.values().filter(|job| job.state != JobState::Ordered) {
            let order = self.state.deployments.get(&job.deployment);
            if order.is_some_and(|order| order.request.as_ordered().max_parallel.is_some()) {
                let moved = turns.entry(job.deployment).or_insert(job.changed);
                *moved = (*moved).max(job.changed);
            }
        }
        let waiting = |job: &&Job| matches!(job.state, JobState::Ordered | JobState::Running);
        let due = |job: &Job| {
            let seen = self.state.machines.get(&job.machine).map(|machine| machine.last_seen);
            let order = self.state.deployments.get(&job.deployment)?;
            if order.paused.is_some() && job.state == JobState::Ordered {
                return None;
            }
            // A running job's agent is heard of every few seconds; a job that waits for its machine has not changed
            // since it was ordered.
            let since = match job.state {
                JobState::Running => job.changed.max(seen.unwrap_or(job.changed)),
                // Who waits for its turn has come, and does not expire while the others go on.
                _ => turns.get(&order.id).map_or(job.changed, |moved| job.changed.max(*moved)),
            };
            Some((job.id, job.state, past(since, order)?))
        };
        let ended: Vec<(JobId, JobState, SignedDuration)> =
            self.state.jobs.values().filter(waiting).filter_map(due).collect();
        for (id, life) in closed {
            let Some(mut order) = self.state.deployments.get(&id).cloned() else { continue };
            order.open = false;
            self.put(Change::Deployment(Box::new(order)));
            let text = format!("expired after {life:#}: it takes no more machines");
            self.log(now, Whose::Order(id), Step::Decide, What::Note { text });
        }
        for (job, state, life) in ended {
            let reason = match state {
                JobState::Running => format!("expired: nothing was heard of its agent for {life:#}"),
                _ => format!("expired: the machine did not come for it within {life:#}"),
            };
            self.happen(job, JobEvent::Abandoned(reason), now);
        }
    }
}
