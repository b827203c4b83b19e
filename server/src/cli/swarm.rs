//! `swarmboot swarm`: who holds which chunks.

use std::process::ExitCode;

use super::args::Swarm;
use super::client::Client;
use super::fault::Fault;
use super::show::Screen;

pub(super) async fn run(client: &Client, screen: &Screen, command: Swarm) -> Result<ExitCode, Fault> {
    match command {
        Swarm::Status => {
            let status: serde_json::Value = client.get("/swarm").await?;
            screen.json(&status)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
