//! Core: what happens in the swarm, as the steps hear it. Touches the wire's words.

use common::chunk::ChunkIndex;
use common::wire::swarm::Personality;

/// What happens in the swarm that a step wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwarmEvent {
    /// The server knows this agent; once per run, with what to personalise.
    Welcome(Box<Personality>),
    /// The gate is shut.
    Gather {
        /// Machines that have arrived.
        arrived: u32,
        /// Machines that are waited for.
        wanted: u32,
        /// Seconds until it opens anyway.
        seconds: u64,
    },
    /// The gate is open, and chunks are being fetched; once per run.
    Start,
    /// Every chunk that has to be fetched has been verified (or was held); once per run.
    Complete,
    /// A chunk failed its hash and was thrown away.
    Corrupt {
        /// The sender's name.
        from: String,
        /// Which chunk.
        chunk: ChunkIndex,
        /// What is wrong with it.
        cause: String,
    },
    /// Something worth a line in the log: a neighbour that cannot be reached, the server gone or back.
    Note(String),
    /// Nobody needs this agent as a seed any more.
    Release,
    /// The job is cancelled: stop without sealing.
    Cancel(String),
    /// The swarm cannot go on: the key was not let in for long, or the server's own chunks fail their hash.
    Broken(String),
}
