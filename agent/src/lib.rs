//! The machine's side. The modules stand in the order in which a machine lives them: the loader uses the
//! first few, the agent all of them.

// PID 1: mounts, console, drivers, network, and the hand-over from loader to agent.
pub mod boot;

// Step 3, `inspect`: what this machine is made of.
pub mod inspect;

// Reports, verdicts, bundles, manifests: the server over HTTP.
pub mod fetch;

// Step events on their way to the server's log.
pub mod outbox;

// Steps 7 to 9 and 13: chunks from the server and from peers.
pub mod swarm;

// Steps 9 to 12 as the disk sees them: find it, write it, read it back, seal it.
pub mod disk;

// The plan's steps, one file each, and the runner that walks them.
pub mod steps;
