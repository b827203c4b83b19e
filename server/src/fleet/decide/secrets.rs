//! Core, part of the fleet: removes user-data and SSH keys from an order when no job needs them any more. Touches
//! `api`, `common` and the other cores of the fleet.

use std::collections::HashSet;

use common::id::DeploymentId;
use jiff::{SignedDuration, Timestamp};

use super::super::deployment::Deployment;
use super::super::state::Change;
use super::Fleet;
use crate::api::shapes::JobState;

/// How long the secrets of an order are kept for a job that failed or was refused: it may be retried.
const KEPT_FOR_RETRY: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Fleet {
    /// Removes the secrets of orders whose jobs are all deployed, cancelled, or failed or refused long ago.
    pub(super) fn remove_secrets(&mut self, now: Timestamp) {
        let holds = |order: &&Deployment| !order.open && order.request.holds_secrets();
        let holding: Vec<DeploymentId> =
            self.state.deployments.values().filter(holds).map(|order| order.id).collect();
        if holding.is_empty() {
            return;
        }
        let needed: HashSet<DeploymentId> = self
            .state
            .jobs
            .values()
            .filter(|job| match job.state {
                JobState::Deployed | JobState::Cancelled => false,
                _ if job.is_open() || job.wants_plan() => true,
                _ => now.duration_since(job.changed) < KEPT_FOR_RETRY,
            })
            .map(|job| job.deployment)
            .collect();
        for id in holding.into_iter().filter(|id| !needed.contains(id)) {
            let Some(mut order) = self.state.deployments.get(&id).cloned() else { continue };
            order.request.remove_secrets();
            self.put(Change::Deployment(Box::new(order)));
        }
    }
}
