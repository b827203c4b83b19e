//! The swarm's messages. Two kinds of long-lived streams: `control` from each agent to the server, and
//! `pull` from each node to each neighbour that it dialled. Bulk flows one way per connection, from the
//! dialled to the dialler, because yamux 0.14 can freeze for good when both ends push (rust-yamux#227).
//!
//! Framing, the same on both: `u32` big-endian length, then that many bytes of CBOR. After the frame of a
//! [`FromHolder::Chunk`] follow exactly `len` bytes of the chunk, outside CBOR. Touches `chunk`, `id`,
//! `trust`, `user_data`.

use serde::{Deserialize, Serialize};

use super::call_home::SeedMark;
use crate::chunk::{ChunkIndex, ChunkSet};
use crate::id::{ImageId, JobId, Mac};
use crate::trust::PublicKey;
use crate::user_data::UserData;

/// Protocol name of the control stream.
pub const CONTROL_PROTOCOL: &str = "/swarmboot/control/1";
/// Protocol name of the pull stream.
pub const PULL_PROTOCOL: &str = "/swarmboot/pull/1";

/// Chunks that a puller may have asked for and not got yet, per stream: more ends the stream.
pub const PULL_QUEUE_MAX: usize = 64;

/// Another agent of the same image, at the same site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its key; also its name in the swarm.
    pub key: PublicKey,
    /// The name a person knows it by, for log lines.
    pub name: String,
    /// Where it listens, as multiaddrs.
    pub addresses: Vec<String>,
    /// Whether it is to be asked only for what no other holds: it sends much more slowly than others there.
    pub spared: bool,
}

/// What the installed OS is given. Only ever sent over the encrypted control stream: it can hold secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personality {
    /// The machine's name.
    pub hostname: String,
    /// SSH public keys of the OS image's default user.
    pub ssh_keys: Vec<String>,
    /// cloud-init user-data, as the admin gave it.
    pub user_data: Option<UserData>,
    /// What cloud-init takes for "a new instance": one per job and attempt.
    pub instance_id: String,
    /// Where the installed OS calls home once; none when the order does not wait for it.
    pub confirm_url: Option<String>,
    /// The volume serial number of its CIDATA file system.
    pub seed_mark: SeedMark,
    /// The Ethernet address that the machine booted from: the installed OS is told to use the same card.
    pub boot_mac: Option<Mac>,
}

impl std::fmt::Debug for Personality {
    // User-data can hold password hashes and tokens, the URL is the token itself: neither belongs in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Personality").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

/// What a transfer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bottleneck {
    /// Chunks come more slowly than they could be written.
    Net,
    /// Chunks wait for the disk.
    Disk,
    /// The processor is busy checking, decompressing and sending.
    Cpu,
}

/// What an agent tells the server on its control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToServer {
    /// First message: who and what. Sent again on every new stream, so the server may restart.
    Hello {
        /// The job that its plan is of.
        job: JobId,
        /// The image that it takes, and with it the swarm that it joins.
        image: ImageId,
        /// Where it listens, as multiaddrs.
        addresses: Vec<String>,
        /// What it can serve already.
        held: ChunkSet,
        /// Whether it was told to start before: the line was cut, or the server restarted. No gate any more.
        started: bool,
    },
    /// It can serve these now.
    Have {
        /// Chunks that are new.
        chunks: Vec<ChunkIndex>,
    },
    /// Payload bytes since the last report and how long that took: how fast its line is. Sent every
    /// second whatever happened, so it is also the sign of life; the answer is [`ToAgent::Heard`].
    Speed {
        /// Wire bytes sent to peers.
        sent: u64,
        /// The part of the time in which it was sending: `sent` over this is what its uplink can do.
        sending_millis: u64,
        /// Wire bytes received from peers.
        from_peers: u64,
        /// Wire bytes received from the server.
        from_server: u64,
        /// Over this time.
        millis: u64,
        /// What held it up most in that time; none when it fetched nothing.
        bottleneck: Option<Bottleneck>,
    },
    /// A chunk from another agent failed its hash.
    Corrupt {
        /// Whose.
        neighbour: PublicKey,
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
    /// Its disk is sealed: it only serves now.
    Sealed,
}

/// What the server tells an agent on its control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToAgent {
    /// Answer to `Hello`: what to personalise.
    Welcome {
        /// For the installed OS.
        personality: Personality,
    },
    /// The gate is shut: wait for this many more machines, or for this long.
    Gather {
        /// Machines that have arrived.
        arrived: u32,
        /// Machines that are waited for.
        wanted: u32,
        /// Seconds until the gate opens anyway.
        seconds: u64,
    },
    /// The gate is open (at once where there is none): transfer.
    Start,
    /// All nodes of the swarm that this agent may talk to; replaces the list before. Who is not on it and is
    /// not the server is not let in.
    Neighbours {
        /// All of them; empty for an agent that is alone.
        list: Vec<Neighbour>,
        /// Whether this agent is spared itself.
        spared: bool,
    },
    /// These may be pulled from the server, by this agent alone.
    Lease {
        /// Chunks.
        chunks: Vec<ChunkIndex>,
    },
    /// These leases are over; what is in flight may finish.
    Revoke {
        /// Chunks.
        chunks: Vec<ChunkIndex>,
    },
    /// Answer to `Speed`: the server lives.
    Heard,
    /// Nobody needs it as a seed any more.
    Release,
    /// What this agent lacks cannot be had: the server cannot read it, and no machine has it.
    Broken {
        /// What, and what to do.
        reason: String,
    },
    /// The job is cancelled: stop without sealing.
    Cancel {
        /// The reason, in words for the log.
        reason: String,
    },
}

/// What the node that dialled asks of the node it pulls from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromPuller {
    /// First message: which image. The answer is `Holding`.
    Open {
        /// The image whose chunks are asked for on this stream.
        image: ImageId,
    },
    /// Send this chunk. The answer is `Chunk` or `Unavailable`.
    Get {
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
    /// It came from elsewhere, or is to: do not send it, unless its sending has begun. No answer.
    Cancel {
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
    /// So many chunks are on their way to this puller now, from all holders: of those who wait, one with few goes
    /// before one with many. Said only to peers. No answer.
    Coming {
        /// Chunks asked for and not there yet, over all its streams.
        chunks: u32,
    },
}

/// Which form of a chunk is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The wire form of the manifest, checked by its wire hash.
    Wire,
    /// The chunk's raw bytes, read from a disk; checked by its raw hash. Never recompressed: another
    /// zstd would give other bytes.
    Raw,
}

/// What a node answers to the one that pulls from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromHolder {
    /// What it holds of the image.
    Holding {
        /// All of it.
        held: ChunkSet,
    },
    /// It holds these now as well.
    Have {
        /// Chunks that are new.
        chunks: Vec<ChunkIndex>,
    },
    /// A chunk: `len` bytes follow this frame.
    Chunk {
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
        /// Whether they are the wire form or the raw bytes.
        form: Form,
        /// How many bytes follow.
        len: u32,
    },
    /// Alive, but the turn of what was asked has not come: others are being sent to.
    Waiting,
    /// It does not send this chunk: not held, not leased, or busy. Ask elsewhere.
    Unavailable {
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
}
