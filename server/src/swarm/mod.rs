//! Steps 7 to 13 on the server: which agents are in the swarm, which chunks the server sends to each, and which are
//! still needed. The server is the tracker and the first seed; everything else is sent between the agents.

// The interface to the rest of the server.
mod handle;

// Which chunk the server leases to which agent.
pub mod inject;

// Which agents may leave.
pub mod release;

// One image's agents: gate, neighbours, injection, release.
pub mod image_swarm;

// Serves leased chunks on pull streams.
mod seeder;

// One agent's control stream.
mod control;

// Its bytes, counted.
mod counted;

// Repairs chunks that cannot be read.
mod mend;

// The addresses that an agent's peers are told, and whom it serves boot files.
mod reachable;

// The task that runs the server's libp2p node.
mod node;

pub use handle::{
    Admission, ChunkSource, Gather, MachinePart, Part, Party, Stopped, SwarmError, SwarmFact, SwarmHandle,
};
pub use node::{Bound, bind};
pub use reachable::SiteNet;

#[cfg(test)]
mod tests;
