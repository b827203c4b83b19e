//! Core: the events that the injection takes and the effects that it returns. Touches `common`.

use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::trust::PublicKey;

/// An event for the injection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An agent may fetch from now on. Comes again after a reconnection, with what it holds by then.
    Joined {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
        /// Its site: leases are counted for each site.
        site: String,
        /// The chunks that it holds.
        held: ChunkSet,
        /// The chunks that it can take as deltas, which are a fraction of their ordinary form.
        deltas: ChunkSet,
        /// Whether it is a relay, which takes the first copies of its site.
        is_relay: bool,
    },
    /// Its control stream has ended.
    Left {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
    },
    /// The agent has announced chunks that it holds.
    Have {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
        /// Those that it had not announced before.
        chunks: Vec<ChunkIndex>,
    },
    /// The server has sent bytes of chunks to the agent.
    Sent {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
        /// Bytes since the last such event.
        bytes: u64,
    },
    /// The server could not read a chunk that is leased to the agent: it is leased to nobody until it is mended.
    Failed {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
    /// The server can read this chunk again.
    Mended(ChunkIndex),
    /// The agent is no member any more, and its reports of corrupt chunks no longer count.
    Forgotten {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
    },
    /// The agent's report of its own transfers since the last such report.
    Speed {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
        /// Bytes that it sent to peers.
        sent: u64,
        /// How long it was sending in that time.
        sending: Duration,
        /// Bytes that it received from peers.
        from_peers: u64,
    },
    /// An agent got a chunk with a wrong hash from a neighbour.
    Corrupt {
        /// The agent that reports it.
        by: PublicKey,
        /// The neighbour that sent the chunk.
        from: PublicKey,
    },
    /// Time has passed: comes several times a second.
    Tick,
}

/// An effect that the image's swarm carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Lease these chunks to the agent: serve them to it, and tell it.
    Lease {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
        /// The chunks, by their places in the manifest.
        chunks: Vec<ChunkIndex>,
    },
    /// End the agent's lease of these chunks, and tell it.
    Revoke {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
        /// The chunks, by their places in the manifest.
        chunks: Vec<ChunkIndex>,
    },
    /// The agent's uplink is slow, or no longer is: its peers are to ask it only for chunks that no other holds, or for
    /// any again.
    Spare {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
        /// Whether it is spared from now on.
        spared: bool,
    },
    /// The agent gets nothing from its peers although they have what it lacks; said once until it gets something again.
    CutOff {
        /// The agent, by the key that its machine made at this boot.
        agent: PublicKey,
    },
}
