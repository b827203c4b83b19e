//! The admin's routes for the swarm: its status, and the limits on lines. Touches the swarm's handle and the counts
//! of what was sent, and asks the fleet which sites there are.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::StatusCode;
use common::id::ImageId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::admin::{Answered, JsonBody, Path, Query, bounded};
use super::caller::Asked;
use super::images::refused;
use super::shapes::SwarmShown;
use super::shapes::maps::SwarmAnswer;
use crate::http::blocking;
use crate::http::refusal::Refusal;
use crate::swarm::Stopped;
use crate::traffic::{LimitOrder, LineLimits};

/// How many sites an error message names.
const SITES_SHOWN: usize = 20;

/// Shows who has what of the images, and what was sent where.
#[utoipa::path(get, path = "/swarm", responses((status = 200, description = "The swarms and the sites", body = SwarmShown)))]
pub(super) async fn status(Asked(admin): Asked) -> Answered<SwarmShown> {
    let images = admin.swarm.status().await.map_err(no_swarm)?;
    Ok(Json(SwarmShown { images, sites: admin.traffic.shown() }))
}

/// The query of one image's swarm.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct Since {
    /// The `mark` of the last answer; empty at first. Then the chunk maps are told alone, as they have changed since.
    since: Option<String>,
}

/// Shows the swarm of one image in detail.
///
/// The image by its name, or by its id where it was removed meanwhile. To draw it all the time, ask with `since`.
#[utoipa::path(get, path = "/swarm/{image}", params(("image" = String, Path, description = "The image's name or id"), Since), responses((status = 200, description = "Its agents with what each has; with `since` which chunks each has, or gained", body = SwarmAnswer)))]
pub(super) async fn detail(
    Asked(admin): Asked,
    Path(image): Path<String>,
    Query(Since { since }): Query<Since>,
) -> Answered<SwarmAnswer> {
    let name = bounded(image)?;
    let (images, asked) = (admin.images.clone(), name.clone());
    let id = match name.parse().map(ImageId) {
        Ok(id) => id,
        Err(_) => blocking(move || images.get(&asked)).await?.map_err(|error| refused(&error))?.id,
    };
    let answer = match since {
        Some(since) => admin.swarm.maps(id, Some(since)).await.map(|maps| maps.map(SwarmAnswer::Maps)),
        None => admin.swarm.detail(id).await.map(|detail| detail.map(SwarmAnswer::Detail)),
    };
    answer.map_err(no_swarm)?.map(Json).ok_or_else(|| {
        Refusal::absent(format!("no machine takes `{}` now", common::limits::cut(&name, 80)))
            .hint("`swarmboot swarm status` shows the images that machines take")
    })
}

/// Shows the limits on lines.
#[utoipa::path(get, path = "/swarm/limits", responses((status = 200, description = "The limits in force", body = LineLimits)))]
pub(super) async fn limits(Asked(admin): Asked) -> Answered<LineLimits> {
    Ok(Json(admin.traffic.limits()))
}

/// Sets or lifts the limit of a line.
#[utoipa::path(post, path = "/swarm/limits", request_body = LimitOrder, responses((status = 200, description = "The limits in force now", body = LineLimits)))]
pub(super) async fn limit(
    Asked(admin): Asked,
    JsonBody(order): JsonBody<LimitOrder>,
) -> Answered<LineLimits> {
    if let Some(site) = &order.site {
        // A limit for a misspelt site would limit nothing, and nobody would notice.
        let sites = admin.fleet.sites().await?;
        let limited = admin.traffic.limits().sites;
        if !sites.contains(site) && !limited.contains_key(site) {
            return Err(no_site(site, &sites));
        }
    }
    let whose = order
        .site
        .as_ref()
        .map_or_else(|| "the server's line".to_owned(), |site| format!("the line of {site}"));
    let rate = order.rate.map_or_else(|| "no limit".to_owned(), |rate| format!("a limit of {rate}"));
    let limits = admin.traffic.limit(order);
    admin.fleet.note(format!("{whose} has {rate} now")).await;
    Ok(Json(limits))
}

fn no_site(site: &str, known: &BTreeSet<String>) -> Refusal {
    let shown: Vec<&str> = known.iter().take(SITES_SHOWN).map(String::as_str).collect();
    let rest = if known.len() > SITES_SHOWN { ", ..." } else { "" };
    Refusal::absent(format!("there is no site `{}`", common::limits::cut(site, 80)))
        .because(match shown.as_slice() {
            [] => "no machine has been seen, and the configuration names no site".to_owned(),
            names => format!("the sites are {}{rest}", names.join(", ")),
        })
        .hint("a `[[site]]` in the configuration file can have a limit before its machines come")
}

fn no_swarm(error: Stopped) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).hint("the server's own log has more")
}
