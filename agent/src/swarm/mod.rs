//! Steps 7 to 9 and 13 on the machine: it joins the swarm of its image, fetches chunks from the server and from
//! peers, verifies them, hands them over to be written, and serves them to peers.

// The interface for the steps: client, configuration and events.
mod client;
mod event;

// What the machine holds of an earlier build of its image.
mod deltas;

// The chunks that can be served to peers.
mod store;

// The tasks of the streams: control to the server, one pull stream to each neighbour.
mod control;
mod pull;

// The count of arriving chunks, which neighbours are told.
mod coming;

// Core: every decision about the server and the neighbours.
pub mod session;

// What the process has used of its processors.
mod processor;

// The task that owns the libp2p swarm and carries those decisions out.
mod node;

// The check of a chunk: the only way to a `VerifiedChunk`.
pub mod verify;

pub use client::{HeldChunks, SwarmClient, SwarmConfig, SwarmEnds, SwarmError};
pub use coming::GATHERED;
pub use deltas::{DeltaBases, OverPrefix};
pub use event::SwarmEvent;
pub use pull::MOVED;
pub use verify::VerifiedChunk;
