//! The swarms as they cross the admin socket: who has what, and where it came from. Touches `common`.

use common::id::{ImageId, JobId};
use common::wire::swarm::Bottleneck;
use serde::{Deserialize, Serialize};

/// One agent in the swarm, as `swarm status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The job that it carries out.
    pub job: JobId,
    /// What a person calls its machine.
    pub name: String,
    /// The site it was last seen at.
    pub site: String,
    /// Whether its control stream is up.
    pub connected: bool,
    /// Chunks it can serve.
    pub held: u32,
    /// Chunks leased to it.
    pub leased: u32,
    /// Wire bytes that the server sent it.
    pub from_server: u64,
    /// Wire bytes that peers sent it, by its own count.
    pub from_peers: u64,
    /// Wire bytes that it sent to peers, by its own count.
    pub sent: u64,
    /// Whether its disk is sealed.
    pub sealed: bool,
    /// What held it up when it last reported; none when it fetched nothing.
    pub bottleneck: Option<Bottleneck>,
}

/// One image's swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmStatus {
    /// The image, by the hash of its manifest.
    pub image: ImageId,
    /// Chunks that have to be fetched by a blank machine.
    pub chunks: u32,
    /// Wire bytes of one copy.
    pub wire_bytes: u64,
    /// Wire bytes of the image that left the server so far.
    pub injected_bytes: u64,
    /// Its agents, those that are not connected included.
    pub nodes: Vec<NodeStatus>,
}
