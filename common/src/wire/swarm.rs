//! The swarm's messages. Two kinds of long-lived streams: `control` from each agent to the server, and
//! `pull` from each node to each neighbour that it dialled. Bulk flows one way per connection, from the
//! dialled to the dialler, because yamux 0.14 can freeze for good when both ends push (rust-yamux#227).
//!
//! Framing, the same on both: `u32` big-endian length, then that many bytes of CBOR. After the frame of a
//! [`FromHolder::Chunk`] follow exactly `len` bytes of the chunk, outside CBOR. Touches `chunk`, `hooks`, `id`, `objects`,
//! `trust`, `user_data`.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::call_home::SeedMark;
use super::objects::Object;
use crate::chunk::{ChunkIndex, ChunkSet};
use crate::hooks::Hooks;
use crate::id::{Hash, ImageId, JobId, Mac};
use crate::trust::PublicKey;
use crate::user_data::UserData;

/// The libp2p protocol name of the control stream.
pub const CONTROL_PROTOCOL: &str = "/swarmboot/control/1";
/// The libp2p protocol name of the pull stream.
pub const PULL_PROTOCOL: &str = "/swarmboot/pull/1";

/// The most chunks requested and not yet sent on one stream; one more breaks the protocol.
pub const PULL_QUEUE_MAX: usize = 64;

/// The most small files that one agent gives out: kernel, loader and bundle of a dozen kinds of machine.
pub const OBJECTS_HELD_MAX: usize = 64;

/// Another agent of the same image and site, as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its boot key, from which its libp2p peer id follows.
    pub key: PublicKey,
    /// The machine's name, for log lines.
    pub name: String,
    /// Where it listens, as multiaddrs.
    pub addresses: Vec<String>,
    /// Whether to request only chunks from it that no other holds: it sends much more slowly than others of its site.
    pub spared: bool,
}

/// What the installed OS is configured with. Sent only over the encrypted control stream: it can hold secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personality {
    /// The machine's name, to become the OS's host name.
    pub hostname: String,
    /// SSH public keys of the OS image's default user.
    pub ssh_keys: Vec<String>,
    /// cloud-init user-data, as the admin gave it; none when there is none.
    pub user_data: Option<UserData>,
    /// cloud-init's instance id, new for each job and attempt, so that it runs again on a disk that ran it before.
    pub instance_id: String,
    /// The URL that the installed OS calls home to, once; none when the order does not wait for that.
    pub confirm_url: Option<String>,
    /// The volume serial number of its CIDATA file system.
    pub seed_mark: SeedMark,
    /// The Ethernet address that the machine booted from: the installed OS is told to use the same card.
    pub boot_mac: Option<Mac>,
    /// The scripts to run in its root; none where the plan has no step `hooks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
}

impl std::fmt::Debug for Personality {
    // User-data can hold password hashes and tokens, the URL is the token itself: neither belongs in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Personality").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

/// What a transfer waits for most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Bottleneck {
    /// The network: chunks come more slowly than they could be written.
    Net,
    /// The disk: chunks wait to be written.
    Disk,
    /// The processor, which is busy checking, decompressing and sending.
    Cpu,
}

/// What a node takes part in a swarm as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Member {
    /// The agent of a machine, whose disk the image is written to.
    Job(JobId),
    /// A site's relay: it holds chunks for good, and nobody waits for it.
    Relay,
}

/// A message of an agent to the server on its control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToServer {
    /// The first message. Sent again on every new stream, so the server may restart.
    Hello {
        /// The job that its plan is of; or that it is a relay.
        member: Member,
        /// The image that it fetches, whose swarm it joins.
        image: ImageId,
        /// Its listen addresses, as multiaddrs.
        addresses: Vec<String>,
        /// The chunks that it holds and can serve.
        held: ChunkSet,
        /// Whether it was told to start before: the connection broke, or the server restarted. It skips the gate.
        started: bool,
        /// The chunks that it can take as deltas, because it holds their bases; of length 0 when there are none.
        deltas: ChunkSet,
    },
    /// It holds more chunks.
    Have {
        /// The chunks that are new since the hello and the last of these.
        chunks: Vec<ChunkIndex>,
    },
    /// A speed report: payload bytes since the last one, and how long that took. Sent every second, or as seldom as
    /// [`ToAgent::Pace`] says, even if nothing moved, so it is also the sign of life; the answer is [`ToAgent::Heard`].
    Speed {
        /// Wire bytes sent to peers.
        sent: u64,
        /// The part of the time in which it was sending: `sent` over this is what its uplink can do.
        sending_millis: u64,
        /// Wire bytes received from peers.
        from_peers: u64,
        /// Wire bytes received from the server.
        from_server: u64,
        /// Length of the period that is reported.
        millis: u64,
        /// What fetching waited for most in that time; none when it fetched nothing.
        bottleneck: Option<Bottleneck>,
    },
    /// A chunk from another agent failed its hash.
    Corrupt {
        /// The key of the agent that sent it.
        neighbour: PublicKey,
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
    /// Its disk is sealed: from now on it only serves.
    Sealed,
    /// It gives out small files over HTTP: after each hello, and after each change.
    Holding {
        /// The TCP port, at the address from which this connection comes.
        port: u16,
        /// All files that it gives out, [`OBJECTS_HELD_MAX`] at the most.
        objects: Vec<Hash>,
    },
}

/// A message of the server to an agent on its control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToAgent {
    /// The answer to `Hello`: the server knows the agent's job.
    Welcome {
        /// What the installed OS is configured with; none for a relay.
        personality: Option<Personality>,
    },
    /// The gate is closed: wait until the machines have arrived, or for this long. Sent again as the counts change.
    Gather {
        /// Machines that have arrived.
        arrived: u32,
        /// Machines that are waited for.
        wanted: u32,
        /// Seconds until the gate opens anyway.
        seconds: u64,
    },
    /// The gate is open, or there is none: fetch.
    Start,
    /// The nodes of the swarm that this agent may connect to; replaces the list before. Connections of others, except
    /// the server, are refused.
    Neighbours {
        /// All of them; empty for an agent that is alone.
        list: Vec<Neighbour>,
        /// Whether this agent is spared itself: it then sends one chunk at a time.
        spared: bool,
    },
    /// Leases: these chunks may be pulled from the server, by this agent alone of its site.
    Lease {
        /// The chunks that are leased in addition to earlier ones.
        chunks: Vec<ChunkIndex>,
    },
    /// These leases have ended; a chunk that is on its way may still arrive.
    Revoke {
        /// The chunks whose leases have ended.
        chunks: Vec<ChunkIndex>,
    },
    /// The answer to `Speed`: the server is alive.
    Heard,
    /// From now on report progress and speed this often: the reports of all machines share a thin line with the
    /// chunks. A second where the agent was told nothing.
    Pace {
        /// Milliseconds between two reports.
        millis: u32,
    },
    /// The agent need not serve peers any longer.
    Release,
    /// Chunks that this agent lacks cannot be had: the server cannot read them, and no machine holds them.
    Broken {
        /// Which chunks, and what to do, for the log.
        reason: String,
    },
    /// Fetch these small files, check them by their hash, and give them out to machines of the site. The answer is
    /// `Holding`, once they are here.
    Hold {
        /// The files.
        objects: Vec<Object>,
        /// Neighbours that have them, to be tried before the server.
        peers: Vec<SocketAddr>,
        /// The site's subnets, address and prefix length: only machines at these addresses, and of the agent's own
        /// network, are served.
        nets: Vec<(Ipv4Addr, u8)>,
    },
    /// The job is cancelled: stop without sealing.
    Cancel {
        /// The reason, as text for the log.
        reason: String,
    },
}

/// A message of the puller, the node that dialled, to the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromPuller {
    /// The first message: which image. The answer is `Holding`.
    Open {
        /// The image whose chunks are asked for on this stream.
        image: ImageId,
    },
    /// Send this chunk. The answer is `Chunk` or `Unavailable`.
    Get {
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
    /// Send this chunk as this delta if it is at hand, else as after `Get`.
    GetDelta {
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
        /// The hash of the delta's frame, whose bases the puller holds.
        delta: Hash,
    },
    /// The chunk is not wanted any more: do not send it, unless sending has begun. There is no answer.
    Cancel {
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
    /// How many chunks are arriving at this puller now, from all holders: of those that wait for a slot, one with few
    /// goes before one with many. Sent only to peers, not to the server. There is no answer.
    Coming {
        /// Chunks whose bytes have begun to arrive and are not complete, over all its streams.
        chunks: u32,
    },
}

/// The form in which a chunk's bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The wire form of the manifest, raw or zstd; checked by its wire hash.
    Wire,
    /// The chunk's raw bytes, read from a disk; checked by its raw hash. Never recompressed: another
    /// zstd would give other bytes.
    Raw,
    /// The frame of the delta that was asked for; checked by its hash in the image's table of deltas.
    Delta,
}

/// A message of the holder, the node that was dialled, to the puller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromHolder {
    /// The first message: the chunks of the image that it holds.
    Holding {
        /// All chunks that the puller may know of.
        held: ChunkSet,
    },
    /// It holds more chunks.
    Have {
        /// The chunks that are new since `Holding` and the last of these.
        chunks: Vec<ChunkIndex>,
    },
    /// A chunk: its `len` bytes follow this frame, outside CBOR.
    Chunk {
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
        /// Whether the bytes are the wire form or raw.
        form: Form,
        /// Length of the bytes that follow.
        len: u32,
    },
    /// The holder is alive, but sends to other pullers first.
    Waiting,
    /// It does not send this chunk: not held, not leased, or unreadable. Request it elsewhere.
    Unavailable {
        /// The chunk, by its place in the manifest.
        chunk: ChunkIndex,
    },
}
