//! Boot files between agents of a site: what agents say that they give out, and what they are told to hold. Touches the
//! peers and the agents' control streams.

use std::net::SocketAddr;

use common::id::{Hash, ImageId};
use common::swarm::behaviour::ip;
use common::trust::PublicKey;
use common::wire::swarm::ToAgent;

use super::Node;
use crate::peers::Hold;
use crate::swarm::reachable::nets_around;

impl Node {
    /// The agent gives out small files, at the address from which it connected.
    pub(super) fn holding(&mut self, agent: PublicKey, image: ImageId, port: u16, objects: Vec<Hash>) {
        let mac = self
            .swarms
            .get(&image)
            .and_then(|swarm| swarm.admission(&agent))
            .and_then(|admission| admission.machine()?.personality.boot_mac);
        if let Some(ip) = self.controls.get(&agent).and_then(|control| ip(&control.remote)) {
            self.peers.holding(agent, mac, SocketAddr::new(ip, port), objects.into_iter().collect());
        }
    }

    /// Tells agents which small files to fetch and give out, and keeps those that others of their site need.
    pub(super) fn share(&mut self) {
        let (holds, needed) = self.peers.tick();
        for Hold { agent, objects, peers } in holds {
            let Some(ip) = self.controls.get(&agent).and_then(|control| ip(&control.remote)) else {
                continue;
            };
            let nets = nets_around(ip, &self.sites);
            self.tell(agent, ToAgent::Hold { objects, peers, nets });
        }
        for swarm in self.swarms.values_mut() {
            swarm.keep(&needed);
        }
    }
}
