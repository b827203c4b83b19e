//! Core: what the API shows of an image's swarm: each member and what it holds, and in detail which chunks these are and
//! whom it may fetch from. Touches the swarm's state alone.

use std::collections::{BTreeMap, HashMap};

use common::trust::PublicKey;

use super::{ImageSwarm, Member};
use crate::api::shapes::live::{SwarmDetail, SwarmNode};
use crate::api::shapes::{NodeStatus, SwarmStatus};

impl ImageSwarm {
    /// The members and what each holds, for `swarm status`.
    #[must_use]
    pub fn status(&self) -> SwarmStatus {
        SwarmStatus {
            image: self.image,
            chunks: self.wire_image.as_ref().map_or(0, |wire_image| wire_image.wanted.count()),
            wire_bytes: self.wire_image.as_ref().map_or(0, |wire_image| wire_image.wire_bytes),
            injected_bytes: self.injected,
            nodes: self.members.iter().map(|(key, member)| self.node(key, member)).collect(),
        }
    }

    /// The same with the chunks that each holds, and its neighbours.
    #[must_use]
    pub fn detail(&self) -> SwarmDetail {
        let SwarmStatus { image, chunks, wire_bytes, injected_bytes, nodes } = self.status();
        let mut into_sites: BTreeMap<String, u64> = BTreeMap::new();
        for node in &nodes {
            *into_sites.entry(node.site.clone()).or_default() += node.from_server;
        }
        let places: HashMap<&PublicKey, usize> =
            self.members.keys().enumerate().map(|(at, key)| (key, at)).collect();
        let nodes = nodes.into_iter().zip(&self.members).map(|(status, (key, member))| {
            let told = member.told.iter().flat_map(|(list, _)| list);
            SwarmNode {
                status,
                map: member.presence.held.bits(),
                uplink: self.injector.as_ref().and_then(|injector| injector.uplink(key)),
                neighbours: told.filter_map(|other| places.get(&other.key).copied()).collect(),
            }
        });
        SwarmDetail {
            image,
            places: self.wire_image.as_ref().map_or(0, |wire_image| wire_image.wanted.len()),
            wanted: self.wire_image.as_ref().map(|wire_image| wire_image.wanted.bits()).unwrap_or_default(),
            chunks,
            wire_bytes,
            injected_bytes,
            into_sites,
            nodes: nodes.collect(),
        }
    }

    fn node(&self, key: &PublicKey, member: &Member) -> NodeStatus {
        let (_, leased) = self.injector.as_ref().map_or((0, 0), |injector| injector.counts(key));
        NodeStatus {
            job: member.admission.job(),
            name: member.admission.name.clone(),
            site: member.admission.site.clone(),
            connected: member.presence.connected,
            held: member.presence.held.count(),
            leased,
            from_server: member.from_server,
            from_peers: member.from_peers,
            sent: member.sent,
            sealed: member.presence.sealed.is_some(),
            bottleneck: member.bottleneck,
        }
    }
}
