//! Tests of what the live stream tells: how much it is, and that nothing is lost or shown to whom it is not for.

use common::id::Hash;
use common::step::Step;
use common::wire::swarm::Bottleneck;

use super::*;
use crate::api::shapes::live::LiveJob;
use crate::api::shapes::{JobState, MachineState};
use crate::traffic::{Kind, Traffic};

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

pub(in super::super::super) fn rows(
    whole: bool,
    ids: std::ops::RangeInclusive<u64>,
    second: u64,
) -> FleetRows {
    let machines = ids.map(|id| row(id, second)).collect();
    FleetRows { whole, machines, ..FleetRows::default() }
}

pub(in super::super::super) fn swarm(second: u64) -> SwarmStatus {
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

pub(in super::super::super) fn at(second: u64) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

#[test]
fn two_hundred_at_work_of_a_thousand_are_less_than_30_kib_a_second() {
    let mut book = Book::default();
    book.take(rows(true, 1..=MACHINES, 0), &[swarm(0)], &[], at(0));
    let news = book.take(rows(false, 1..=AT_WORK, 1), &[swarm(1)], &[], at(1));
    assert_eq!((news.progress.len(), news.counts.len()), (200, 200));
    assert!(news.machines.is_empty() && news.nodes.is_empty(), "what moves is told apart from the rest");
    let bytes = serde_json::to_string(&news).unwrap().len();
    assert!(bytes < 30 << 10, "{bytes} bytes");
    assert!(book.take(rows(false, 1..=AT_WORK, 1), &[swarm(1)], &[], at(2)).is_empty());
}

/// Whoever reads a snapshot and all changes knows what whoever reads a later snapshot does.
#[test]
fn changes_on_a_snapshot_are_a_later_snapshot() {
    let mut book = Book::default();
    book.take(rows(true, 1..=9, 0), &[swarm(0)], &[], at(0));
    let early = book.snapshot(at(0));
    let mut one = rows(false, 1..=3, 1);
    one.gone = vec![MachineId(9)];
    let mut less = swarm(1);
    less.nodes.truncate(5);
    let changes = [book.take(one, &[less], &[], at(1)), book.take(rows(false, 2..=2, 2), &[], &[], at(2))];
    let mut known = Reader::default();
    known.hear(&early);
    changes.iter().for_each(|news| known.hear(news));
    let mut later = Reader::default();
    later.hear(&book.snapshot(at(2)));
    assert_eq!(known, later);
    assert_eq!(known.machines.len(), 8);
    assert!(known.nodes.is_empty(), "the nodes of a swarm end with it");
}

/// Whoever has a token for some machines learns nothing of the others from it.
#[test]
fn a_part_has_the_agents_of_its_own_machines_only() {
    let part = Scope { sites: vec!["branch".to_owned()], labels: vec![] };
    let mut book = Book::of(&part);
    let traffic = Traffic::default();
    traffic.sent("branch", Kind::Chunks, 7);
    let mut first = swarm(1);
    first.nodes.push(NodeStatus { job: None, name: "relay1".to_owned(), ..first.nodes[0].clone() });
    let news = book.take(rows(true, 1..=3, 1), &[first], &traffic.shown(), at(1));
    let keys = |all: &[LiveNode]| all.iter().map(|node| node.k.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&news.nodes), ["j10001", "j10002", "j10003"]);
    assert_eq!(news.counts.len(), 3);
    assert!(news.sites.is_empty(), "who sees some machines sees no line");
    assert_eq!(news.swarms[0].injected_bytes, 3 * 100_000_001, "what the server sent these");
    // One is moved out of the scope, and then the other two.
    let moved = FleetRows { gone: vec![MachineId(2)], ..rows(false, 1..=1, 1) };
    let news = book.take(moved, &[swarm(1)], &[], at(2));
    assert_eq!((news.gone.machines, news.gone.nodes), (vec![MachineId(2)], vec!["j10002".to_owned()]));
    let moved = FleetRows { gone: vec![MachineId(1), MachineId(3)], ..FleetRows::default() };
    assert_eq!(book.take(moved, &[swarm(1)], &[], at(3)).gone.swarms, [image()]);
    let left = book.snapshot(at(3));
    assert!(left.machines.is_empty() && left.nodes.is_empty() && left.swarms.is_empty());
}

/// A reader that follows the rules in the head of the shapes' file.
#[derive(Debug, Default, PartialEq)]
pub(in super::super::super) struct Reader {
    pub(in super::super::super) machines: BTreeMap<MachineId, LiveMachine>,
    progress: BTreeMap<MachineId, LiveProgress>,
    swarms: BTreeMap<ImageId, LiveSwarm>,
    nodes: BTreeMap<String, LiveNode>,
    counts: BTreeMap<String, LiveCounts>,
}

impl Reader {
    pub(in super::super::super) fn hear(&mut self, news: &Live) {
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
