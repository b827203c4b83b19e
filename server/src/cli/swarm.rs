//! `swarmboot swarm`: shows what each agent has and what slows it down, what was sent into each site,
//! and sets limits on lines. Touches the admin
//! socket.

use std::process::ExitCode;

use common::text::{bytes, percent};
use common::wire::swarm::Bottleneck;

use super::args::Swarm;
use super::client::Client;
use super::show::Screen;
use super::show::words::sent_copies;
use crate::api::shapes::{NodeStatus, SwarmShown, SwarmStatus};
use crate::fault::Fault;
use crate::traffic::{LimitOrder, LineLimits, Rate, SentByKind, SiteTraffic};

pub(super) async fn run(client: &Client, screen: &Screen, command: Swarm) -> Result<ExitCode, Fault> {
    match command {
        Swarm::Status => {
            let status: SwarmShown = client.get("/swarm").await?;
            if screen.wants_json() {
                screen.json(&status)?;
            } else {
                show(screen, &status.images)?;
                show_sites(screen, &status.sites)?;
            }
        }
        Swarm::Limit { rate, site } => {
            let limits: LineLimits = match rate {
                None => client.get("/swarm/limits").await?,
                Some(rate) => client.post("/swarm/limits", &order(site, &rate)?).await?,
            };
            if screen.wants_json() {
                screen.json(&limits)?;
            } else {
                show_limits(screen, &limits)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn order(site: Option<String>, rate: &str) -> Result<LimitOrder, Fault> {
    let rate: Option<Rate> = match rate {
        "none" => None,
        text => Some(text.parse().map_err(|error| {
            Fault::usage("the limit makes no sense").because(&error).hint("write 20M, or `none` to lift it")
        })?),
    };
    Ok(LimitOrder { site, rate })
}

fn show(screen: &Screen, swarms: &[SwarmStatus]) -> Result<(), Fault> {
    if swarms.is_empty() {
        return screen.line("no machine takes part in a swarm");
    }
    for swarm in swarms {
        screen.line(&format!(
            "{}: {} chunks, {}; {}",
            swarm.image.0.short(),
            swarm.chunks,
            bytes(swarm.wire_bytes),
            sent_copies(swarm.injected_bytes, swarm.wire_bytes)
        ))?;
        let head =
            ["MACHINE", "SITE", "HOLDS", "LEASED", "FROM SERVER", "FROM PEERS", "TO PEERS", "HELD UP BY"];
        screen.rows(&head, swarm.nodes.iter().map(|node| row(swarm, node)))?;
    }
    Ok(())
}

fn row(swarm: &SwarmStatus, node: &NodeStatus) -> [String; 8] {
    let held_up = match node.bottleneck {
        _ if !node.connected => "not connected",
        _ if node.job.is_none() => "relay",
        _ if node.sealed => "done",
        Some(Bottleneck::Net) => "net",
        Some(Bottleneck::Disk) => "disk",
        Some(Bottleneck::Cpu) => "cpu",
        None => "-",
    };
    [
        node.name.clone(),
        node.site.clone(),
        format!("{}%", percent(node.held.into(), swarm.chunks.into())),
        node.leased.to_string(),
        bytes(node.from_server),
        bytes(node.from_peers),
        bytes(node.sent),
        held_up.to_owned(),
    ]
}

/// A row for each site, and one for all of them: what the server's own line carried.
fn show_sites(screen: &Screen, sites: &[SiteTraffic]) -> Result<(), Fault> {
    if sites.is_empty() {
        return Ok(());
    }
    let head =
        ["INTO", "BOOT", "BUNDLES", "MANIFESTS", "CHUNKS", "ANSWERS", "CONTROL", "ALL", "RECEIVED", "LIMIT"];
    let all = |of: fn(&SentByKind) -> u64| bytes(sites.iter().map(|site| of(&site.sent)).sum());
    let cells = |name: &str, of: &dyn Fn(fn(&SentByKind) -> u64) -> String, received: u64, limit: String| {
        [
            name.to_owned(),
            of(|sent| sent.dhcp + sent.tftp + sent.boot_files),
            of(|sent| sent.bundle),
            of(|sent| sent.manifest),
            of(|sent| sent.chunks),
            of(|sent| sent.answers),
            of(|sent| sent.control),
            of(SentByKind::all),
            bytes(received),
            limit,
        ]
    };
    let each = sites
        .iter()
        .map(|site| cells(&site.site, &|of| bytes(of(&site.sent)), site.received, rate_shown(site.limit)));
    let received = sites.iter().map(|site| site.received).sum();
    let sum = (sites.len() > 1).then(|| cells("all sites", &all, received, "-".to_owned()));
    screen.rows(&head, each.chain(sum))
}

fn rate_shown(rate: Option<Rate>) -> String {
    rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string())
}

fn show_limits(screen: &Screen, limits: &LineLimits) -> Result<(), Fault> {
    let server = std::iter::once(["the server's line".to_owned(), rate_shown(limits.server)]);
    let sites = limits.sites.iter().map(|(site, of)| [format!("into {site}"), rate_shown(Some(*of))]);
    screen.rows(&["LINE", "LIMIT"], server.chain(sites))
}
