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
use super::super::by_profile::Shares;
use super::super::decide::Fleet;
use super::super::order::{CheckedOrder, refused};
use super::super::orders::{Candidate, Part, hold_to};
use super::super::profile::wish;
use super::super::request::FleetError;
use super::super::retry::Again;
use super::{FleetHandle, ORDERS_MAX};
use crate::api::shapes::{
    Cancel, DeployAnswer, DeployLine, DeployOrder, DeployPart, DeploymentShown, Freeze, Frozen, ImageShown,
    MachineChanged, MachineCommand, Pause, Retry, RetryLine,
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
        let parts = self.parts_of(&order).await?;
        let (asked, shown) = (order.clone(), parts.clone());
        let shares = self.look(move |fleet| fleet.share_out(&asked, &shown)).await?;
        let Shares { parts: shares, left_over } = shares.map_err(FleetError::Refused)?;
        let mut ready = vec![];
        for ((order, image), share) in parts.into_iter().zip(shares) {
            let accepted = order.as_ordered().accept.clone();
            let mut lines = self.preview(share, accepted).await?;
            let shown = order.as_ordered().shown.iter().flat_map(|shown| &shown.machines);
            lines.iter_mut().zip(shown).for_each(|(line, shown)| hold_to(line, shown.disk.as_ref()));
            ready.push(Part { order, image, lines });
        }
        if order.dry_run {
            let (frozen, ceiling) =
                (self.frozen().await?, self.look(|fleet| fleet.settings.max_machines).await?);
            let mut answer = answer_to(ready, &[], left_over, ceiling).map_err(FleetError::Refused)?;
            answer.frozen = frozen;
            return Ok(answer);
        }
        self.once(keyed, move |fleet, now| {
            let placed = fleet.place_all(&mut ready, now)?;
            answer_to(ready, &placed, left_over, fleet.settings.max_machines)
        })
        .await
    }

    /// The parts of an order, one for each of its profiles, each with its image.
    async fn parts_of(&self, order: &DeployOrder) -> Result<Vec<(CheckedOrder, ImageShown)>, FleetError> {
        let asked = order.clone();
        let orders = self.look(move |fleet| fleet.orders_by_profile(&asked)).await?;
        let (orders, provisioner) = (orders.map_err(FleetError::Refused)?, Arc::clone(&self.provisioner));
        tokio::task::spawn_blocking(move || {
            let part = |order: DeployOrder| {
                let order = CheckedOrder::check(order)?;
                let image = provisioner.image(&order.as_ordered().image)?;
                Ok((order, image))
            };
            orders.into_iter().map(part).collect::<Result<_, Refused>>()
        })
        .await
        .map_err(FleetError::Worker)?
        .map_err(FleetError::Refused)
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

/// The answer to an order of these parts, placed as these deployments: none where it is a dry run.
fn answer_to(
    parts: Vec<Part>,
    placed: &[Option<DeploymentId>],
    left_over: Vec<DeployLine>,
    ceiling: u32,
) -> Result<DeployAnswer, Refused> {
    let first = parts.first().map(|part| (part.image.clone(), part.order.most(ceiling)));
    let (image, max_machines) = first.ok_or_else(|| refused("the order has no parts", "name an image"))?;
    let (mut machines, mut profiles) = (left_over, vec![]);
    for (at, part) in parts.into_iter().enumerate() {
        let ordered = part.order.as_ordered();
        profiles.extend(ordered.profile.clone().map(|profile| DeployPart {
            profile,
            deployment: placed.get(at).copied().flatten(),
            image: part.image,
            wish: wish(ordered),
        }));
        machines.extend(part.lines);
    }
    machines.sort_by_key(|line| line.machine);
    let deployment = placed.iter().copied().flatten().next();
    Ok(DeployAnswer { deployment, image, machines, profiles, max_machines, frozen: None })
}
