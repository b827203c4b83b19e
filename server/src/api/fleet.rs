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
use super::pages::{self, DEPLOYMENTS_MAX, ENTRIES_MAX, Page};
use super::shapes::{
    Caller, Cancel, DeployAnswer, DeployOrder, DeploymentShown, Freeze, Frozen, MachineChanged,
    MachineCommand, MachineCount, MachineShown, Pause, Retry, RetryLine, Selection,
};
use crate::http::refusal::Refusal;

/// The query of a page of the list of machines: those with a greater number than `after` that fit the selectors in
/// `labels`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MachinePage {
    after: Option<String>,
    limit: Option<String>,
    labels: String,
}

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
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    machines: String,
    labels: String,
}

/// Why no machine fits the selectors of the query; null where some do.
pub(super) async fn nobody(Asked(admin): Asked, Query(which): Query<Which>) -> Answered<Option<String>> {
    Ok(Json(admin.fleet.why_nobody(&texts(&which.labels)).await?))
}

/// How many machines the query means. Cheap enough to be asked while somebody types.
pub(super) async fn count(Asked(admin): Asked, Query(which): Query<Which>) -> Answered<MachineCount> {
    let Which { machines, labels } = which;
    let selection = Selection { machines: texts(&machines), labels: texts(&labels) };
    Ok(Json(admin.fleet.count(selection).await?))
}

fn texts(text: &str) -> Vec<String> {
    if text.is_empty() { vec![] } else { vec![text.to_owned()] }
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

/// The query of a page of the list of deployments: those behind `after`, the newest first if `newest` is set.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DeploymentPage {
    after: Option<String>,
    limit: Option<String>,
    newest: bool,
}

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
