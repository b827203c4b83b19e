//! Step `transfer`: writes chunks from the swarm to the disk until no chunk of the image is missing. The first write of
//! the whole job happens here: it clears what would boot the old system.

use std::path::Path;
use std::sync::Arc;

use common::chunk::ChunkIndex;
use tokio::task::spawn_blocking;

use super::error::StepError;
use super::machine::{LOOK, Machine};
use super::run::StepReporter;
use crate::disk::clear::clear;
use crate::disk::find::is_still;
use crate::disk::write::{Pace, WriteError, Writer};

pub(super) async fn run(machine: &mut Machine, reporter: &StepReporter) -> Result<String, StepError> {
    let target = machine.target()?;
    if !target.cleared {
        let (device, image_bytes) = (Arc::clone(&target.device), target.manifest.size());
        let wanted = machine.plan.target.clone();
        // Fetching the manifest may have taken minutes since the disk was chosen.
        let place = device.place();
        spawn_blocking(move || is_still(Path::new("/"), place, &wanted)).await??;
        let disk = device.words();
        spawn_blocking(move || clear(&*device, image_bytes))
            .await?
            .map_err(|source| StepError::Clear { disk, source })?;
        machine.target()?.cleared = true;
    }
    fetch_missing(machine, reporter).await?;
    let sources = machine.counted();
    let mib = |bytes: u64| bytes >> 20;
    let waited = sources.waited_for().map(|what| format!("; waited for {what}")).unwrap_or_default();
    Ok(format!(
        "{} MiB from the server, {} from peers, {} on the disk already, {} never sent{waited}",
        mib(sources.server),
        mib(sources.peers),
        mib(sources.disk),
        mib(sources.unsent)
    ))
}

/// Fetches and writes the missing chunks; also used to repair a disk that failed its verification.
pub(super) async fn fetch_missing(machine: &mut Machine, reporter: &StepReporter) -> Result<(), StepError> {
    if machine.membership.as_ref().is_none_or(|membership| membership.chunks.is_none()) {
        machine.take_part().await?;
    }
    machine.rejoin_if_broken().await?;
    let tuning = machine.plan.tuning.clone();
    let target = machine.target.as_ref().ok_or(StepError::NotJoined)?;
    let device = Arc::clone(&target.device);
    let disk = device.words();
    let (manifest, held) = (Arc::clone(&target.manifest), target.held.clone());
    let pace = Pace { backlog: tuning.write_backlog.max(1) as usize, sync_bytes: tuning.sync_bytes };
    let chunks = machine.membership()?.chunks.take().ok_or(StepError::NotJoined)?;
    // A token of its own: a failed try stops its writer, and not the job.
    let stop = machine.context.cancel.child_token();
    let writer = Writer::start(device, manifest, held, chunks, pace, stop.clone());
    let down = writer.down();
    let finished = writer.finish();
    tokio::pin!(finished);
    let ended = loop {
        tokio::select! {
            result = &mut finished => break Ok(result),
            () = tokio::time::sleep(LOOK) => {}
        }
        let heard = machine.membership()?.heard.borrow().clone();
        if let Err(error) = machine.check(&heard) {
            break Err(error);
        }
        tell_held(machine).await?;
        let total = machine.target()?.manifest.size();
        let done = *down.borrow();
        reporter.progress(done, total, Some(machine.counted()));
    };
    let result = match ended {
        Ok(result) => result,
        Err(error) => {
            // The channel of chunks is closed with the membership, which ends the writer.
            stop.cancel();
            machine.leave().await;
            return match finished.await {
                Ok(()) | Err(WriteError::Cancelled) => Err(error),
                Err(source) => Err(StepError::Write { disk, source }),
            };
        }
    };
    match result {
        Ok(()) => {}
        Err(WriteError::Cancelled) => return machine.check_cancelled(),
        Err(source) => {
            machine.leave().await;
            return Err(StepError::Write { disk, source });
        }
    }
    tell_held(machine).await?;
    let missing = machine.target()?.held.missing().len();
    if missing > 0 {
        machine.leave().await;
        return Err(StepError::Missing(missing));
    }
    Ok(())
}

/// Tells the swarm of chunks that have become readable from the disk since the last call.
async fn tell_held(machine: &mut Machine) -> Result<(), StepError> {
    let readable = machine.target()?.held.readable();
    let membership = machine.membership()?;
    let new: Vec<ChunkIndex> = readable.iter().filter(|&chunk| !membership.told.contains(chunk)).collect();
    if !new.is_empty() {
        membership.told = readable;
        membership.client.held(new).await;
    }
    Ok(())
}
