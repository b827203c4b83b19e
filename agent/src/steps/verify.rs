//! Step `verify`: reads back from the disk all that was written and compares it with the manifest; wrong chunks are
//! fetched and written again, at most twice. Chunks held back in memory for the seal were checked when they came.

use std::sync::Arc;

use common::causes::with_causes;
use common::chunk::ChunkIndex;
use tokio::task::spawn_blocking;

use super::error::{StepError, WrongChunks};
use super::machine::Machine;
use super::run::StepReporter;
use super::transfer::fetch_missing;
use crate::disk::fault::Span;
use crate::disk::scan::{Scan, scan};
use crate::disk::write::held_back;

/// The most repairs of a disk before it counts as broken.
const REPAIRS: u32 = 2;

pub(super) async fn run(machine: &mut Machine, reporter: &StepReporter) -> Result<String, StepError> {
    for repair in 0.. {
        let (bad, found) = read_back(machine, reporter).await?;
        let Some(first) = bad.first().copied() else { break };
        let target = machine.target()?;
        let span = |chunk| Span::of(&target.manifest, chunk);
        let wrong = WrongChunks { disk: target.device.words(), count: bad.len(), first: span(first) };
        let error = match found.unreadable {
            Some((chunk, source)) => StepError::Unreadable { wrong, chunk: span(chunk), source },
            None => StepError::Differs { wrong },
        };
        if repair == REPAIRS {
            return Err(error);
        }
        reporter.note(format!("{}; fetching them again", with_causes(&error)));
        machine.target()?.held.lose(&bad);
        // A swarm delivers each chunk once: only a new membership fetches them again.
        machine.leave().await;
        fetch_missing(machine, reporter).await?;
    }
    Ok(format!("{} MiB read back", machine.target()?.manifest.size() >> 20))
}

async fn read_back(
    machine: &mut Machine,
    reporter: &StepReporter,
) -> Result<(Vec<ChunkIndex>, Scan), StepError> {
    let target = machine.target()?;
    let (device, manifest) = (Arc::clone(&target.device), Arc::clone(&target.manifest));
    let back = held_back(&manifest, device.size());
    // A chunk of zeros is written at once, even at a place where a stored one would be held back.
    let chunks: Vec<ChunkIndex> = manifest
        .iter()
        .map(|(index, _)| index)
        .filter(|&index| !back.contains(index) || manifest.stored(index).is_none())
        .collect();
    let (cancel, reporter, all) = (machine.context.cancel.clone(), reporter.clone(), chunks.clone());
    let found = spawn_blocking(move || {
        device.drop_cache().map(|()| {
            let total = manifest.size();
            let progress = |done| reporter.progress(done, total, None);
            scan(&*device, &manifest, &chunks, &cancel, &progress)
        })
    })
    .await?
    .map_err(StepError::Cache)?;
    machine.check_cancelled()?;
    let bad = all.into_iter().filter(|&chunk| !found.same.contains(chunk)).collect();
    Ok((bad, found))
}
