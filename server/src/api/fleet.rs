//! The admin's routes for machines and orders. Each passes its request to the fleet, whose answers are shapes already.
//! Touches the fleet's handle.

use std::sync::Arc;

use axum::response::Response;
use axum::{Extension, Json};
use common::id::{DeploymentId, MachineId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::admin::{Answered, JsonBody, Path, Query, bounded};
use super::caller::{Asked, OrderKey};
use super::pages::{self, DEPLOYMENTS_MAX, ENTRIES_MAX, Page};
use super::shapes::live::Live;
use super::shapes::{
    Caller, Cancel, DeployAnswer, DeployOrder, DeploymentShown, Freeze, Frozen, MachineChanged,
    MachineCommand, MachineCount, MachineShown, Pause, Retry, RetryLine, Selection,
};
use crate::http::Door;
use crate::http::refusal::Refusal;

/// The query of a page of the list of machines: those with a greater number than `after` that fit the selectors in
/// `labels`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct MachinePage {
    /// Only machines with a greater number, such as m12.
    after: Option<String>,
    /// At most so many.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// Only machines that fit these selectors, with commas between.
    labels: String,
}

/// Lists the machines, by their numbers.
#[utoipa::path(get, path = "/machines", params(MachinePage), responses((status = 200, description = "The machines of this page; fewer than `limit` when it is the last", body = Vec<MachineShown>)))]
pub(super) async fn machines(
    Asked(admin): Asked,
    Query(asked): Query<MachinePage>,
) -> Result<Page<MachineShown>, Refusal> {
    let limit = pages::limit(asked.limit.as_deref(), ENTRIES_MAX)?;
    let after = MachineId(pages::after(asked.after.as_deref(), 'm')?.unwrap_or(0));
    let machines = admin.fleet.machines_after(after, limit + 1, &texts(&asked.labels)).await?;
    Ok(Page::of(machines, limit, |last| {
        let mut query = vec![("after", last.id.to_string()), ("limit", limit.to_string())];
        if !asked.labels.is_empty() {
            query.push(("labels", asked.labels));
        }
        pages::next_at("/machines", &query)
    }))
}

/// The query of what is said about machines without listing them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// These machines, as the command line names them.
    machines: String,
    /// Machines that fit these selectors, with commas between.
    labels: String,
}

/// Says why no machine fits selectors.
#[utoipa::path(get, path = "/machines/nobody", params(Which), responses((status = 200, description = "One sentence; null where some do", body = Option<String>)))]
pub(super) async fn nobody(Asked(admin): Asked, Query(which): Query<Which>) -> Answered<Option<String>> {
    Ok(Json(admin.fleet.why_nobody(&texts(&which.labels)).await?))
}

/// Counts the machines that are meant.
///
/// Cheap enough to be asked while somebody types.
#[utoipa::path(get, path = "/machines/count", params(Which), responses((status = 200, description = "How many they are", body = MachineCount)))]
pub(super) async fn count(Asked(admin): Asked, Query(which): Query<Which>) -> Answered<MachineCount> {
    let Which { machines, labels } = which;
    let selection = Selection { machines: texts(&machines), labels: texts(&labels) };
    Ok(Json(admin.fleet.count(selection).await?))
}

fn texts(text: &str) -> Vec<String> {
    if text.is_empty() { vec![] } else { vec![text.to_owned()] }
}

/// Shows a machine.
///
/// With its devices, which lists leave out.
#[utoipa::path(get, path = "/machines/{machine}", params(("machine" = String, Path, description = "The machine's id, name, serial number or Ethernet address")), responses((status = 200, description = "The machine", body = MachineShown)))]
pub(super) async fn machine(Asked(admin): Asked, Path(name): Path<String>) -> Answered<MachineShown> {
    Ok(Json(admin.fleet.machine(bounded(name)?).await?))
}

/// Follows what machines, deployments and swarms do now.
///
/// Does not end.
#[utoipa::path(get, path = "/live", responses((status = 200, description = "Server-sent events, each a `Live`: everything first, then what changed", body = Live, content_type = "text/event-stream")))]
pub(super) async fn live(
    Asked(admin): Asked,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(door): Extension<Door>,
) -> Result<Response, Refusal> {
    let place = admin.streams.place(door)?;
    admin.live.response(caller.scope.clone(), place).await
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

/// The query of a page of the list of deployments: those behind `after`, the newest first if `newest` is set.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct DeploymentPage {
    /// Only deployments behind this one, such as d12.
    after: Option<String>,
    /// At most so many.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// The newest first.
    newest: bool,
}

/// Lists the deployments with their jobs.
#[utoipa::path(get, path = "/deployments", params(DeploymentPage), responses((status = 200, description = "The deployments of this page, with the next one in `Link`", body = Vec<DeploymentShown>)))]
pub(super) async fn deployments(
    Asked(admin): Asked,
    Query(asked): Query<DeploymentPage>,
) -> Result<Page<DeploymentShown>, Refusal> {
    let limit = pages::limit(asked.limit.as_deref(), DEPLOYMENTS_MAX)?;
    let after = pages::after(asked.after.as_deref(), 'd')?.map(DeploymentId);
    let deployments = admin.fleet.deployments_after(after, limit + 1, asked.newest).await?;
    Ok(Page::of(deployments, limit, |last| {
        let (after, limit) = (last.id.to_string(), limit.to_string());
        let query = [("after", after), ("limit", limit), ("newest", asked.newest.to_string())];
        pages::next_at("/deployments", &query)
    }))
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
