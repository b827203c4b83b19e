//! Step `seal`: the last writes, after which the disk boots. Touches the disk, and tells the swarm.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::error::StepError;
use super::machine::Machine;
use crate::disk::seal::Seal;

pub(super) async fn run(machine: &mut Machine) -> Result<String, StepError> {
    let prepared = machine.seal.clone();
    let target = machine.target()?;
    let seal = match prepared {
        Some(seal) => seal,
        None => Seal::of_image(&target.manifest, &target.held).map_err(StepError::Unsealable)?,
    };
    let (device, held) = (Arc::clone(&target.device), target.held.clone());
    let disk = device.words();
    spawn_blocking(move || seal.write(&*device, &held).map(|()| device.reread_partitions()))
        .await?
        .map_err(|source| StepError::Seal { disk, source })?;
    machine.sealed = true;
    if let Some(membership) = &machine.membership {
        membership.client.sealed().await;
    }
    Ok(String::new())
}
