//! What admins want: orders, retries, cancellations, freezes, and commands over machines. An order is looked up, previewed
//! by the tailor on the caller's side, and only then placed. Touches the fleet's thread and the provisioner.

use std::sync::Arc;

use common::id::DeploymentId;
use tokio::sync::OwnedSemaphorePermit;

use super::super::orders::{Candidate, hold_to, refused};
use super::super::request::FleetError;
use super::super::retry::Again;
use super::{FleetHandle, ORDERS_MAX};
use crate::api::shapes::{
    Cancel, DeployAnswer, DeployLine, DeployOrder, DeploymentShown, Freeze, Frozen, MachineChanged,
    MachineCommand, Retry, RetryLine,
};

impl FleetHandle {
    /// Does what an admin wants with machines.
    ///
    /// # Errors
    /// When it makes no sense, or could not be written down.
    pub async fn command(&self, command: MachineCommand) -> Result<Vec<MachineChanged>, FleetError> {
        self.ask(move |fleet, now| fleet.command(&command, now)).await?.map_err(FleetError::Refused)
    }

    /// Places an order, or says what it would do.
    ///
    /// # Errors
    /// When it makes no sense, no machine is left to order for, or it could not be written down.
    pub async fn order(&self, order: DeployOrder) -> Result<DeployAnswer, FleetError> {
        let _turn = self.orders.acquire().await.map_err(|_| FleetError::Stopping)?;
        let provisioner = Arc::clone(&self.provisioner);
        let (name, rule) = (order.image.clone(), order.disk.clone());
        let image = tokio::task::spawn_blocking(move || {
            provisioner.check_disk_rule(&rule).map_err(|why| {
                refused(why.to_string(), "such as bus=nvme,size>=100G; leave it out where there is one disk")
            })?;
            provisioner.image(&name)
        })
        .await
        .map_err(FleetError::Worker)?
        .map_err(FleetError::Refused)?;
        let (asked, shown) = (order.clone(), image.clone());
        let candidates = self.look(move |fleet| fleet.candidates(&asked, &shown)).await?;
        let accepted = order.accept.clone();
        let mut lines = self.preview(candidates.map_err(FleetError::Refused)?, accepted).await?;
        for (line, shown) in lines.iter_mut().zip(order.shown.iter().flat_map(|shown| &shown.machines)) {
            hold_to(line, shown.disk.as_ref());
        }
        if order.dry_run {
            let frozen = self.frozen().await?;
            return Ok(DeployAnswer { deployment: None, image, machines: lines, frozen });
        }
        let shown = image.clone();
        let (deployment, lines) = self
            .ask(move |fleet, now| {
                let placed = fleet.place(order, &shown, &mut lines, now);
                placed.map(|deployment| (deployment, lines))
            })
            .await?
            .map_err(FleetError::Refused)?;
        Ok(DeployAnswer { deployment: Some(deployment), image, machines: lines, frozen: None })
    }

    /// Asks the tailor what it would write on each machine whose hardware is known.
    async fn preview(
        &self,
        candidates: Vec<Candidate>,
        accepted: Vec<String>,
    ) -> Result<Vec<DeployLine>, FleetError> {
        let provisioner = Arc::clone(&self.provisioner);
        tokio::task::spawn_blocking(move || {
            let line = |candidate: Candidate| {
                let asked = candidate.request.as_ref();
                let target = asked.map(|(request, hardware)| provisioner.target(request, hardware));
                candidate.line(target, &accepted)
            };
            candidates.into_iter().map(line).collect()
        })
        .await
        .map_err(FleetError::Worker)
    }

    /// Orders again what was refused or has failed; shows what that means.
    ///
    /// # Errors
    /// When it means nothing, all of it is refused, or it could not be written down.
    pub async fn retry(&self, retry: Retry) -> Result<Vec<RetryLine>, FleetError> {
        let _turn = self.orders.acquire().await.map_err(|_| FleetError::Stopping)?;
        let asked = retry.clone();
        let again = self.look(move |fleet| fleet.retryable(&asked)).await?.map_err(FleetError::Refused)?;
        let (jobs, candidates): (Vec<_>, Vec<_>) = again
            .into_iter()
            .map(|Again { job, deployment, image, candidate }| ((job, deployment, image), candidate))
            .unzip();
        let lines = self.preview(candidates, vec![]).await?;
        let again = |((job, deployment, image), line)| RetryLine { job, deployment, image, line };
        let mut lines: Vec<RetryLine> = jobs.into_iter().zip(lines).map(again).collect();
        for again in &mut lines {
            let shown = retry.shown.iter().flatten().find(|shown| shown.job == again.job);
            shown.into_iter().for_each(|shown| hold_to(&mut again.line, shown.disk.as_ref()));
        }
        if retry.dry_run {
            return Ok(lines);
        }
        self.ask(move |fleet, now| fleet.retry(&mut lines, now).map(|()| lines))
            .await?
            .map_err(FleetError::Refused)
    }

    /// Takes back an order, or its part for some machines.
    ///
    /// # Errors
    /// When there is no such deployment, the selection makes no sense, or it could not be written down.
    pub async fn cancel(&self, id: DeploymentId, cancel: Cancel) -> Result<DeploymentShown, FleetError> {
        let shown = self
            .ask(move |fleet, now| fleet.cancel(id, &cancel, now).map(|()| fleet.state.find_deployment(id)))
            .await?
            .map_err(FleetError::Refused)?;
        shown.ok_or(FleetError::Stopping)
    }

    /// Stops everything new, or lets it begin again; what holds then.
    ///
    /// # Errors
    /// When it could not be written down.
    pub async fn freeze(&self, order: Freeze) -> Result<Option<Frozen>, FleetError> {
        self.ask(move |fleet, now| fleet.freeze(order.freeze, order.reason, now)).await
    }

    /// Keeps orders out for as long as the answer is kept: between asking what needs an image and removing it, none
    /// may come that needs it.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn keep_orders_out(&self) -> Result<OwnedSemaphorePermit, FleetError> {
        let all = Arc::clone(&self.orders).acquire_many_owned(ORDERS_MAX);
        all.await.map_err(|_| FleetError::Stopping)
    }
}
