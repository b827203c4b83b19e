//! Steps 7 to 9 and 13 as a machine lives them: in the swarm with the server and with peers, chunks come,
//! are verified and go on to the disk, and are passed on to whoever asks.

// What the steps say to the swarm, and hear from it.
mod client;

// Whom to dial, and when again.
mod links;

// What can be passed on to peers.
mod store;

// One neighbour's pull stream, and the control stream.
mod control;
mod pull;

// How many chunks are on their way here, which neighbours hear.
mod coming;

// What fetching waits for.
mod waits;

// The task that lives in the swarm.
mod node;

// Which chunk from whom, now.
pub mod schedule;

// Chunks that came, checked: the only way to a verified chunk.
pub mod verify;

pub use client::{HeldChunks, SwarmClient, SwarmConfig, SwarmEnds, SwarmError, SwarmEvent};
pub use verify::VerifiedChunk;
