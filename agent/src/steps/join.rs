//! Step `join`: fetches the manifest, chooses and opens the disk, finds out what it holds already, and joins the swarm.
//! Everything that can be refused is refused here, and nothing is written.

use std::path::Path;
use std::sync::Arc;

use common::causes::with_causes;
use common::chunk::ChunkSet;
use common::manifest::Manifest;
use tokio::task::spawn_blocking;

use super::error::StepError;
use super::machine::{Machine, Target};
use super::run::StepReporter;
use crate::disk::bases::Bases;
use crate::disk::device::Device;
use crate::disk::resume::held_already;
use crate::disk::{clear, find};
use crate::fetch::Failed;
use crate::swarm::DeltaBases as _;

pub(super) async fn run(machine: &mut Machine, reporter: &StepReporter) -> Result<String, StepError> {
    if machine.target.is_none() {
        machine.target = Some(open(machine, reporter).await?);
    }
    machine.take_part().await?;
    let personality = machine.wait(|heard| heard.personality.clone(), |_| {}).await?;
    let name = personality.hostname.clone();
    machine.personality = Some(personality);
    let target = machine.target()?;
    let had = target.disk_bytes >> 20;
    Ok(if had == 0 {
        format!("as {name}")
    } else {
        format!("as {name}; the disk holds {had} MiB of the image already")
    })
}

async fn open(machine: &Machine, reporter: &StepReporter) -> Result<Target, StepError> {
    let (server, plan) = (machine.context.server.clone(), machine.plan.clone());
    let noted = reporter.clone();
    let fetched = spawn_blocking(move || {
        let mut failed = |failed: &Failed| noted.note(failed.to_string());
        server.manifest_near(plan.image, plan.image_bytes, &plan.peers, &mut failed)
    });
    let (manifest, bytes) = fetched.await??;
    if let Some(boot_files) = &machine.context.boot_files {
        boot_files.put(bytes);
    }
    let (wanted, disks) = (&machine.plan.target, &machine.context.disks);
    let disk = find::choose(wanted, disks, manifest.size(), manifest.sector_bytes())?;
    let device: Arc<dyn Device> = Arc::new(find::open(disk)?);
    find::is_still(Path::new("/"), device.place(), wanted)?;
    if !disk.found.is_empty() {
        reporter.note(format!("on {} there was: {}", disk.name, disk.found.join(", ")));
    }
    let manifest = Arc::new(manifest);
    let skip = clear::cleared(&manifest, disk.size);
    let gone = skip.clone();
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    let random = u64::from_le_bytes(random);
    let (cancel, told) = (machine.context.cancel.clone(), reporter.clone());
    let (opened, listed) = (Arc::clone(&device), Arc::clone(&manifest));
    let scan = spawn_blocking(move || {
        let total = listed.size();
        let progress = |done| told.progress(done, total, None);
        held_already(&*opened, &listed, &skip, random, &cancel, &progress)
    })
    .await?;
    machine.check_cancelled()?;
    let bases = earlier_build(machine, reporter, &device, &manifest, (&scan.same, gone), random).await?;
    machine.check_cancelled()?;
    Ok(Target::new(device, manifest, scan.same, bases))
}

/// What the disk holds of an earlier build of the image, of which the server has deltas. Without it every chunk is
/// fetched whole, so only the log is told what fails.
async fn earlier_build(
    machine: &Machine,
    reporter: &StepReporter,
    device: &Arc<dyn Device>,
    manifest: &Arc<Manifest>,
    (held, gone): (&ChunkSet, ChunkSet),
    random: u64,
) -> Result<Option<Arc<Bases>>, StepError> {
    let Some(hash) = machine.plan.deltas else { return Ok(None) };
    let (server, image) = (machine.context.server.clone(), machine.plan.image);
    let table = match spawn_blocking(move || server.deltas(image, hash)).await? {
        Ok(table) => table,
        Err(error) => {
            reporter.note(format!("chunks are fetched whole: {}", with_causes(&error)));
            return Ok(None);
        }
    };
    let (device, manifest, held) = (Arc::clone(device), Arc::clone(manifest), held.clone());
    let (cancel, copies_max) = (machine.context.cancel.clone(), machine.plan.tuning.cache_bytes / 2);
    let found = spawn_blocking(move || {
        Bases::find(&device, table, &manifest, (&held, &gone), copies_max, random, &cancel)
    });
    let bases = found.await?.map(Arc::new);
    if let Some(bases) = &bases {
        let count = bases.chunks().count();
        reporter.note(format!("the disk holds an earlier build: {count} chunks are fetched as deltas"));
    }
    Ok(bases)
}
