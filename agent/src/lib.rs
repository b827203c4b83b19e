//! The machine's side. A room uses only rooms above it. Of these the loader is the first four and nothing else, and is
//! built without the rest (`--no-default-features`); the agent is all of them.

// Step 3, `inspect`: what this machine is made of.
pub mod inspect;

// Reports, verdicts, bundles, manifests: the server over HTTP.
pub mod fetch;

// Step events on their way to the server's log.
pub mod outbox;

// PID 1: mounts, console, drivers, network, the loader's loop, and the hand-over from loader to agent.
pub mod boot;

// Steps 7 to 9 and 13: chunks from the server and from peers.
#[cfg(feature = "swarm")]
pub mod swarm;

// Steps 9 to 12 as the disk sees them: find it, write it, read it back, seal it.
#[cfg(feature = "swarm")]
pub mod disk;

// The plan's steps, one file each, and the runner that walks them.
#[cfg(feature = "swarm")]
pub mod steps;
