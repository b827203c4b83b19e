//! Who holds which chunks, as whoever draws it follows it: whole at first, and then what changed. Counts are not in it:
//! `GET /live` tells those. Touches `common`.

use std::collections::BTreeMap;

use common::id::ImageId;
use serde::{Deserialize, Serialize};

use super::live::SwarmDetail;

/// What `GET /swarm/{image}` answers with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum SwarmAnswer {
    /// To a request with `since`.
    Maps(SwarmMaps),
    /// To any other.
    Detail(SwarmDetail),
}

/// The chunk maps of an image's swarm, or what changed in them since an earlier answer. What a difference leaves out is
/// as it was in that answer. It is up to a second old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SwarmMaps {
    /// The image, by the hash of its manifest.
    pub image: ImageId,
    /// Names this answer: to be sent as `since` next time.
    pub mark: String,
    /// The mark of the answer that this one changes. Absent when this one is whole, because no mark was sent, or one that
    /// the server does not know (any more): forget everything then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How many chunks the image has, holes included: the bits of each map.
    pub places: u32,
    /// The chunks that a blank machine has to fetch, as a map; absent in a difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// Its agents and relays by their numbers, each with what is new of it.
    pub nodes: BTreeMap<u32, NodeMap>,
    /// The numbers of those that are no members any more. Nobody gets such a number again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<u32>,
}

/// One agent or relay. Of one that the asker does not know everything is told but `got`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeMap {
    /// Its key in `GET /live`: the job's number, or for a relay `NAME@IMAGE` with the image's first digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<String>,
    /// The chunks that it has: base64 without padding of one bit for each chunk of the image, the lowest bit of a byte
    /// first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<String>,
    /// Chunks that it has besides, where that is shorter than a map.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub got: Vec<u32>,
    /// The speed of its uplink in bytes a second, to two digits, as its own reports show it; 0 while it has sent nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<u64>,
    /// Whom it may fetch from, by their numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<Vec<u32>>,
}
