//! The admin's routes for machines and orders. Each passes its request to the fleet, whose answers are shapes already.
//! Touches the fleet's handle.

use axum::Json;
use common::id::{DeploymentId, MachineId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::admin::{Answered, JsonBody, Path, Query, bounded};
use super::caller::{Asked, OrderKey};
use super::shapes::{
    Cancel, DeployAnswer, DeployOrder, DeploymentShown, Freeze, Frozen, MachineChanged, MachineCommand,
    MachineShown, Pause, Retry, RetryLine,
};
use crate::http::refusal::Refusal;

/// The query of a page of the list of machines: those with a greater number than `after` that fit the selectors in
/// `labels`, all of them without a limit.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct MachinePage {
    /// Only machines with a greater number.
    #[serde(default)]
    after: u64,
    /// At most so many; all of them when it is left out.
    limit: Option<usize>,
    /// Only machines that fit these selectors, with commas between.
    #[serde(default)]
    labels: String,
}

/// Lists the machines, by their numbers.
#[utoipa::path(get, path = "/machines", params(MachinePage), responses((status = 200, description = "The machines of this page; fewer than `limit` when it is the last", body = Vec<MachineShown>)))]
pub(super) async fn machines(
    Asked(admin): Asked,
    Query(page): Query<MachinePage>,
) -> Answered<Vec<MachineShown>> {
    let limit = page.limit.unwrap_or(usize::MAX);
    let labels = texts(page.labels);
    Ok(Json(admin.fleet.machines_after(MachineId(page.after), limit, &labels).await?))
}

/// Says why no machine fits selectors.
#[utoipa::path(get, path = "/machines/nobody", params(MachinePage), responses((status = 200, description = "One sentence; null where some do", body = Option<String>)))]
pub(super) async fn nobody(Asked(admin): Asked, Query(page): Query<MachinePage>) -> Answered<Option<String>> {
    Ok(Json(admin.fleet.why_nobody(&texts(page.labels)).await?))
}

fn texts(labels: String) -> Vec<String> {
    if labels.is_empty() { vec![] } else { vec![labels] }
}

/// Shows a machine.
///
/// With its devices, which lists leave out.
#[utoipa::path(get, path = "/machines/{machine}", params(("machine" = String, Path, description = "The machine's id, name, serial number or Ethernet address")), responses((status = 200, description = "The machine", body = MachineShown)))]
pub(super) async fn machine(Asked(admin): Asked, Path(name): Path<String>) -> Answered<MachineShown> {
    Ok(Json(admin.fleet.machine(bounded(name)?).await?))
}

/// Changes machines.
///
/// Approves, rejects, names, labels, holds, releases, merges or forgets them.
#[utoipa::path(post, path = "/machines", request_body = MachineCommand, responses((status = 200, description = "One line for each machine", body = Vec<MachineChanged>)))]
pub(super) async fn command(
    Asked(admin): Asked,
    JsonBody(command): JsonBody<MachineCommand>,
) -> Answered<Vec<MachineChanged>> {
    Ok(Json(admin.fleet.command(command).await?))
}

/// Lists the deployments.
#[utoipa::path(get, path = "/deployments", responses((status = 200, description = "All deployments with their jobs", body = Vec<DeploymentShown>)))]
pub(super) async fn deployments(Asked(admin): Asked) -> Answered<Vec<DeploymentShown>> {
    Ok(Json(admin.fleet.deployments().await?))
}

/// Orders a deployment.
///
/// With `dry_run` it only shows what would be written and erased; what it shows can be sent back in `shown`.
#[utoipa::path(post, path = "/deployments", params(OrderKey), request_body = DeployOrder, responses((status = 200, description = "What was ordered, or would be, for each machine", body = DeployAnswer)))]
pub(super) async fn order(
    Asked(admin): Asked,
    JsonBody(order): JsonBody<DeployOrder>,
) -> Answered<DeployAnswer> {
    Ok(Json(admin.fleet.order(order).await?))
}

/// Orders jobs again that failed or were refused.
#[utoipa::path(post, path = "/deployments/retry", params(OrderKey), request_body = Retry, responses((status = 200, description = "One line for each job", body = Vec<RetryLine>)))]
pub(super) async fn retry(Asked(admin): Asked, JsonBody(retry): JsonBody<Retry>) -> Answered<Vec<RetryLine>> {
    Ok(Json(admin.fleet.retry(retry).await?))
}

/// Freezes the server, so that it starts nothing new, or ends that.
#[utoipa::path(post, path = "/freeze", request_body = Freeze, responses((status = 200, description = "The freeze that is in force now, or null", body = Option<Frozen>)))]
pub(super) async fn freeze(
    Asked(admin): Asked,
    JsonBody(freeze): JsonBody<Freeze>,
) -> Answered<Option<Frozen>> {
    Ok(Json(admin.fleet.freeze(freeze).await?))
}

/// Shows a deployment.
#[utoipa::path(get, path = "/deployments/{id}", params(("id" = String, Path, description = "The deployment's id, such as d3")), responses((status = 200, description = "The deployment with its jobs", body = DeploymentShown)))]
pub(super) async fn deployment(Asked(admin): Asked, Path(id): Path<String>) -> Answered<DeploymentShown> {
    let id = deployment_id(&id)?;
    let shown = admin.fleet.deployment(id).await?;
    shown.map(Json).ok_or_else(|| no_deployment(&id.to_string()))
}

/// Cancels a deployment, or the jobs of some of its machines.
#[utoipa::path(post, path = "/deployments/{id}/cancel", params(("id" = String, Path, description = "The deployment's id, such as d3")), request_body = Cancel, responses((status = 200, description = "The deployment as it is now", body = DeploymentShown)))]
pub(super) async fn cancel(
    Asked(admin): Asked,
    Path(id): Path<String>,
    JsonBody(cancel): JsonBody<Cancel>,
) -> Answered<DeploymentShown> {
    Ok(Json(admin.fleet.cancel(deployment_id(&id)?, cancel).await?))
}

/// Pauses a deployment, or goes on with it.
///
/// Nothing more of it begins; what runs goes on.
#[utoipa::path(post, path = "/deployments/{id}/pause", params(("id" = String, Path, description = "The deployment's id, such as d3")), request_body = Pause, responses((status = 200, description = "The deployment as it is now", body = DeploymentShown)))]
pub(super) async fn pause(
    Asked(admin): Asked,
    Path(id): Path<String>,
    JsonBody(pause): JsonBody<Pause>,
) -> Answered<DeploymentShown> {
    Ok(Json(admin.fleet.pause(deployment_id(&id)?, pause).await?))
}

fn deployment_id(text: &str) -> Result<DeploymentId, Refusal> {
    text.parse().map_err(|_| no_deployment(text))
}

fn no_deployment(text: &str) -> Refusal {
    Refusal::absent(format!("there is no deployment `{}`", common::limits::cut(text, 80)))
        .hint("`swarmboot deploy list` shows the deployments")
}
