//! The programs of the machine. A module uses only modules above it. The loader is the first four modules and nothing
//! else, and is built without the rest (`--no-default-features`); the agent is all of them.

// Step 3, `inspect`: the hardware report.
pub mod inspect;

// The HTTP client of the server: reports, verdicts, bundles, manifests, events.
pub mod fetch;

// Delivery of step events to the server's log.
pub mod outbox;

// PID 1: mounts, console, drivers, network, the loader's loop, and the hand-over from loader to agent.
pub mod boot;

// Boot files that this machine gives out to others of its site.
#[cfg(feature = "swarm")]
pub mod boot_files;

// Steps 7 to 9 and 13: chunks from the server and from peers.
#[cfg(feature = "swarm")]
pub mod swarm;

// Steps 9 to 12 on the disk: choose it, write it, read it back, seal it.
#[cfg(feature = "swarm")]
pub mod disk;

// Step 11: an admin's scripts in the new root.
#[cfg(feature = "swarm")]
pub mod hooks;

// The plan's steps, one file each, and the runner.
#[cfg(feature = "swarm")]
pub mod steps;
