//! Core: the events of a session and its effects. Touches `common`'s messages.

use std::time::Duration;

use libp2p::Multiaddr;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::Hash;
use common::swarm::behaviour::Protocol;
use common::trust::PublicKey;
use common::wire::swarm::{ToAgent, ToServer};

use super::links::Dial;
use crate::boot_files::Hold;
use crate::swarm::event::SwarmEvent;
use crate::swarm::verify::NotTheChunk;

/// Counts of verified chunks that are not written yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Kept by the node, because the channel to the writer is full.
    pub unhanded: usize,
    /// In the channel to the writer.
    pub queued: usize,
}

/// What the node measures of the machine at each tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes sent to peers since the session began.
    pub uploaded: u64,
    /// Whether a chunk is being sent to a peer at this moment.
    pub sending: bool,
    /// Processor time that the process has used so far.
    pub cpu: Duration,
}

/// A message of a holder, a neighbour or the server, on a pull stream.
#[derive(Debug)]
pub enum Pulled {
    /// The chunks that it holds; its first message.
    Holding(ChunkSet),
    /// More chunks that it holds.
    Have(Vec<ChunkIndex>),
    /// Bytes of a chunk came, or the message that it is alive.
    Moved,
    /// A chunk is here whole, not checked yet.
    Arrived {
        /// Its place in the manifest, as the sender gave it.
        chunk: ChunkIndex,
        /// Length of its wire form or of its raw bytes, whichever was sent.
        bytes: u64,
    },
    /// It will not send this chunk.
    Unavailable(ChunkIndex),
    /// The stream has ended.
    Ended {
        /// The cause, for the log.
        cause: String,
        /// Whether the other end broke the protocol.
        broken: bool,
    },
}

/// An event for a session.
#[derive(Debug)]
pub enum Event {
    /// The stream of a dial is open.
    Opened(Dial),
    /// The connection of a dial has ended, or the dial failed.
    Failed {
        /// Ignored unless it is its target's present dial.
        dial: Dial,
        /// The cause, for the log.
        cause: String,
    },
    /// A message on a pull stream.
    Pulled {
        /// The holder: a neighbour, or the server.
        from: PublicKey,
        /// The dial of the stream; messages of an older dial are ignored.
        dial: Dial,
        /// The message.
        word: Pulled,
    },
    /// A message of the server on a control stream.
    Server {
        /// The dial of the stream; messages of an older dial are ignored.
        dial: Dial,
        /// The message.
        word: ToAgent,
    },
    /// The stream's queue was full for this [`Effect::Ask`].
    NotAsked(Dial),
    /// The control stream's queue was full for these chunks, which the server is to be told of.
    NotSaid(Vec<ChunkIndex>),
    /// A chunk of [`Effect::Check`] has the right hash.
    Verified {
        /// Its sender: a neighbour, or the server.
        from: PublicKey,
        /// Its place in the manifest.
        chunk: ChunkIndex,
        /// Length of what was sent.
        bytes: u64,
    },
    /// A chunk of [`Effect::Check`] is wrong.
    Wrong {
        /// Its sender; after two wrong chunks nothing more is requested from it, unless it is the server.
        from: PublicKey,
        /// Its place in the manifest, as the sender gave it.
        chunk: ChunkIndex,
        /// Which check failed.
        wrong: NotTheChunk,
    },
    /// The task that checked a chunk panicked or was cancelled.
    Unchecked,
    /// These chunks are on the disk: written, or found there.
    OnDisk(Vec<ChunkIndex>),
    /// Chunks that are not written yet, whenever the count differs from what the session knows.
    Backlog(Backlog),
    /// The disk is sealed: this agent only serves now.
    Sealed,
    /// A peer that pulled from this agent broke the protocol.
    BadPuller {
        /// The peer, which is blamed unless it is the server.
        key: PublicKey,
        /// How it broke the protocol, for the log.
        cause: String,
    },
    /// The listener is closed: no peer can connect to this machine any more.
    Deaf {
        /// The cause, for the log.
        cause: String,
    },
    /// The small files that this machine gives out: at the beginning, and after each change.
    Holding {
        /// The TCP port at which it does.
        port: u16,
        /// Their hashes.
        objects: Vec<Hash>,
    },
    /// Time has passed; every [`TICK`](super::TICK).
    Tick(Load),
}

/// An effect that the node is to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Connect, and open one stream.
    Dial {
        /// The number of the new connection, in later events and effects.
        dial: Dial,
        /// The key that the other end has to have.
        to: PublicKey,
        /// What the stream is for.
        protocol: Protocol,
        /// Its listen addresses, as multiaddrs; never empty.
        addresses: Vec<Multiaddr>,
    },
    /// Drop the stream, and close the connection.
    Close(Dial),
    /// Request a chunk on a pull stream.
    Ask {
        /// The dial of the holder's stream.
        dial: Dial,
        /// Its place in the manifest.
        chunk: ChunkIndex,
    },
    /// Tell a holder that a chunk is not wanted any more.
    Cancel {
        /// The dial of the holder's stream.
        dial: Dial,
        /// Requested before on the same stream.
        chunk: ChunkIndex,
    },
    /// Send a message to the server. If the queue is full only `Have` comes back, as [`Event::NotSaid`].
    Say {
        /// The dial of the open control stream.
        dial: Dial,
        /// The first message on a stream is the hello.
        word: ToServer,
    },
    /// Admit connections of these keys, and of no others but the server.
    Allow(Vec<PublicKey>),
    /// The most chunks to send to peers at once, from now on.
    Slots(usize),
    /// Check the chunk of the event in hand, [`Pulled::Arrived`].
    Check {
        /// Its sender, which is named if the check fails.
        from: PublicKey,
        /// Its place in the manifest, as the sender gave it.
        chunk: ChunkIndex,
    },
    /// Serve the chunk of [`Event::Verified`] to peers, and hand it over to be written.
    Keep(ChunkIndex),
    /// Serve these to peers: the disk can give them.
    Offer(Vec<ChunkIndex>),
    /// Every chunk was handed over: close the channel to the writer.
    EndChunks,
    /// Fetch these small files, and give them out.
    Hold(Hold),
    /// Send an event to the steps; notes are for the log.
    Tell(SwarmEvent),
}
