//! Core, part of the fleet: the deployments of one order, one for each of its profiles, as one thing; and the end of one of
//! them, or of all. Touches `api`, `common` and the other cores of the fleet.

use common::id::{DeploymentId, JobId};
use common::wire::http::Refused;
use jiff::Timestamp;

use super::decide::Fleet;
use super::job::JobEvent;
use super::order::refused;
use super::state::Change;
use crate::api::shapes::Cancel;

impl Fleet {
    /// The deployment that is named, and if `together` all others of its order that whoever asks may see; ascending.
    ///
    /// # Errors
    /// When there is no such deployment for whoever asks.
    pub(super) fn meant(&self, id: DeploymentId, together: bool) -> Result<Vec<DeploymentId>, Refused> {
        let is_seen = self.may_see_any_of(id);
        let Some(order) = self.state.deployments.get(&id).filter(|_| is_seen) else {
            let hint = "`swarmboot deploy list` shows the deployments";
            return Err(refused(format!("there is no deployment {id}"), hint));
        };
        let mut all = if together { self.state.placed_with(order) } else { vec![] };
        all.retain(|other| self.may_see_any_of(*other));
        all.push(id);
        all.sort_unstable();
        Ok(all)
    }

    /// Cancels a deployment or all of its order, or the jobs of some machines there.
    ///
    /// # Errors
    /// When there is no such deployment, or the selection is refused; then nothing is cancelled.
    pub fn cancel(&mut self, id: DeploymentId, cancel: &Cancel, now: Timestamp) -> Result<(), Refused> {
        let ids = self.meant(id, cancel.together)?;
        let everyone = cancel.selection.machines.is_empty() && cancel.selection.labels.is_empty();
        let chosen = self.select(&cancel.selection)?;
        let reason = cancel.reason.clone().unwrap_or_else(|| format!("{} cancelled it", self.caller_name()));
        for id in ids {
            let order = self.state.deployments.get(&id).filter(|order| everyone && order.open).cloned();
            if let Some(mut order) = order.filter(|_| self.reach().is_everything()) {
                order.open = false;
                self.put(Change::Deployment(Box::new(order)));
            }
            let reach = self.reach();
            let meant = self.state.jobs_of(id).filter(|job| everyone || chosen.contains(&job.machine));
            let jobs: Vec<JobId> = meant.filter(|job| reach.has_id(job.machine)).map(|job| job.id).collect();
            for job in jobs {
                self.happen(job, JobEvent::Cancelled(reason.clone()), now);
            }
        }
        Ok(())
    }
}
