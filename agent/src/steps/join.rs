//! Step `join`: fetches the manifest, chooses and opens the disk, finds out what it holds already, and joins the swarm.
//! Everything that can be refused is refused here, and nothing is written.

use std::path::Path;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::error::StepError;
use super::machine::{Machine, Target};
use super::run::StepReporter;
use crate::disk::device::Device;
use crate::disk::resume::held_already;
use crate::disk::{clear, find};
use crate::fetch::Failed;

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
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    let (cancel, reporter) = (machine.context.cancel.clone(), reporter.clone());
    let (opened, listed) = (Arc::clone(&device), Arc::clone(&manifest));
    let scan = spawn_blocking(move || {
        let total = listed.size();
        let progress = |done| reporter.progress(done, total, None);
        held_already(&*opened, &listed, &skip, u64::from_le_bytes(random), &cancel, &progress)
    })
    .await?;
    machine.check_cancelled()?;
    Ok(Target::new(device, manifest, scan.same))
}
