//! Step `linger`: serves peers until the server releases this machine. Touches the swarm alone. The disk is sealed:
//! trouble with the swarm from here on ends the step, and never fails the job.

use std::time::Duration;

use tokio::time::Instant;

use super::error::StepError;
use super::machine::{LOOK, Machine};
use super::run::StepReporter;

/// The timeout without a release, for a server that is gone for good: a machine from which nobody has pulled for this
/// long goes on to its OS.
const IDLE_MAX: Duration = Duration::from_secs(15 * 60);

pub(super) async fn run(machine: &mut Machine, reporter: &StepReporter) -> Result<String, StepError> {
    let Some(membership) = &machine.membership else { return Ok("not in the swarm any more".to_owned()) };
    let client_sources = machine.counted();
    let mut heard = membership.heard.clone();
    let mut busy = (client_sources.uploaded, Instant::now());
    loop {
        let now = heard.borrow_and_update().clone();
        let uploaded = machine.counted().uploaded;
        if now.released {
            return Ok(served(uploaded));
        }
        machine.check_cancelled()?;
        if let Some(cause) = now.broken.or(now.cancelled) {
            reporter.note(format!("leaving the swarm: {cause}"));
            return Ok(served(uploaded));
        }
        if uploaded > busy.0 {
            busy = (uploaded, Instant::now());
            reporter.progress(uploaded, uploaded, Some(machine.counted()));
        }
        if busy.1.elapsed() > IDLE_MAX {
            reporter.note("nobody has asked for a chunk for a long time, and no release came: going on");
            return Ok(served(uploaded));
        }
        let cancel = machine.context.cancel.clone();
        tokio::select! {
            () = cancel.cancelled() => {}
            changed = heard.changed() => if changed.is_err() { tokio::time::sleep(LOOK).await },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn served(uploaded: u64) -> String {
    format!("{} MiB sent to peers", uploaded >> 20)
}
