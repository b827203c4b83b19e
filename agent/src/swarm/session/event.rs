//! Core: what a session hears, and what is to be done about it. Touches the wire's words.

use std::time::Duration;

use libp2p::Multiaddr;

use common::chunk::{ChunkIndex, ChunkSet};
use common::swarm::behaviour::Protocol;
use common::trust::PublicKey;
use common::wire::swarm::{ToAgent, ToServer};

use super::links::Dial;
use crate::swarm::event::SwarmEvent;
use crate::swarm::verify::NotTheChunk;

/// Verified chunks that are not written yet, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Kept, and not handed to whoever writes.
    pub unhanded: usize,
    /// Handed over, and not taken in.
    pub queued: usize,
}

/// What the machine says of itself at a tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes that went to peers since the session began.
    pub uploaded: u64,
    /// Whether a chunk is being sent to a peer.
    pub sending: bool,
    /// Processor time that the process has used so far.
    pub cpu: Duration,
}

/// What a neighbour, or the server as a seed, says on the stream of a pull connection.
#[derive(Debug)]
pub enum Pulled {
    /// It holds these; its first word.
    Holding(ChunkSet),
    /// It holds these as well.
    Have(Vec<ChunkIndex>),
    /// Bytes came, or the word that it lives.
    Moved,
    /// A chunk is here, not checked yet.
    Arrived {
        /// Which it is said to be.
        chunk: ChunkIndex,
        /// Its length on the wire.
        bytes: u64,
    },
    /// It will not send this chunk.
    Unavailable(ChunkIndex),
    /// The stream has ended.
    Ended {
        /// Why, in words.
        cause: String,
        /// Whether the other end broke the protocol.
        broken: bool,
    },
}

/// What a session hears.
#[derive(Debug)]
pub enum Event {
    /// The stream of a dial is open.
    Opened(Dial),
    /// The connection of a dial has ended, or never came to be.
    Failed {
        /// Which dial.
        dial: Dial,
        /// Why, in words.
        cause: String,
    },
    /// A word on a pull stream.
    Pulled {
        /// Whose.
        from: PublicKey,
        /// On which dial's stream: an older one's words count no more.
        dial: Dial,
        /// What it says.
        word: Pulled,
    },
    /// A word of the server on a control stream.
    Server {
        /// On which dial's stream: an older one's words count no more.
        dial: Dial,
        /// What it says.
        word: ToAgent,
    },
    /// An [`Effect::Ask`] that its stream did not take.
    NotAsked(Dial),
    /// News for the server that its stream did not take.
    NotSaid(Vec<ChunkIndex>),
    /// A chunk of [`Effect::Check`] is what it was sent as.
    Verified {
        /// Who sent it.
        from: PublicKey,
        /// Which it is.
        chunk: ChunkIndex,
        /// Its length on the wire.
        bytes: u64,
    },
    /// A chunk of [`Effect::Check`] is not.
    Wrong {
        /// Who sent it.
        from: PublicKey,
        /// What it was sent as.
        chunk: ChunkIndex,
        /// What is wrong with it.
        wrong: NotTheChunk,
    },
    /// The check of a chunk ended without a result.
    Unchecked,
    /// The disk holds these: written, or found there.
    OnDisk(Vec<ChunkIndex>),
    /// How much is not written yet, whenever that differs from what the session knows.
    Backlog(Backlog),
    /// The disk is sealed: this agent only serves now.
    Sealed,
    /// A peer that pulled from here broke the protocol.
    BadPuller {
        /// Which peer.
        key: PublicKey,
        /// How, in words.
        cause: String,
    },
    /// Nobody can connect to this machine any more.
    Deaf {
        /// Why, in words.
        cause: String,
    },
    /// Time has passed; every [`TICK`](super::TICK).
    Tick(Load),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Connect, and open one stream.
    Dial {
        /// The number by which it is spoken of.
        dial: Dial,
        /// To whom.
        to: PublicKey,
        /// What the stream is for.
        protocol: Protocol,
        /// Where it listens; never empty.
        addresses: Vec<Multiaddr>,
    },
    /// Let go of the stream, and close the connection.
    Close(Dial),
    /// Ask for a chunk on a pull stream.
    Ask {
        /// On which.
        dial: Dial,
        /// What for.
        chunk: ChunkIndex,
    },
    /// Say on a pull stream that a chunk is not wanted any more.
    Cancel {
        /// On which.
        dial: Dial,
        /// Which chunk.
        chunk: ChunkIndex,
    },
    /// Say something to the server on a control stream. Only news that cannot be said are heard of again.
    Say {
        /// On which.
        dial: Dial,
        /// The word.
        word: ToServer,
    },
    /// Let these connect, and nobody else.
    Allow(Vec<PublicKey>),
    /// Send so many chunks to peers at once, from now on.
    Slots(usize),
    /// Check the chunk that has arrived.
    Check {
        /// Who sent it.
        from: PublicKey,
        /// What it was sent as.
        chunk: ChunkIndex,
    },
    /// Offer the chunk that was verified to peers, and hand it over to be written.
    Keep(ChunkIndex),
    /// Offer these to peers: the disk can give them.
    Offer(Vec<ChunkIndex>),
    /// Everything was handed over: there will be no more chunks to write.
    EndChunks,
    /// Tell the steps, or the log.
    Tell(SwarmEvent),
}
