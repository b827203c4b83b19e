//! Running the server: bind, wire, start and stop; each of the first three is a file. Touches every module below that
//! runs, and the state folder.
//!
//! Signals are handled from the first instant, also while the server starts.
//!
//! Stopping goes in this order, with ten seconds in all: the listeners close (DHCP, TFTP, HTTP, the admin's socket,
//! each letting its last responses go out), the swarm ends, the fleet writes its last changes. A second signal exits at
//! once; that loses no more than a power failure does.

// First step of starting: everything is opened and bound.
mod bind;

// Second step: what is bound is connected, by handles and channels.
mod wire;

// Third step: every task is started.
mod start;

// Which tasks run, and what becomes of the others when one ends.
mod supervisor;

// SIGTERM and SIGINT.
mod signals;

// The state folder, and the server's identity in it.
mod home;

// The certificate of the API.
mod certificate;

// The names of this host's users.
mod users;

// Blocking work while the server starts.
mod aside;

// The loader and the agent, which machines run.
mod programs;

// The stores that machines fetch from: images, kits, bundles.
mod stores;

// The limit on open files, and how much of it HTTP connections may use.
mod files;

// Marks and disks of the machine that the server runs on.
mod own;

// The stores of records and leases, with their calls counted.
mod measured;

// What monitoring looks at.
mod watch;

// DHCP leases across a restart.
mod leases;

// Events of the swarm, written into the log.
mod facts;

// What lines carried while a deployment ran, written into the log.
mod carried;

// The server's own status and warnings.
mod status;

// Warnings about the interface and about other DHCP servers.
mod network;

// What systemd is told.
pub(crate) mod notify;

use std::time::Duration;

pub(crate) use self::aside::aside;
pub(crate) use self::files::Files;
pub(crate) use self::home::{identity, state_folder};
pub(crate) use self::leases::{keep as keep_leases, load as load_leases};
use self::programs::Programs;
pub(crate) use self::signals::StopSignals;
pub use self::stores::Stores;
pub(crate) use self::supervisor::{Ends, Supervisor, done};
use crate::config::Config;
use crate::fault::Fault;

/// How long stopping may take in all.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the server until it is told to stop. Being told to stop while it starts is no error: what was started is
/// dropped.
///
/// # Errors
/// When something cannot be bound, or a task ends early.
pub async fn run(config: Config) -> Result<(), Fault> {
    log_to_stderr(&config.log, config.log_json)?;
    serve(config, Programs::beside_us).await
}

async fn serve(config: Config, programs: impl FnOnce() -> Result<Programs, Fault>) -> Result<(), Fault> {
    let mut signals = StopSignals::listen()?;
    let (mut supervisor, ends) = (Supervisor::new(), Ends::default());
    notify::status("opening the state folder and the ports");
    let serves = format!("serves, {}", status::mode_words(&config));
    let begun = tokio::select! {
        begun = begin(config, programs, &mut supervisor, &ends) => Some(begun),
        () = signals.next() => None,
    };
    let Some(stores) = begun.transpose()? else {
        tracing::info!("told to stop before it had begun");
        return Ok(());
    };
    notify::ready(&serves);
    let ended = supervisor.watch(signals.asked()).await;
    notify::stopping();
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

/// Sends the log, as `filter` lets it through, to standard error.
///
/// # Errors
/// When `filter` is none of tracing's.
pub(crate) fn log_to_stderr(filter: &str, json: bool) -> Result<(), Fault> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| {
        Fault::usage(format!("`{filter}` is no log filter"))
            .because(&error)
            .hint("write info, debug, or server::dhcp4=debug")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if json { log.json().try_init() } else { log.with_ansi(false).try_init() };
    // Setting it fails only when this process has a log already, as in tests.
    drop(set);
    Ok(())
}

#[cfg(test)]
mod tests;
