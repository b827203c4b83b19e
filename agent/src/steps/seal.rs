//! Step `seal`: the last writes, after which the disk boots.

use std::sync::Arc;

use common::causes::with_causes;

use super::machine::{Machine, blocking};
use super::run::StepError;
use crate::disk::seal::Seal;

pub(super) async fn run(machine: &mut Machine) -> Result<String, StepError> {
    let prepared = machine.seal.clone();
    let target = machine.target()?;
    let seal = match prepared {
        Some(seal) => seal,
        None => Seal::of_image(&target.manifest, &target.held).map_err(|error| StepError::last(&error))?,
    };
    let (device, held) = (Arc::clone(&target.device), target.held.clone());
    let disk = device.words();
    blocking(move || {
        seal.write(&*device, &held)?;
        device.reread_partitions();
        Ok(())
    })
    .await?
    .map_err(|error: crate::disk::seal::SealError| {
        StepError::Again(format!("{disk}: {}", with_causes(&error)))
    })?;
    machine.sealed = true;
    if let Some(session) = &machine.session {
        session.client.sealed().await;
    }
    Ok(String::new())
}
