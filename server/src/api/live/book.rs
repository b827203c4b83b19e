//! Core: what the live stream has told so far, and what of it changed. Owns one copy of every entry, which a snapshot is
//! made of: so a further reader costs the fleet nothing. Touches the shapes and the fleet's rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::id::{DeploymentId, ImageId, JobId, MachineId};
use jiff::Timestamp;

use super::super::shapes::live::{
    Live, LiveCounts, LiveDeployment, LiveGone, LiveMachine, LiveNode, LiveProgress, LiveServer, LiveSwarm,
};
use super::super::shapes::{NodeStatus, SwarmStatus};
use crate::fleet::live::FleetRows;
use crate::traffic::SiteTraffic;

/// Every entry as it was told last.
#[derive(Debug, Default)]
pub(super) struct Book {
    machines: BTreeMap<MachineId, (LiveMachine, LiveProgress)>,
    by_job: HashMap<JobId, MachineId>,
    deployments: BTreeMap<DeploymentId, LiveDeployment>,
    swarms: BTreeMap<ImageId, LiveSwarm>,
    nodes: BTreeMap<String, (LiveNode, LiveCounts)>,
    sites: BTreeMap<String, SiteTraffic>,
    server: LiveServer,
}

impl Book {
    /// Takes over what there is now, and returns what of it changed.
    pub(super) fn take(
        &mut self,
        rows: FleetRows,
        swarms: Vec<SwarmStatus>,
        sites: Vec<SiteTraffic>,
        at: Timestamp,
    ) -> Live {
        let mut news = Live { at, ..Live::default() };
        self.take_fleet(rows, &mut news);
        self.take_swarms(swarms, &mut news);
        for site in sites {
            if self.sites.get(&site.site) != Some(&site) {
                self.sites.insert(site.site.clone(), site.clone());
                news.sites.push(site);
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
        let FleetRows { whole, machines, gone, deployments, frozen } = rows;
        let mut gone: Vec<MachineId> = gone;
        if whole {
            let now: BTreeSet<MachineId> = machines.iter().map(|(machine, _)| machine.m).collect();
            gone.extend(self.machines.keys().filter(|id| !now.contains(id)));
        }
        for id in gone {
            if let Some((machine, _)) = self.machines.remove(&id) {
                machine.job.iter().for_each(|job| drop(self.by_job.remove(&job.j)));
                news.gone.machines.push(id);
            }
        }
        for (machine, progress) in machines {
            let id = machine.m;
            let before = self.machines.get(&id);
            if before.is_none_or(|(before, _)| *before != machine) {
                let old = before.and_then(|(before, _)| before.job.as_ref()).map(|job| job.j);
                old.iter().for_each(|job| drop(self.by_job.remove(job)));
                machine.job.iter().for_each(|job| drop(self.by_job.insert(job.j, id)));
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

    fn take_swarms(&mut self, swarms: Vec<SwarmStatus>, news: &mut Live) {
        let mut here: BTreeSet<String> = BTreeSet::new();
        let mut images: BTreeSet<ImageId> = BTreeSet::new();
        for SwarmStatus { image, chunks, wire_bytes, injected_bytes, nodes } in swarms {
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
mod tests {
    use common::id::Hash;
    use common::step::Step;
    use common::wire::swarm::Bottleneck;

    use super::*;
    use crate::api::shapes::live::LiveJob;
    use crate::api::shapes::{JobState, MachineState};

    const MACHINES: u64 = 1000;
    const AT_WORK: u64 = 200;

    fn image() -> ImageId {
        ImageId(Hash::of(b"debian"))
    }

    fn row(id: u64, second: u64) -> (LiveMachine, LiveProgress) {
        let done = second.min(1) * (10_000_000_000 + id * 1_000 + second * 12_345_678);
        let machine = LiveMachine {
            m: MachineId(id),
            name: format!("rack17-{id:02}"),
            site: "branch".to_owned(),
            state: MachineState::Deploying,
            held: false,
            doubted: false,
            job: Some(LiveJob {
                j: JobId(10_000 + id),
                d: DeploymentId(12),
                state: JobState::Running,
                attempt: 1,
                step: Some(Step::Transfer),
                cause: None,
                changed: Timestamp::UNIX_EPOCH,
            }),
            note: None,
        };
        (machine, LiveProgress { m: MachineId(id), d: done, t: 64 << 30 })
    }

    fn rows(whole: bool, ids: std::ops::RangeInclusive<u64>, second: u64) -> FleetRows {
        let machines = ids.map(|id| row(id, second)).collect();
        FleetRows { whole, machines, gone: vec![], deployments: vec![], frozen: None }
    }

    fn swarm(second: u64) -> SwarmStatus {
        let node = |id: u64| NodeStatus {
            job: Some(JobId(10_000 + id)),
            name: format!("rack17-{id:02}"),
            site: "branch".to_owned(),
            connected: true,
            held: 10_000 + u32::try_from(second).unwrap(),
            leased: 3,
            from_server: 100_000_000 + second,
            from_peers: 10_000_000_000 + second * 11_000_000,
            sent: 10_000_000_000 + second * 12_000_000,
            sealed: false,
            bottleneck: Some(Bottleneck::Net),
        };
        SwarmStatus {
            image: image(),
            chunks: 60_000,
            wire_bytes: 30 << 30,
            injected_bytes: second << 20,
            nodes: (1..=AT_WORK).map(node).collect(),
        }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
    }

    #[test]
    fn two_hundred_at_work_of_a_thousand_are_less_than_30_kib_a_second() {
        let mut book = Book::default();
        book.take(rows(true, 1..=MACHINES, 0), vec![swarm(0)], vec![], at(0));
        let news = book.take(rows(false, 1..=AT_WORK, 1), vec![swarm(1)], vec![], at(1));
        assert_eq!((news.progress.len(), news.counts.len()), (200, 200));
        assert!(news.machines.is_empty() && news.nodes.is_empty(), "what moves is told apart from the rest");
        let bytes = serde_json::to_string(&news).unwrap().len();
        assert!(bytes < 30 << 10, "{bytes} bytes");
        assert!(book.take(rows(false, 1..=AT_WORK, 1), vec![swarm(1)], vec![], at(2)).is_empty());
    }

    /// Whoever reads a snapshot and all changes knows what whoever reads a later snapshot does.
    #[test]
    fn changes_on_a_snapshot_are_a_later_snapshot() {
        let mut book = Book::default();
        book.take(rows(true, 1..=9, 0), vec![swarm(0)], vec![], at(0));
        let early = book.snapshot(at(0));
        let mut one = rows(false, 1..=3, 1);
        one.gone = vec![MachineId(9)];
        let mut less = swarm(1);
        less.nodes.truncate(5);
        let changes = [
            book.take(one, vec![less], vec![], at(1)),
            book.take(rows(false, 2..=2, 2), vec![], vec![], at(2)),
        ];
        let mut known = Reader::default();
        known.hear(&early);
        changes.iter().for_each(|news| known.hear(news));
        let mut later = Reader::default();
        later.hear(&book.snapshot(at(2)));
        assert_eq!(known, later);
        assert_eq!(known.machines.len(), 8);
        assert!(known.nodes.is_empty(), "the nodes of a swarm end with it");
    }

    /// A reader that follows the rules in the head of the shapes' file.
    #[derive(Debug, Default, PartialEq)]
    struct Reader {
        machines: BTreeMap<MachineId, LiveMachine>,
        progress: BTreeMap<MachineId, LiveProgress>,
        swarms: BTreeMap<ImageId, LiveSwarm>,
        nodes: BTreeMap<String, LiveNode>,
        counts: BTreeMap<String, LiveCounts>,
    }

    impl Reader {
        fn hear(&mut self, news: &Live) {
            self.machines.extend(news.machines.iter().map(|one| (one.m, one.clone())));
            self.progress.extend(news.progress.iter().map(|one| (one.m, *one)));
            self.swarms.extend(news.swarms.iter().map(|one| (one.image, one.clone())));
            self.nodes.extend(news.nodes.iter().map(|one| (one.k.clone(), one.clone())));
            self.counts.extend(news.counts.iter().map(|one| (one.k.clone(), one.clone())));
            self.machines.retain(|id, _| !news.gone.machines.contains(id));
            self.progress.retain(|id, _| !news.gone.machines.contains(id));
            self.swarms.retain(|image, _| !news.gone.swarms.contains(image));
            let ended =
                |node: &LiveNode| news.gone.nodes.contains(&node.k) || news.gone.swarms.contains(&node.image);
            self.nodes.retain(|_, node| !ended(node));
            self.counts.retain(|key, _| self.nodes.contains_key(key));
        }
    }
}
