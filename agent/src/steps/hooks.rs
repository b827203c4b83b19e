//! Step `hooks`: an admin's scripts run in the new root, before the seal: a disk whose hooks failed does not boot. Touches
//! the disk, and takes back from the swarm what the scripts changed.
//!
//! A power cut is harmless: the next attempt reads the disk again, fetches what the scripts changed, and runs them anew
//! on the image as it was ordered.

use std::io;
use std::sync::Arc;

use common::causes::with_causes;
use common::chunk::ChunkIndex;
use common::hooks::{Hooks, OnFailure};
use common::manifest::Manifest;
use common::plan::Plan;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::error::StepError;
use super::machine::{Machine, ScriptRunner};
use super::run::StepReporter;
use crate::disk::device::Device;
use crate::disk::held::Held;
use crate::disk::scan::scan;
use crate::disk::seal::Seal;
use crate::hooks::error::HookError;
use crate::hooks::region::Region;
use crate::hooks::script::Script;

/// What the thread that runs the hooks is given.
struct Work {
    hooks: Hooks,
    environment: Vec<(&'static str, String)>,
    device: Arc<dyn Device>,
    manifest: Arc<Manifest>,
    held: Held,
    seal: Seal,
    reporter: StepReporter,
    run_script: ScriptRunner,
    stop: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether peers may still ask for chunks.
    serves: bool,
}

pub(super) async fn run(machine: &mut Machine, reporter: &StepReporter) -> Result<String, StepError> {
    let personality = machine.personality.as_ref().ok_or(StepError::NotJoined)?;
    let hooks = personality.hooks.clone().ok_or(HookError::NoScripts)?;
    let hostname = personality.hostname.clone();
    let environment = environment(&hooks, hostname, &machine.plan);
    let heard = machine.membership.as_ref().map(|membership| membership.heard.clone());
    let serves = heard.as_ref().is_some_and(|heard| !heard.borrow().released);
    let (sink, cancel) = (Arc::clone(&machine.context.sink), machine.context.cancel.clone());
    let stop = move || {
        let dismissed = heard.as_ref().is_some_and(|heard| heard.borrow().cancelled.is_some());
        dismissed || cancel.is_cancelled() || sink.cancelled().is_some()
    };
    let prepared = machine.seal.clone();
    let run_script = machine.context.run_script;
    let target = machine.target()?;
    let seal = match prepared {
        Some(seal) => seal,
        None => Seal::of_image(&target.manifest, &target.held).map_err(StepError::Unsealable)?,
    };
    let work = Work {
        hooks,
        environment,
        device: Arc::clone(&target.device),
        manifest: Arc::clone(&target.manifest),
        held: target.held.clone(),
        seal,
        reporter: reporter.clone(),
        run_script,
        stop: Box::new(stop),
        serves,
    };
    // Not an error that may pass: a second try would run the scripts on what the first has left.
    let panicked = |error| HookError::System { what: "the hooks panicked", source: io::Error::other(error) };
    let result = spawn_blocking(move || work.run()).await.map_err(panicked)?;
    if let Some(heard) = machine.membership.as_ref().map(|membership| membership.heard.clone())
        && let Some(reason) = heard.borrow().cancelled.clone()
    {
        return Err(StepError::Dismissed(reason));
    }
    machine.check_cancelled()?;
    let (seal, said) = result?;
    machine.seal = Some(seal);
    Ok(said)
}

/// What the scripts are told of their machine.
fn environment(hooks: &Hooks, hostname: String, plan: &Plan) -> Vec<(&'static str, String)> {
    let disk = &plan.target;
    let mark = [&disk.serial, &disk.wwn, &disk.path].into_iter().find(|mark| !mark.trim().is_empty());
    vec![
        ("SWARMBOOT_MACHINE", hooks.machine.to_string()),
        ("SWARMBOOT_HOSTNAME", hostname),
        ("SWARMBOOT_DEPLOYMENT", hooks.deployment.to_string()),
        ("SWARMBOOT_ATTEMPT", plan.attempt.to_string()),
        ("SWARMBOOT_SITE", hooks.site.clone()),
        ("SWARMBOOT_DISK", mark.map(|mark| mark.trim().to_owned()).unwrap_or_default()),
    ]
}

impl Work {
    /// Runs all hooks; returns the seal with what they changed, and a short text for the log.
    fn run(self) -> Result<(Seal, String), HookError> {
        let region = Region::find(&*self.device, &self.seal, &self.hooks.root)?;
        // From now on the root is no longer the image's, and must not be served as such.
        self.held.forget(&region.bytes);
        region.lend(&*self.device, &self.seal).map_err(HookError::Disk)?;
        let total = self.hooks.list.len();
        let mut failed = vec![];
        for (done, hook) in self.hooks.list.iter().enumerate() {
            self.reporter.progress(done as u64, total as u64, None);
            let tell = |line: String| self.reporter.note(format!("{}: {line}", hook.name));
            let script = Script {
                device: &*self.device,
                region: &region,
                hook,
                environment: &self.environment,
                stop: &*self.stop,
                tell: &tell,
            };
            match (self.run_script)(&script) {
                Ok(()) => {}
                Err(error) if error.is_of_script() && hook.on_failure == OnFailure::Continue => {
                    self.reporter.note(format!("{}; going on, as ordered", with_causes(&error)));
                    failed.push(hook.name.clone());
                }
                Err(error) => return Err(error),
            }
        }
        self.device.sync().map_err(HookError::Disk)?;
        let seal = region.take_back(&*self.device, self.seal.clone()).map_err(HookError::Disk)?;
        if self.serves {
            self.take_back(&region).map_err(HookError::Disk)?;
        }
        let ran = format!("{total} in partition {}", region.number);
        let said =
            if failed.is_empty() { ran } else { format!("{ran}, of which failed: {}", failed.join(", ")) };
        Ok((seal, said))
    }

    /// Finds the chunks that are still the image's, so that peers get them again.
    fn take_back(&self, region: &Region) -> io::Result<()> {
        self.device.drop_cache()?;
        let inside = |chunk: &ChunkIndex| {
            let end = chunk.offset() + u64::from(self.manifest.raw_len(*chunk));
            chunk.offset() < region.bytes.end && end > region.bytes.start && !self.held.has(*chunk)
        };
        let chunks: Vec<ChunkIndex> = self.manifest.iter().map(|(index, _)| index).filter(inside).collect();
        let found = scan(&*self.device, &self.manifest, &chunks, &CancellationToken::new(), &|_| {});
        self.held.remember(&found.same);
        Ok(())
    }
}
