//! Queries of admins and of other parts of the server; they change nothing. Touches the fleet's queue.

use std::collections::BTreeSet;

use common::id::{DeploymentId, ImageId, JobId, MachineId};

use super::super::decide::Fleet;
use super::super::live::{AskedRows, FleetRows};
use super::super::machine::Machine;
use super::super::order::{refused, selectors};
use super::super::request::FleetError;
use super::super::rules::why_nobody;
use super::FleetHandle;
use crate::api::shapes::{DeploymentShown, Frozen, MachineCount, MachineShown, Selection};

impl FleetHandle {
    /// The first `limit` machines with numbers above `after` that fit the selectors in `labels`, without the devices of
    /// their hardware.
    ///
    /// # Errors
    /// When the selectors cannot be read, or the fleet has stopped.
    pub async fn machines_after(
        &self,
        after: MachineId,
        limit: usize,
        labels: &[String],
    ) -> Result<Vec<MachineShown>, FleetError> {
        let wanted = selectors(labels).map_err(FleetError::Refused)?;
        self.look(move |fleet| {
            use std::ops::Bound;
            let later = fleet.state.machines.range((Bound::Excluded(after), Bound::Unbounded));
            let (reach, rules) = (fleet.reach(), &fleet.settings.rules);
            let seen = later.map(|(_, machine)| machine).filter(|machine| reach.has(machine));
            let fit = seen.filter(|machine| rules.fit(&wanted, machine));
            fit.take(limit).map(|machine| fleet.state.show_machine(machine, rules, false)).collect()
        })
        .await
    }

    /// How many machines `selection` means; with no names and no selectors these are all. Where it is none, why.
    ///
    /// # Errors
    /// When it names a machine that is not known or is malformed, or the fleet has stopped.
    pub async fn count(&self, selection: Selection) -> Result<MachineCount, FleetError> {
        if selection.machines.is_empty() && selection.labels.is_empty() {
            let count = self.look(|fleet| {
                let reach = fleet.reach();
                fleet.state.machines.values().filter(|machine| reach.has(machine)).count()
            });
            return Ok(MachineCount { count: count.await?, nobody: None });
        }
        let labels = selection.labels.clone();
        let chosen = self.look(move |fleet| fleet.select(&selection)).await?;
        let count = chosen.map_err(FleetError::Refused)?.len();
        let nobody = if count == 0 { self.why_nobody(&labels).await? } else { None };
        Ok(MachineCount { count, nobody })
    }

    /// Why no machine fits the selectors in `labels`, with what comes nearest; `None` where some do, or nothing is known
    /// to say.
    ///
    /// # Errors
    /// When the selectors cannot be read, or the fleet has stopped.
    pub async fn why_nobody(&self, labels: &[String]) -> Result<Option<String>, FleetError> {
        let wanted = selectors(labels).map_err(FleetError::Refused)?;
        self.look(move |fleet| {
            let reach = fleet.reach();
            let (rules, machines) =
                (&fleet.settings.rules, fleet.state.machines.values().filter(|machine| reach.has(machine)));
            let fits = machines.clone().any(|machine| rules.fit(&wanted, machine));
            if fits { None } else { why_nobody(rules, &wanted, machines) }
        })
        .await
    }

    /// The machines that `selection` means, without the devices of their hardware; all when it names and selects none.
    ///
    /// # Errors
    /// When it names a machine that is not known, or is malformed.
    pub async fn machines(&self, selection: Selection) -> Result<Vec<MachineShown>, FleetError> {
        self.look(move |fleet| {
            let everyone = selection.machines.is_empty() && selection.labels.is_empty();
            let chosen = if everyone {
                let reach = fleet.reach();
                fleet
                    .state
                    .machines
                    .values()
                    .filter(|machine| reach.has(machine))
                    .map(|machine| machine.id)
                    .collect()
            } else {
                fleet.select(&selection).map_err(FleetError::Refused)?
            };
            let known = chosen.iter().filter_map(|id| fleet.state.machines.get(id));
            Ok(known.map(|machine| fleet.state.show_machine(machine, &fleet.settings.rules, false)).collect())
        })
        .await?
    }

    /// One machine with its hardware, by id, name, Ethernet address or serial number.
    ///
    /// # Errors
    /// When the name means none or several.
    pub async fn machine(&self, name: String) -> Result<MachineShown, FleetError> {
        self.look(move |fleet| {
            let selection = Selection { machines: vec![name], labels: vec![] };
            let chosen = fleet.select(&selection).map_err(FleetError::Refused)?;
            let machine = chosen.first().and_then(|id| fleet.state.machines.get(id));
            machine.map(|machine| fleet.state.show_machine(machine, &fleet.settings.rules, true)).ok_or_else(
                || FleetError::Refused(refused("no machine, or several, are meant", "name one machine")),
            )
        })
        .await?
    }

    /// The name of a job's machine; `None` if the job or the machine was forgotten.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn name_of_job(&self, job: JobId) -> Result<Option<String>, FleetError> {
        self.look(move |fleet| {
            let machine = fleet.state.jobs.get(&job).map(|job| job.machine)?;
            fleet.state.machines.get(&machine).map(Machine::shown_name)
        })
        .await
    }

    /// The jobs that write this image, or still may.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn jobs_of_image(&self, image: ImageId) -> Result<Vec<JobId>, FleetError> {
        self.look(move |fleet| {
            let writes = |deployment| {
                fleet.state.deployments.get(&deployment).is_some_and(|order| order.image == image)
            };
            let open = fleet.state.jobs.values().filter(|job| job.is_open() || job.wants_plan());
            open.filter(|job| writes(job.deployment)).map(|job| job.id).collect()
        })
        .await
    }

    /// What still needs this image, in words: jobs that may write it, or a deployment that takes machines; `None` if
    /// nothing does.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn needs_image(&self, image: ImageId) -> Result<Option<String>, FleetError> {
        let jobs = self.jobs_of_image(image).await?;
        if let Some(job) = jobs.first() {
            return Ok(Some(format!("job {job} and {} more", jobs.len() - 1)));
        }
        self.look(move |fleet| {
            let mut open =
                fleet.state.deployments.values().filter(|order| order.open && order.image == image);
            open.next().map(|order| format!("deployment {}, which still takes machines", order.id))
        })
        .await
    }

    /// All deployments with their jobs, ended or not.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn deployments(&self) -> Result<Vec<DeploymentShown>, FleetError> {
        self.deployments_after(None, usize::MAX, false).await
    }

    /// The first `limit` deployments behind `after`, with their jobs: in the order of their numbers, or the newest first.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn deployments_after(
        &self,
        after: Option<DeploymentId>,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<DeploymentShown>, FleetError> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.look(move |fleet| {
            let start = after.map_or(Unbounded, Excluded);
            let shown = |order| fleet.part_of(fleet.state.show_deployment(order));
            let all = &fleet.state.deployments;
            if newest_first {
                let earlier = all.range((Unbounded, start)).rev();
                earlier.filter_map(|(_, order)| shown(order)).take(limit).collect()
            } else {
                all.range((start, Unbounded)).filter_map(|(_, order)| shown(order)).take(limit).collect()
            }
        })
        .await
    }

    /// The deployment with this number; `None` if there is none.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<DeploymentShown>, FleetError> {
        self.look(move |fleet| fleet.state.find_deployment(id).and_then(|shown| fleet.part_of(shown))).await
    }

    /// The rows of the live stream for the readers of each of the scopes that are asked for, in that order.
    ///
    /// # Errors
    /// When the fleet has stopped, or nothing can be written: then the next call has to be for all rows.
    pub async fn live_rows(&self, asked: Vec<AskedRows>) -> Result<Vec<FleetRows>, FleetError> {
        self.ask(move |fleet, _| fleet.live_rows(&asked)).await
    }

    /// Says that nobody looks at the live stream any more.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn live_ends(&self) -> Result<(), FleetError> {
        self.ask(|fleet, _| fleet.live_ends()).await
    }

    /// The freeze that is in force; `None` if there is none.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn frozen(&self) -> Result<Option<Frozen>, FleetError> {
        self.look(|fleet| fleet.state.frozen.clone()).await
    }

    /// All sites, named ones and those of machines.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn sites(&self) -> Result<BTreeSet<String>, FleetError> {
        self.look(Fleet::sites).await
    }

    /// Warnings for admins about the fleet, each in one sentence.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn warnings(&self) -> Result<Vec<String>, FleetError> {
        self.look(Fleet::warnings).await
    }

    /// Warnings for admins about machines that are silent or do not come up, and a full DHCP range.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn notes(&self) -> Result<Vec<String>, FleetError> {
        self.ask(|fleet, now| fleet.notes(now)).await
    }
}
