//! The status of swarms in the admin's API: what each agent has, and where it came from. Touches `common` and
//! the shapes of `traffic`.

use common::id::{ImageId, JobId};
use common::wire::swarm::Bottleneck;
use serde::{Deserialize, Serialize};

use crate::traffic::SiteTraffic;

/// One agent in the swarm, as `swarm status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeStatus {
    /// The job that it carries out; `None` for a relay.
    pub job: Option<JobId>,
    /// The machine's name, or its id where no admin has named it; a relay's name.
    pub name: String,
    /// The site it was last seen at.
    pub site: String,
    /// Whether its control stream is connected.
    pub connected: bool,
    /// How many chunks it has and can serve.
    pub held: u32,
    /// How many chunks are leased to it, to be fetched from the server for its site.
    pub leased: u32,
    /// Bytes that the server sent it, as counted on the network.
    pub from_server: u64,
    /// Bytes that peers sent it, as it reports them.
    pub from_peers: u64,
    /// Bytes that it sent to peers, as it reports them.
    pub sent: u64,
    /// Whether its disk is sealed.
    pub sealed: bool,
    /// What slowed it down when it last reported; `None` when it was fetching nothing.
    pub bottleneck: Option<Bottleneck>,
}

/// What `swarm status` shows: who has what, and what was sent where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SwarmShown {
    /// Each image's swarm that has members.
    pub images: Vec<SwarmStatus>,
    /// Each site that was sent anything since the server started, by name.
    pub sites: Vec<SiteTraffic>,
}

/// The status of one image's swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SwarmStatus {
    /// The image, by the hash of its manifest.
    pub image: ImageId,
    /// How many chunks a blank machine has to fetch.
    pub chunks: u32,
    /// Bytes that one copy takes on the network.
    pub wire_bytes: u64,
    /// Bytes of the image that the server has sent so far.
    pub injected_bytes: u64,
    /// Its agents, including those that are not connected.
    pub nodes: Vec<NodeStatus>,
}
