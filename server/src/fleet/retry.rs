//! Core, part of the fleet: orders refused and failed jobs again, after an admin has been shown what would be written
//! now. Touches `api`, `common` and the other cores of the fleet.

use common::id::{DeploymentId, JobId};
use common::wire::http::Refused;
use jiff::Timestamp;

use super::bound::{Bound, Marks};
use super::decide::Fleet;
use super::job::{Job, JobEvent};
use super::order::refused;
use super::orders::Candidate;
use crate::api::shapes::{JobState, Retry, RetryLine};

/// A job that could be ordered again; nothing is done yet.
#[derive(Debug)]
pub struct Again {
    /// The job that was refused or has failed, and becomes `ordered` again.
    pub job: JobId,
    /// The deployment that it is part of, whose order applies again.
    pub deployment: DeploymentId,
    /// The name of the deployment's image.
    pub image: String,
    /// Its machine, with what the tailor is to be asked.
    pub candidate: Candidate,
}

impl Fleet {
    /// The jobs that `retry` selects, or those that were shown before. Changes nothing.
    ///
    /// # Errors
    /// When it selects none that was refused or has failed, or the selection is refused.
    pub fn retryable(&self, retry: &Retry) -> Result<Vec<Again>, Refused> {
        let named = !(retry.selection.machines.is_empty() && retry.selection.labels.is_empty());
        let over = |job: &&Job| match job.state {
            JobState::Refused => !retry.failed,
            state => state == JobState::Failed,
        };
        let reach = self.reach();
        let jobs: Vec<&Job> = match (&retry.shown, retry.deployment) {
            (Some(shown), _) => shown
                .iter()
                .filter_map(|line| self.state.jobs.get(&line.job))
                .filter(|job| reach.has_id(job.machine))
                .collect(),
            (None, None) if !named => {
                return Err(refused("nothing is named to be ordered again", "name a deployment or machines"));
            }
            (None, deployment) => {
                if let Some(id) = deployment.filter(|id| !self.state.deployments.contains_key(id)) {
                    let hint = "`swarmboot deploy list` shows the deployments";
                    return Err(refused(format!("there is no deployment {id}"), hint));
                }
                let chosen = self.select(&retry.selection)?;
                let meant = |job: &&Job| match deployment {
                    Some(id) => job.deployment == id && (!named || chosen.contains(&job.machine)),
                    None => chosen.contains(&job.machine) && self.is_newest(job),
                };
                self.state
                    .jobs
                    .values()
                    .filter(meant)
                    .filter(over)
                    .filter(|job| reach.has_id(job.machine))
                    .collect()
            }
        };
        if jobs.is_empty() {
            let what = if retry.failed { "has failed" } else { "was refused or has failed" };
            return Err(refused(
                format!("nothing of it {what}"),
                "`swarmboot deploy status` shows what became of each machine",
            ));
        }
        Ok(jobs.into_iter().filter_map(|job| self.again(job)).collect())
    }

    fn is_newest(&self, job: &Job) -> bool {
        self.state.newest_job(job.machine).is_some_and(|newest| newest.id == job.id)
    }

    /// Why `job` cannot be ordered again now; `None` if it can.
    fn not_again(&self, job: &Job) -> Option<String> {
        let newest = self.state.newest_job(job.machine).filter(|newest| newest.id != job.id);
        let later = newest.map(|newest| format!("{} of {} was ordered later", newest.id, newest.deployment));
        let state = !matches!(job.state, JobState::Refused | JobState::Failed);
        let state = state.then(|| format!("its job is {} now", job.state.name()));
        let machine = self.state.machines.get(&job.machine).and_then(|machine| self.unavailable(machine));
        let order = self.state.deployments.get(&job.deployment);
        let bare = order.filter(|order| order.request.as_ordered().secrets_removed);
        let bare =
            bare.map(|_| "its user-data and keys were removed from the records; order it anew".to_owned());
        state.or(later).or(machine).or(bare)
    }

    fn again(&self, job: &Job) -> Option<Again> {
        let order = self.state.deployments.get(&job.deployment)?;
        let machine = self.state.machines.get(&job.machine)?;
        let candidate = self.ask_about(machine, job, order, self.not_again(job));
        Some(Again { job: job.id, deployment: order.id, image: order.image_name.clone(), candidate })
    }

    /// Orders those of `lines` again that are not refused; up to `max_machines`, or to the server's ceiling.
    ///
    /// # Errors
    /// When all of them are refused or they are too many, or the fleet is frozen.
    pub fn retry(
        &mut self,
        lines: &mut [RetryLine],
        max_machines: Option<u32>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.check_frozen()?;
        for RetryLine { job, line, .. } in lines.iter_mut().filter(|again| again.line.refused.is_none()) {
            line.refused = match self.state.jobs.get(job) {
                Some(job) => self.not_again(job),
                None => Some("its job is not there any more".to_owned()),
            };
        }
        if lines.iter().all(|again| again.line.refused.is_some()) {
            let why =
                |again: &RetryLine| Some(format!("{}: {}", again.line.name, again.line.refused.as_ref()?));
            let reasons: Vec<_> = lines.iter().filter_map(why).collect();
            return Err(Refused {
                error: "nothing of it can be ordered again".to_owned(),
                cause: Some(reasons.join("; ")),
                hint: Some("`deploy retry --dry-run` shows what would be done".to_owned()),
            });
        }
        let writes = lines.iter().filter(|again| again.line.refused.is_none()).count();
        self.check_ceiling(writes, max_machines.unwrap_or(self.settings.max_machines))?;
        for RetryLine { job, line, .. } in lines.iter().filter(|again| again.line.refused.is_none()) {
            let Some(machine) = self.state.machines.get(&line.machine) else { continue };
            let bound = Bound { marks: Some(Marks::of(&machine.fingerprint)), disk: line.disk.clone() };
            let before = machine.state;
            self.happen(*job, JobEvent::Retried { bound, before }, now);
        }
        Ok(())
    }
}
