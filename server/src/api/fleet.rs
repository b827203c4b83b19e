//! The admin's routes for machines and orders. Each passes its request to the fleet, whose answers are shapes already.
//! Touches the fleet's handle.

use std::sync::Arc;

use axum::extract::{Path, Query};
use axum::response::Response;
use axum::{Extension, Json};
use common::id::{DeploymentId, MachineId};
use serde::Deserialize;

use super::admin::{Answered, JsonBody, bounded};
use super::caller::Asked;
use super::shapes::{
    Caller, Cancel, DeployAnswer, DeployOrder, DeploymentShown, Freeze, Frozen, MachineChanged,
    MachineCommand, MachineShown, Pause, Retry, RetryLine,
};
use crate::http::refusal::Refusal;

/// The query of a page of the list of machines: those with a greater number than `after` that fit the selectors in
/// `labels`, all of them without a limit.
#[derive(Debug, Deserialize)]
pub(super) struct MachinePage {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
    #[serde(default)]
    labels: String,
}

pub(super) async fn machines(
    Asked(admin): Asked,
    Query(page): Query<MachinePage>,
) -> Answered<Vec<MachineShown>> {
    let limit = page.limit.unwrap_or(usize::MAX);
    let labels = texts(page.labels);
    Ok(Json(admin.fleet.machines_after(MachineId(page.after), limit, &labels).await?))
}

/// Why no machine fits the selectors of the query; null where some do.
pub(super) async fn nobody(Asked(admin): Asked, Query(page): Query<MachinePage>) -> Answered<Option<String>> {
    Ok(Json(admin.fleet.why_nobody(&texts(page.labels)).await?))
}

fn texts(labels: String) -> Vec<String> {
    if labels.is_empty() { vec![] } else { vec![labels] }
}

pub(super) async fn machine(Asked(admin): Asked, Path(name): Path<String>) -> Answered<MachineShown> {
    Ok(Json(admin.fleet.machine(bounded(name)?).await?))
}

/// What machines, deployments and swarms do now, as server-sent events.
pub(super) async fn live(
    Asked(admin): Asked,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Response, Refusal> {
    let place = admin.streams.place()?;
    admin.live.response(caller.scope.clone(), place).await
}

pub(super) async fn command(
    Asked(admin): Asked,
    JsonBody(command): JsonBody<MachineCommand>,
) -> Answered<Vec<MachineChanged>> {
    Ok(Json(admin.fleet.command(command).await?))
}

pub(super) async fn deployments(Asked(admin): Asked) -> Answered<Vec<DeploymentShown>> {
    Ok(Json(admin.fleet.deployments().await?))
}

pub(super) async fn order(
    Asked(admin): Asked,
    JsonBody(order): JsonBody<DeployOrder>,
) -> Answered<DeployAnswer> {
    Ok(Json(admin.fleet.order(order).await?))
}

pub(super) async fn retry(Asked(admin): Asked, JsonBody(retry): JsonBody<Retry>) -> Answered<Vec<RetryLine>> {
    Ok(Json(admin.fleet.retry(retry).await?))
}

pub(super) async fn freeze(
    Asked(admin): Asked,
    JsonBody(freeze): JsonBody<Freeze>,
) -> Answered<Option<Frozen>> {
    Ok(Json(admin.fleet.freeze(freeze).await?))
}

pub(super) async fn deployment(Asked(admin): Asked, Path(id): Path<String>) -> Answered<DeploymentShown> {
    let id = deployment_id(&id)?;
    let shown = admin.fleet.deployment(id).await?;
    shown.map(Json).ok_or_else(|| no_deployment(&id.to_string()))
}

pub(super) async fn cancel(
    Asked(admin): Asked,
    Path(id): Path<String>,
    JsonBody(cancel): JsonBody<Cancel>,
) -> Answered<DeploymentShown> {
    Ok(Json(admin.fleet.cancel(deployment_id(&id)?, cancel).await?))
}

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
