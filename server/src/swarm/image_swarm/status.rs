//! Core: what the API shows of an image's swarm: each member and what it holds, and in detail which chunks these are and
//! whom it may fetch from. Touches the swarm's state alone.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use common::trust::PublicKey;

use super::maps::{Look, Node, two_digits};
use super::{ImageSwarm, Member};
use crate::api::shapes::live::{SwarmDetail, SwarmNode};
use crate::api::shapes::maps::SwarmMaps;
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

    /// The members and which chunks each holds; only what changed, if `since` is the mark of an answer that is kept.
    pub(in super::super) fn maps(&mut self, since: Option<&str>, now: Duration) -> Option<SwarmMaps> {
        self.maps.forget(now);
        if self.maps.is_due(now) {
            self.maps.number(&self.members);
            let nodes = self
                .members
                .iter()
                .filter_map(|(key, member)| Some((self.maps.number_of(key)?, self.node_map(key, member))));
            let nodes = nodes.collect();
            let wanted = self.wire_image.as_ref().map(|wire_image| wire_image.wanted.clone());
            self.maps.keep(Look::new(now, wanted, nodes));
        }
        self.maps.answer(since, self.image)
    }

    fn node_map(&self, key: &PublicKey, member: &Member) -> Node {
        let told = member.told.iter().flat_map(|(list, _)| list);
        let relay = || format!("{}@{}", member.admission.name, self.image.0.short());
        Node {
            k: member.admission.job().map_or_else(relay, |job| job.to_string()),
            held: member.presence.held.clone(),
            uplink: self.injector.as_ref().and_then(|injector| injector.uplink(key)).map_or(0, two_digits),
            neighbours: told.filter_map(|other| self.maps.number_of(&other.key)).collect(),
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
