//! Core: what the injection hears, and what is to be done about it. Touches `common`.

use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::trust::PublicKey;

/// What the injection hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An agent may fetch from now on. Again after a cut line, with what it holds by then.
    Joined {
        /// The machine, by the key of its boot.
        agent: PublicKey,
        /// The site that it is at.
        site: String,
        /// What it has.
        held: ChunkSet,
    },
    /// Its control stream has ended.
    Left {
        /// The machine, by the key of its boot.
        agent: PublicKey,
    },
    /// It holds these as well.
    Have {
        /// The machine, by the key of its boot.
        agent: PublicKey,
        /// The chunks that it holds now besides those it told of before.
        chunks: Vec<ChunkIndex>,
    },
    /// So many bytes went from the server to it.
    Sent {
        /// The machine, by the key of its boot.
        agent: PublicKey,
        /// How many.
        bytes: u64,
    },
    /// The server could not send it a chunk that it leased: nobody is leased it until it is mended.
    Failed {
        /// The machine, by the key of its boot.
        agent: PublicKey,
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
    /// The server can read this chunk again.
    Mended(ChunkIndex),
    /// It is let in no more, and what it said of others is forgotten.
    Forgotten {
        /// The machine, by the key of its boot.
        agent: PublicKey,
    },
    /// What it says of its line.
    Speed {
        /// The machine, by the key of its boot.
        agent: PublicKey,
        /// Bytes sent to peers.
        sent: u64,
        /// The time it took to send them.
        sending: Duration,
        /// Bytes it got from peers.
        from_peers: u64,
    },
    /// It got a wrong chunk from a neighbour.
    Corrupt {
        /// Who says so.
        by: PublicKey,
        /// Whose it was.
        from: PublicKey,
    },
    /// Time has passed: to be told several times a second.
    Tick,
}

/// What the node is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Let `agent` pull these, and tell it.
    Lease {
        /// Whom.
        agent: PublicKey,
        /// The chunks, by their places in the manifest.
        chunks: Vec<ChunkIndex>,
    },
    /// Let it do so no more, and tell it.
    Revoke {
        /// Whom.
        agent: PublicKey,
        /// The chunks, by their places in the manifest.
        chunks: Vec<ChunkIndex>,
    },
    /// It sends slowly, or no longer: its peers are to ask it only for what no other holds, or for anything again.
    Spare {
        /// The machine, by the key of its boot.
        agent: PublicKey,
        /// Whether.
        spared: bool,
    },
    /// It cannot get anything from its peers; tell the log, once.
    CutOff {
        /// The machine, by the key of its boot.
        agent: PublicKey,
    },
}
