//! `swarmboot swarm`: shows what each agent has and what slows it down, and sets limits on lines. Touches the admin
//! socket.

use std::process::ExitCode;

use common::text::{bytes, percent};
use common::wire::swarm::Bottleneck;

use super::args::Swarm;
use super::client::Client;
use super::show::Screen;
use super::show::words::sent_copies;
use crate::api::shapes::{NodeStatus, SwarmStatus};
use crate::fault::Fault;
use crate::swarm::{LimitOrder, LineLimits, Rate};

pub(super) async fn run(client: &Client, screen: &Screen, command: Swarm) -> Result<ExitCode, Fault> {
    match command {
        Swarm::Status => {
            let status: Vec<SwarmStatus> = client.get("/swarm").await?;
            if screen.wants_json() {
                screen.json(&status)?;
            } else {
                show(screen, &status)?;
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

fn show_limits(screen: &Screen, limits: &LineLimits) -> Result<(), Fault> {
    let rate = |rate: Option<Rate>| rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
    let server = std::iter::once(["the server's line".to_owned(), rate(limits.server)]);
    let sites = limits.sites.iter().map(|(site, of)| [format!("into {site}"), rate(Some(*of))]);
    screen.rows(&["LINE", "LIMIT"], server.chain(sites))
}
