//! Requests of admins: orders, retries, cancellations, freezes, and commands for machines. An order's machines are
//! looked up, the tailor previews each on a blocking thread of the caller, and only then is the order placed. Touches
//! the fleet's queue and the provisioner.

use std::sync::Arc;

use common::id::{DeploymentId, Hash};
use common::wire::http::Refused;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::super::answer::Keyed;
use super::super::decide::Fleet;
use super::super::order::CheckedOrder;
use super::super::orders::{Candidate, hold_to};
use super::super::request::FleetError;
use super::super::retry::Again;
use super::{FleetHandle, ORDERS_MAX};
use crate::api::shapes::{
    Cancel, DeployAnswer, DeployLine, DeployOrder, DeploymentShown, Freeze, Frozen, MachineChanged,
    MachineCommand, Pause, Retry, RetryLine,
};

impl FleetHandle {
    /// Carries out an admin's command for machines.
    ///
    /// # Errors
    /// When it is refused, or could not be committed.
    pub async fn command(&self, command: MachineCommand) -> Result<Vec<MachineChanged>, FleetError> {
        self.ask(move |fleet, now| fleet.command(&command, now)).await?.map_err(FleetError::Refused)
    }

    /// Places an order, or with `dry_run` returns what it would do.
    ///
    /// # Errors
    /// When it is refused, also because all its machines are, or could not be committed.
    pub async fn order(&self, order: DeployOrder) -> Result<DeployAnswer, FleetError> {
        let _turn = self.orders.acquire().await.map_err(|_| FleetError::Stopping)?;
        let keyed = self.keyed("order", &order).filter(|_| !order.dry_run);
        if let Some(answer) = self.answered(keyed.clone()).await? {
            return Ok(answer);
        }
        let provisioner = Arc::clone(&self.provisioner);
        let (order, image) = tokio::task::spawn_blocking(move || {
            let order = CheckedOrder::check(order)?;
            let image = provisioner.image(&order.as_ordered().image)?;
            Ok((order, image))
        })
        .await
        .map_err(FleetError::Worker)?
        .map_err(FleetError::Refused)?;
        let (asked, shown) = (order.clone(), image.clone());
        let candidates = self.look(move |fleet| fleet.candidates(&asked, &shown)).await?;
        let accepted = order.as_ordered().accept.clone();
        let mut lines = self.preview(candidates.map_err(FleetError::Refused)?, accepted).await?;
        for (line, shown) in
            lines.iter_mut().zip(order.as_ordered().shown.iter().flat_map(|shown| &shown.machines))
        {
            hold_to(line, shown.disk.as_ref());
        }
        if order.as_ordered().dry_run {
            let (frozen, ceiling) =
                (self.frozen().await?, self.look(|fleet| fleet.settings.max_machines).await?);
            let max_machines = order.most(ceiling);
            return Ok(DeployAnswer { deployment: None, image, machines: lines, max_machines, frozen });
        }
        self.once(keyed, move |fleet, now| {
            let max_machines = order.most(fleet.settings.max_machines);
            let deployment = Some(fleet.place(order, &image, &mut lines, now)?);
            Ok(DeployAnswer { deployment, image, machines: lines, max_machines, frozen: None })
        })
        .await
    }

    /// Asks the tailor which disk it would write on each machine whose hardware is known, and has their bundles built: a
    /// machine that waits asks for its plan as soon as the order is placed.
    async fn preview(
        &self,
        candidates: Vec<Candidate>,
        accepted: Vec<String>,
    ) -> Result<Vec<DeployLine>, FleetError> {
        for candidate in candidates.iter().filter(|candidate| candidate.refused.is_none()) {
            // When the queue is full, the bundle is built when the machine asks for its plan.
            let hardware = candidate.request.iter().map(|(_, hardware)| Arc::clone(hardware));
            hardware.for_each(|hardware| drop(self.ahead.try_send(hardware)));
        }
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

    /// Orders refused and failed jobs again, or with `dry_run` returns what that would do.
    ///
    /// # Errors
    /// When it selects no such job, all of them are refused, or it could not be committed.
    pub async fn retry(&self, retry: Retry) -> Result<Vec<RetryLine>, FleetError> {
        let _turn = self.orders.acquire().await.map_err(|_| FleetError::Stopping)?;
        let keyed = self.keyed("retry", &retry).filter(|_| !retry.dry_run);
        if let Some(answer) = self.answered(keyed.clone()).await? {
            return Ok(answer);
        }
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
        self.once(keyed, move |fleet, now| fleet.retry(&mut lines, retry.max_machines, now).map(|()| lines))
            .await
    }

    /// The order under its caller's key, if it has one.
    fn keyed(&self, kind: &str, order: &impl Serialize) -> Option<Keyed> {
        let (caller, key) = (self.caller.as_ref()?, self.key.as_ref()?);
        // What was parsed from JSON can be written as JSON.
        let text = serde_json::to_string(order).ok()?;
        let order = Hash::of(format!("{kind} {text}").as_bytes());
        Some(Keyed { who: caller.who.clone(), key: key.to_string(), order })
    }

    /// The answer that was given to the same order before; `None` if it is new, or has no key.
    async fn answered<T: DeserializeOwned + Send + 'static>(
        &self,
        keyed: Option<Keyed>,
    ) -> Result<Option<T>, FleetError> {
        let Some(keyed) = keyed else { return Ok(None) };
        self.look(move |fleet| fleet.answer_before(&keyed)).await?.map_err(FleetError::Refused)
    }

    /// Runs `work` and keeps its answer in the same commit. The same order may have come a second time meanwhile: then
    /// nothing is done, and its answer given.
    async fn once<T: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        keyed: Option<Keyed>,
        work: impl FnOnce(&mut Fleet, Timestamp) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, FleetError> {
        let done = self.ask(move |fleet, now| {
            if let Some(keyed) = &keyed
                && let Some(answer) = fleet.answer_before(keyed)?
            {
                return Ok(answer);
            }
            let answer = work(fleet, now)?;
            if let Some(keyed) = keyed {
                fleet.keep_answer(keyed, &answer, now);
            }
            Ok(answer)
        });
        done.await?.map_err(FleetError::Refused)
    }

    /// Cancels a deployment, or its jobs for the selected machines.
    ///
    /// # Errors
    /// When there is no such deployment, the selection is refused, or it could not be committed.
    pub async fn cancel(&self, id: DeploymentId, cancel: Cancel) -> Result<DeploymentShown, FleetError> {
        let shown = self
            .ask(move |fleet, now| {
                fleet
                    .cancel(id, &cancel, now)
                    .map(|()| fleet.state.find_deployment(id).and_then(|shown| fleet.part_of(shown)))
            })
            .await?
            .map_err(FleetError::Refused)?;
        shown.ok_or(FleetError::Stopping)
    }

    /// Pauses a deployment or ends its pause.
    ///
    /// # Errors
    /// When there is no such deployment, nothing of it is left to begin, or it could not be committed.
    pub async fn pause(&self, id: DeploymentId, order: Pause) -> Result<DeploymentShown, FleetError> {
        let shown = self
            .ask(move |fleet, now| {
                fleet
                    .pause(id, &order, now)
                    .map(|()| fleet.state.find_deployment(id).and_then(|shown| fleet.part_of(shown)))
            })
            .await?
            .map_err(FleetError::Refused)?;
        shown.ok_or(FleetError::Stopping)
    }

    /// Freezes the fleet or ends the freeze, and returns what is then in force.
    ///
    /// # Errors
    /// When it could not be committed.
    pub async fn freeze(&self, order: Freeze) -> Result<Option<Frozen>, FleetError> {
        self.ask(move |fleet, now| fleet.freeze(order.freeze, order.reason, now)).await
    }

    /// Lets no order or retry be placed while the returned permit is held: between the query what needs an image and
    /// its removal, none may be placed that needs it.
    ///
    /// # Errors
    /// When the fleet has stopped.
    pub async fn keep_orders_out(&self) -> Result<OwnedSemaphorePermit, FleetError> {
        let all = Arc::clone(&self.orders).acquire_many_owned(ORDERS_MAX);
        all.await.map_err(|_| FleetError::Stopping)
    }
}
