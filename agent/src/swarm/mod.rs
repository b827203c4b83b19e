//! Steps 7 to 9 and 13 as a machine lives them: in the swarm with the server and with peers, chunks come,
//! are verified and go on to the disk, and are passed on to whoever asks.

// What the steps hear from the swarm, and how they speak to it.
mod client;
mod event;

// What can be passed on to peers.
mod store;

// One neighbour's pull stream, and the control stream.
mod control;
mod pull;

// How many chunks are on their way here, which neighbours hear.
mod coming;

// Every decision about the server and the neighbours.
pub mod session;

// The task that lives in the swarm and carries those out.
mod node;

// Chunks that came, checked: the only way to a verified chunk.
pub mod verify;

pub use client::{HeldChunks, SwarmClient, SwarmConfig, SwarmEnds, SwarmError};
pub use coming::GATHERED;
pub use event::SwarmEvent;
pub use pull::MOVED;
pub use verify::VerifiedChunk;
