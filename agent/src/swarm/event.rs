//! Core: the swarm's events, as the steps receive them. Touches `common`'s messages.

use std::time::Duration;

use common::chunk::ChunkIndex;
use common::wire::swarm::Personality;

/// A change in the swarm that a step waits for or logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwarmEvent {
    /// The server's welcome, with what to personalise; only the first of a run is told.
    Welcome(Option<Box<Personality>>),
    /// The gate is closed; repeated whenever more machines have arrived.
    Gather {
        /// Machines that have arrived.
        arrived: u32,
        /// Machines that are waited for.
        wanted: u32,
        /// Seconds until it opens anyway.
        seconds: u64,
    },
    /// The gate is open and chunks are being fetched; once per run.
    Start,
    /// Every chunk that has to be fetched is verified, or was held before; once per run.
    Complete,
    /// A chunk failed its hash and was thrown away.
    Corrupt {
        /// The sender, as an admin calls it: a machine's name, or "the server".
        from: String,
        /// The chunk's place in the manifest, as the sender gave it.
        chunk: ChunkIndex,
        /// What is wrong with it, as a sentence.
        cause: String,
    },
    /// A line for the log: a neighbour that cannot be reached, the server gone or back.
    Note(String),
    /// How often to report progress from now on.
    Pace(Duration),
    /// This agent need not serve peers any longer: the server says so, or the server and the pullers are gone.
    Release,
    /// The job is cancelled: stop without sealing.
    Cancel(String),
    /// The swarm cannot go on, and why: the server says so, its chunks or the image fail their hash, or neither the
    /// server nor a peer sent anything for ten minutes.
    Broken(String),
}
