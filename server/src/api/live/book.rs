//! Core: what the live stream has told so far, and what of it changed. Owns one copy of every entry, which a snapshot is
//! made of: so a further reader costs the fleet nothing. Touches the shapes and the fleet's rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::id::{DeploymentId, ImageId, JobId, MachineId};
use jiff::Timestamp;

use super::super::shapes::live::{
    Live, LiveCounts, LiveDeployment, LiveGone, LiveMachine, LiveNode, LiveProgress, LiveServer, LiveSwarm,
};
use super::super::shapes::{NodeStatus, Scope, SwarmStatus};
use crate::fleet::live::FleetRows;
use crate::traffic::SiteTraffic;

/// Every entry as the readers of one scope were told it last.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Whether they see some machines only: then of the swarms their agents alone, and nothing of sites.
    is_part: bool,
    machines: BTreeMap<MachineId, (LiveMachine, LiveProgress)>,
    by_job: HashMap<JobId, MachineId>,
    deployments: BTreeMap<DeploymentId, LiveDeployment>,
    swarms: BTreeMap<ImageId, LiveSwarm>,
    nodes: BTreeMap<String, (LiveNode, LiveCounts)>,
    sites: BTreeMap<String, SiteTraffic>,
    server: LiveServer,
}

impl Book {
    /// An empty book for the readers of `scope`.
    pub(super) fn of(scope: &Scope) -> Self {
        Self { is_part: !scope.is_everything(), ..Self::default() }
    }

    /// Takes over what there is now, and returns what of it changed.
    pub(super) fn take(
        &mut self,
        rows: FleetRows,
        swarms: &[SwarmStatus],
        sites: &[SiteTraffic],
        at: Timestamp,
    ) -> Live {
        let mut news = Live { at, ..Live::default() };
        self.take_fleet(rows, &mut news);
        self.take_swarms(swarms, &mut news);
        for site in sites.iter().filter(|_| !self.is_part) {
            if self.sites.get(&site.site) != Some(site) {
                self.sites.insert(site.site.clone(), site.clone());
                news.sites.push(site.clone());
            }
        }
        news
    }

    /// Everything, for a reader that knows nothing.
    pub(super) fn snapshot(&self, at: Timestamp) -> Live {
        let (machines, progress) = self.machines.values().cloned().unzip();
        let (nodes, counts) = self.nodes.values().cloned().unzip();
        Live {
            at,
            machines,
            progress,
            deployments: self.deployments.values().cloned().collect(),
            swarms: self.swarms.values().cloned().collect(),
            nodes,
            counts,
            sites: self.sites.values().cloned().collect(),
            server: Some(self.server.clone()),
            gone: LiveGone::default(),
        }
    }

    fn take_fleet(&mut self, rows: FleetRows, news: &mut Live) {
        let FleetRows { whole, machines, mut gone, deployments, mut ended, frozen } = rows;
        if whole {
            let now: BTreeSet<MachineId> = machines.iter().map(|(machine, _)| machine.m).collect();
            gone.extend(self.machines.keys().filter(|id| !now.contains(id)));
            let now: BTreeSet<DeploymentId> = deployments.iter().map(|order| order.d).collect();
            ended.extend(self.deployments.keys().filter(|id| !now.contains(id)));
        }
        for id in gone {
            if let Some((machine, _)) = self.machines.remove(&id) {
                if let Some(job) = machine.job {
                    self.by_job.remove(&job.j);
                }
                news.gone.machines.push(id);
            }
        }
        news.gone.deployments.extend(ended.into_iter().filter(|id| self.deployments.remove(id).is_some()));
        for (machine, progress) in machines {
            let id = machine.m;
            let before = self.machines.get(&id);
            if before.is_none_or(|(before, _)| *before != machine) {
                if let Some(old) = before.and_then(|(before, _)| before.job.as_ref()) {
                    self.by_job.remove(&old.j);
                }
                if let Some(job) = &machine.job {
                    self.by_job.insert(job.j, id);
                }
                news.machines.push(machine.clone());
            }
            if self.machines.get(&id).is_none_or(|(_, before)| *before != progress) {
                news.progress.push(progress);
            }
            self.machines.insert(id, (machine, progress));
        }
        for order in deployments {
            if self.deployments.get(&order.d) != Some(&order) {
                self.deployments.insert(order.d, order.clone());
                news.deployments.push(order);
            }
        }
        let server = LiveServer { frozen };
        if self.server != server {
            self.server = server.clone();
            news.server = Some(server);
        }
    }

    fn take_swarms(&mut self, swarms: &[SwarmStatus], news: &mut Live) {
        let mut here: BTreeSet<String> = BTreeSet::new();
        let mut images: BTreeSet<ImageId> = BTreeSet::new();
        for status in swarms {
            let seen = |node: &&NodeStatus| {
                !self.is_part || node.job.is_some_and(|job| self.by_job.contains_key(&job))
            };
            let nodes: Vec<NodeStatus> = status.nodes.iter().filter(seen).cloned().collect();
            if self.is_part && nodes.is_empty() {
                continue;
            }
            let SwarmStatus { image, chunks, wire_bytes, .. } = *status;
            let injected_bytes = if self.is_part {
                nodes.iter().map(|node| node.from_server).sum()
            } else {
                status.injected_bytes
            };
            images.insert(image);
            let swarm = LiveSwarm { image, chunks, wire_bytes, injected_bytes };
            if self.swarms.get(&image) != Some(&swarm) {
                self.swarms.insert(image, swarm.clone());
                news.swarms.push(swarm);
            }
            for status in nodes {
                let (node, counts) = self.node(image, status);
                here.insert(node.k.clone());
                let before = self.nodes.get(&node.k);
                if before.is_none_or(|(before, _)| *before != node) {
                    news.nodes.push(node.clone());
                }
                if before.is_none_or(|(_, before)| *before != counts) {
                    news.counts.push(counts.clone());
                }
                self.nodes.insert(node.k.clone(), (node, counts));
            }
        }
        self.nodes.retain(|key, (node, _)| {
            let stays = here.contains(key);
            // Those of a swarm that ended are not named one by one.
            if !stays && images.contains(&node.image) {
                news.gone.nodes.push(key.clone());
            }
            stays
        });
        self.swarms.retain(|image, _| {
            let stays = images.contains(image);
            if !stays {
                news.gone.swarms.push(*image);
            }
            stays
        });
    }

    fn node(&self, image: ImageId, status: NodeStatus) -> (LiveNode, LiveCounts) {
        let key =
            status.job.map_or_else(|| format!("{}@{}", status.name, image.0.short()), |job| job.to_string());
        let counts = LiveCounts {
            k: key.clone(),
            h: status.held,
            l: status.leased,
            s: status.from_server,
            p: status.from_peers,
            u: status.sent,
            b: status.bottleneck,
        };
        let node = LiveNode {
            k: key,
            image,
            m: status.job.and_then(|job| self.by_job.get(&job).copied()),
            name: status.name,
            site: status.site,
            connected: status.connected,
            sealed: status.sealed,
        };
        (node, counts)
    }
}

#[cfg(test)]
pub(super) mod tests;
