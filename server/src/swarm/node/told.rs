//! What agents are told beside chunks: which boot files to hold for their site, and how often to report; and what they say
//! that they hold. Touches the peers, the traffic's rates and the agents' control streams.

use std::collections::HashMap;
use std::net::SocketAddr;

use common::id::{Hash, ImageId};
use common::swarm::behaviour::ip;
use common::trust::PublicKey;
use common::wire::swarm::ToAgent;

use super::Node;
use crate::peers::Hold;
use crate::swarm::reachable::nets_around;
use crate::traffic::report_pace;

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

    /// Tells agents how often to report, where that has changed: they come and go, and lines turn out thinner.
    pub(super) fn set_paces(&mut self) {
        let mut sites: HashMap<String, Vec<PublicKey>> = HashMap::new();
        for agent in self.controls.iter().filter_map(|(agent, control)| control.out.as_ref().map(|_| agent)) {
            sites.entry(self.site_of(agent).unwrap_or_default().to_owned()).or_default().push(*agent);
        }
        for (site, agents) in sites {
            let pace = report_pace(agents.len(), self.traffic.rate_of(&site));
            let millis = u32::try_from(pace.as_millis()).unwrap_or(u32::MAX);
            for agent in agents {
                let Some(control) = self.controls.get_mut(&agent) else { continue };
                if std::mem::replace(&mut control.pace, pace) != pace {
                    self.tell(agent, ToAgent::Pace { millis });
                }
            }
        }
    }
}
