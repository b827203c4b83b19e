//! A branch's own server, the process of `swarmboot relay run`: answers the machines of its site as the server would,
//! keeps the files and images that they take, and passes everything else on. It has no records and no keys but its own;
//! whoever takes something from it checks that by hash or signature. Touches its state folder, its interface, and the
//! server over HTTP and the swarm.
//!
//! What it sees of machines over DHCP and TFTP is not told to the server: the script that each asks for is passed on, and
//! is what the server notes.

// The flags, and the configuration file.
mod config;

// The key, the enrolment and the last state, over a restart.
mod home;

// Everything is opened and bound, then started.
mod start;

// The HTTP client of the server.
mod upstream;

// The first start: the invitation is used.
mod enrol;

// The held request for what is new.
mod sync;

// Core: what the relay knows of its site.
mod site;

// The header of requests that are passed on.
mod via;

// Files by hash: kernels, loaders, boot programs, bundles, manifests.
mod cache;

// The boot programs, for DHCP and TFTP.
mod programs;

// Kernel and loaders, before a machine asks for them.
mod ahead;

// What machines fetch and report over HTTP.
mod web;

// The chunks of images, on the disk.
mod chunks;

// The chunks of an earlier build, over which a rebuilt image is taken.
mod bases;

// A relay in the swarm of one image.
mod member;

// Which images it takes part in.
mod seeds;

// DHCP leases over a restart.
mod leases;

// Magic packets.
mod wake;

use std::time::Duration;

pub use self::config::{Config, Flags};
use crate::fault::Fault;
use crate::serve::{Ends, StopSignals, Supervisor, log_to_stderr, notify};

/// How long stopping may take in all.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the relay until it is told to stop, or revoked.
///
/// # Errors
/// When it is not let in, something cannot be bound, it was revoked, or a task ends early.
pub async fn run(config: Config) -> Result<(), Fault> {
    log_to_stderr(&config.log, config.log_json)?;
    let mut signals = StopSignals::listen()?;
    let (mut supervisor, ends) = (Supervisor::new(), Ends::default());
    notify::status("opening the ports, and asking the server");
    let begun = tokio::select! {
        begun = start::start(config, &mut supervisor, &ends) => Some(begun),
        () = signals.next() => None,
    };
    let Some(start::Started { cache, ended }) = begun.transpose()? else {
        tracing::info!("told to stop before it had begun");
        return Ok(());
    };
    notify::ready("serves its site");
    let ended = tokio::select! {
        ended = supervisor.watch(signals.asked()) => ended,
        Ok(fault) = ended => Err(fault),
    };
    notify::stopping();
    let stop = async {
        ends.outer.cancel();
        supervisor.listeners_closed().await;
        ends.inner.cancel();
        supervisor.workers_ended().await;
        cache.close().await;
    };
    if tokio::time::timeout(GRACE, stop).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    ended
}

// A server that notes what it is asked, and a relay of the real parts.
#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;
