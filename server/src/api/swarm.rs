//! The admin's routes for the swarm: its status, and the limits on lines. Touches the swarm's handle, and asks the
//! fleet which sites there are.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::admin::{Admin, Answered, JsonBody};
use super::shapes::SwarmStatus;
use crate::http::refusal::Refusal;
use crate::swarm::{LimitOrder, LineLimits, Stopped};

/// How many sites an error message names.
const SITES_SHOWN: usize = 20;

pub(super) async fn status(State(admin): State<Admin>) -> Answered<Vec<SwarmStatus>> {
    admin.swarm.status().await.map(Json).map_err(no_swarm)
}

pub(super) async fn limits(State(admin): State<Admin>) -> Answered<LineLimits> {
    admin.swarm.limit(None).await.map(Json).map_err(no_swarm)
}

pub(super) async fn limit(
    State(admin): State<Admin>,
    JsonBody(order): JsonBody<LimitOrder>,
) -> Answered<LineLimits> {
    if let Some(site) = &order.site {
        // A limit for a misspelt site would limit nothing, and nobody would notice.
        let sites = admin.fleet.sites().await?;
        let limited = admin.swarm.limit(None).await.map_err(no_swarm)?.sites;
        if !sites.contains(site) && !limited.contains_key(site) {
            return Err(no_site(site, &sites));
        }
    }
    admin.swarm.limit(Some(order)).await.map(Json).map_err(no_swarm)
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
