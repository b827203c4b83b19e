//! Running the server: bind, wire, start, stop, a file for each of the first three. Touches every shell below, and the
//! state folder.
//!
//! Signals are heard from the first instant, also while the server begins.
//!
//! Stopping, in this order, with ten seconds in all: the doors close (DHCP, TFTP, HTTP, the admin's socket,
//! each letting its last answers go out), the swarm ends, the fleet writes down what it was told. A second
//! signal leaves at once; nothing is lost by that but the politeness, as after a power failure.

// First, everything is opened and bound.
mod bind;

// Then all of it is given its ends of each other.
mod wire;

// Then it runs.
mod start;

// Which tasks run, and what becomes of the others when one ends.
mod supervisor;

// The signals to stop.
mod signals;

// The state folder, and the server's identity in it.
mod home;

// What is done off the async threads while the server begins.
mod aside;

// The programs that machines run.
mod programs;

// What machines are given: images, kits, bundles.
mod stores;

// How many files may be open, and who may use them.
mod files;

// The machine that the server runs on.
mod own;

// Leases across a restart.
mod leases;

// What the swarm tells, in the words of the log.
mod facts;

// What the server says of itself.
mod status;

// What became of the interface.
mod network;

use std::time::Duration;

use self::programs::Programs;
use self::signals::StopSignals;
pub use self::stores::Stores;
use self::supervisor::{Ends, Supervisor};
use crate::config::Config;
use crate::fault::Fault;

/// How long the whole of stopping may take.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the server until it is told to stop. That it is told while it begins is no failure: what was begun is let go.
///
/// # Errors
/// When something cannot be bound, or a task ends early.
pub async fn run(config: Config) -> Result<(), Fault> {
    log_to_stderr(&config)?;
    serve(config, Programs::beside_us).await
}

async fn serve(config: Config, programs: impl FnOnce() -> Result<Programs, Fault>) -> Result<(), Fault> {
    let mut signals = StopSignals::listen()?;
    let (mut supervisor, ends) = (Supervisor::new(), Ends::default());
    let begun = tokio::select! {
        begun = begin(config, programs, &mut supervisor, &ends) => Some(begun),
        () = signals.next() => None,
    };
    let Some(stores) = begun.transpose()? else {
        tracing::info!("told to stop before it had begun");
        return Ok(());
    };
    let ended = supervisor.watch(signals.asked()).await;
    let stopped = tokio::time::timeout(GRACE, stop(&stores, &mut supervisor, &ends)).await;
    ended?;
    stopped.unwrap_or_else(|_| {
        tracing::warn!("not everything ended in time");
        Ok(())
    })
}

async fn begin(
    config: Config,
    programs: impl FnOnce() -> Result<Programs, Fault>,
    supervisor: &mut Supervisor,
    ends: &Ends,
) -> Result<Stores, Fault> {
    let bound = bind::bind(config, programs).await?;
    let wired = wire::wire(bound, ends.outer.clone()).await?;
    start::start(wired, supervisor, ends).await
}

/// Stops what runs, in the order of `ends`.
async fn stop(stores: &Stores, supervisor: &mut Supervisor, ends: &Ends) -> Result<(), Fault> {
    stores.stop();
    ends.outer.cancel();
    supervisor.listeners_closed().await;
    ends.inner.cancel();
    supervisor.workers_ended().await;
    ends.last.cancel();
    supervisor.last_ended().await
}

fn log_to_stderr(config: &Config) -> Result<(), Fault> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log).map_err(|error| {
        Fault::usage(format!("`{}` is no log filter", config.log))
            .because(&error)
            .hint("write info, debug, or server::dhcp4=debug")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if config.log_json { log.json().try_init() } else { log.with_ansi(false).try_init() };
    // Only a second server in one process finds a log set up already, and there is none.
    drop(set);
    Ok(())
}

#[cfg(test)]
mod tests;
