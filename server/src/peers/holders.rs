//! Core: the agents of one site that give out small files, which of them holds what, and who is to fetch what next.
//! Each file is fetched from the server by one agent, and then spread among a few. Touches `common`; time is an
//! argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::id::Hash;
use common::trust::PublicKey;
use common::wire::objects::Object;

use super::words::{Hold, Who};

/// Agents of a site that hold one file, at the most: at 200 Mbit/s each, eight give thirty machines 12 MiB in two
/// seconds, and further ones would cost memory for nothing.
const HOLDERS_MAX: usize = 8;

/// Neighbours that a machine is offered: a dead one costs it three seconds, so it tries two and then the server.
const OFFERED_MAX: usize = 2;

/// How long a file is wanted after a machine of the site last asked for it.
const WANTED: Duration = Duration::from_secs(10 * 60);

/// How long a machine counts as waiting after it last asked: scripts ask again every ten seconds at the latest.
const WAITS: Duration = Duration::from_secs(20);

/// How long an agent may take to fetch what it was told to hold, beside [`FETCH_LEAST_RATE`], before another is told.
const FETCH: Duration = Duration::from_secs(20);

/// The rate below which an agent counts as not fetching, in bytes a second: a line of 1 Mbit/s that others share.
const FETCH_LEAST_RATE: u64 = 64 << 10;

/// How long a complaint counts.
const COMPLAINT: Duration = Duration::from_secs(10 * 60);

/// Machines that have to complain before a neighbour is offered to nobody. One alone may have a fault of its own, or
/// lie: its word counts for itself at once, and for the others only puts the neighbour last.
const COMPLAINERS: usize = 2;

/// Complainers that are remembered of one agent.
const COMPLAINERS_MAX: usize = 16;

/// How long an agent whose job is done stays at the most for machines that ask: those that were switched on together
/// have asked by then, and its own machine waits for its new OS.
const STAYS_ASKED: Duration = Duration::from_secs(10 * 60);

/// How long the last one of a site stays for machines that have an order, or that an open order would take, and have not
/// asked yet: one that is switched on asks for its boot files within two minutes.
const STAYS_EXPECTED: Duration = Duration::from_secs(2 * 60);

/// Files of one site that are remembered: a dozen kinds of machine have a kernel, a loader and a bundle each.
const FILES_MAX: usize = 64;

/// Machines that are remembered as asking for one file.
const ASKERS_MAX: usize = 256;

#[derive(Debug)]
struct Agent {
    who: Who,
    at: SocketAddr,
    held: BTreeSet<Hash>,
    /// What it was told to fetch, whether from the server, and until when it has time.
    fetching: Option<(BTreeSet<Hash>, bool, Duration)>,
    /// How often it was told to fetch and did not.
    failed: u32,
    complaints: BTreeMap<IpAddr, Duration>,
    /// How often it was offered: the one that was offered least is next.
    offered: u64,
}

impl Agent {
    fn complaints(&self, now: Duration) -> usize {
        self.complaints.values().filter(|at| now < **at + COMPLAINT).count()
    }

    fn is_fetching(&self, hash: Hash) -> bool {
        self.fetching.as_ref().is_some_and(|(hashes, _, _)| hashes.contains(&hash))
    }
}

/// A file that machines of the site ask for.
#[derive(Debug)]
struct Wanted {
    bytes: u64,
    last: Duration,
    /// Who asked, when last, and whether it waits for a neighbour to have it.
    askers: BTreeMap<Who, (Duration, bool)>,
}

/// The agents of one site with what they hold, and what its machines want.
#[derive(Debug, Default)]
pub(super) struct Holders {
    agents: BTreeMap<PublicKey, Agent>,
    wanted: BTreeMap<Hash, Wanted>,
}

impl Holders {
    /// Whether an agent is here that gives out files.
    pub(super) fn any(&self) -> bool {
        !self.agents.is_empty()
    }

    /// Whether another machine than `who` is here as an agent that gives out files. One that asks for its boot files has
    /// restarted, although its agent's connection may look alive for some seconds.
    pub(super) fn any_but(&self, who: Who) -> bool {
        self.agents.values().any(|agent| !agent.who.is(&who))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.agents.is_empty() && self.wanted.is_empty()
    }

    /// The agent says what it holds, at its first word and after each change.
    pub(super) fn holding(&mut self, key: PublicKey, who: Who, at: SocketAddr, held: BTreeSet<Hash>) {
        let agent = self.agents.entry(key).or_insert_with(|| Agent {
            who,
            at,
            held: BTreeSet::new(),
            fetching: None,
            failed: 0,
            complaints: BTreeMap::new(),
            offered: 0,
        });
        (agent.at, agent.who) = (at, who);
        if let Some((hashes, ..)) = &mut agent.fetching {
            hashes.retain(|hash| !held.contains(hash));
            if hashes.is_empty() {
                agent.fetching = None;
            }
        }
        agent.held = held;
        // It is no longer on its way, nor will it be when it has left for its new OS.
        for wanted in self.wanted.values_mut() {
            wanted.askers.retain(|asker, _| !asker.is(&who));
        }
    }

    pub(super) fn left(&mut self, key: &PublicKey) {
        self.agents.remove(key);
    }

    /// A machine asks for `file`; `waits` when it asks again later, until a neighbour has it.
    pub(super) fn want(&mut self, file: Object, who: Who, waits: bool, now: Duration) {
        if !self.wanted.contains_key(&file.hash) && self.wanted.len() >= FILES_MAX {
            let oldest = self.wanted.iter().min_by_key(|(_, wanted)| wanted.last).map(|(hash, _)| *hash);
            oldest.map(|hash| self.wanted.remove(&hash));
        }
        let fresh = || Wanted { bytes: file.bytes, last: now, askers: BTreeMap::new() };
        let wanted = self.wanted.entry(file.hash).or_insert_with(fresh);
        wanted.last = now;
        if wanted.askers.len() < ASKERS_MAX || wanted.askers.contains_key(&who) {
            wanted.askers.insert(who, (now, waits));
        }
    }

    /// The neighbours that `who` is offered for `files`: they hold all of them, are another machine, and have not failed
    /// it. Those that were offered least come first, so that the load is spread.
    pub(super) fn offer(&mut self, files: &[Object], who: Who, now: Duration) -> Vec<SocketAddr> {
        let shared = self.shared_addresses();
        let fits = |agent: &Agent| {
            !agent.who.is(&who)
                && files.iter().all(|file| agent.held.contains(&file.hash))
                && !agent.complaints.contains_key(&who.address)
                && agent.complaints(now) < COMPLAINERS
                && !shared.contains(&agent.at)
        };
        let mut fitting: Vec<(usize, u64, PublicKey)> = self
            .agents
            .iter()
            .filter(|(_, agent)| fits(agent))
            .map(|(key, agent)| (agent.complaints(now), agent.offered, *key))
            .collect();
        fitting.sort_unstable();
        fitting.truncate(OFFERED_MAX);
        let mut offered = Vec::new();
        for (_, _, key) in fitting {
            if let Some(agent) = self.agents.get_mut(&key) {
                agent.offered += 1;
                offered.push(agent.at);
            }
        }
        offered
    }

    /// Addresses that several agents have: behind a NAT, where a neighbour would reach none of them, or the wrong one.
    fn shared_addresses(&self) -> BTreeSet<SocketAddr> {
        let mut seen = BTreeSet::new();
        self.agents.values().map(|agent| agent.at).filter(|at| !seen.insert(*at)).collect()
    }

    /// A machine of this site at `by` says that the neighbour at `peer` failed it. Whether that is news.
    pub(super) fn complain(&mut self, by: IpAddr, peer: SocketAddr, now: Duration) -> bool {
        let Some(agent) = self.agents.values_mut().find(|agent| agent.at == peer && agent.who.address != by)
        else {
            return false;
        };
        agent.complaints.retain(|_, at| now < *at + COMPLAINT);
        if agent.complaints.len() >= COMPLAINERS_MAX {
            return false;
        }
        agent.complaints.insert(by, now).is_none()
    }

    /// Bytes of `files` that no agent here holds.
    pub(super) fn missing(&self, files: &[Object]) -> u64 {
        let held = |hash| self.agents.values().any(|agent| agent.held.contains(&hash));
        files.iter().filter(|file| !held(file.hash)).map(|file| file.bytes).sum()
    }

    /// Who is to fetch what now: files that machines wait for, and that too few hold. To be called every second or so.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Hold> {
        self.wanted.retain(|_, wanted| now < wanted.last + WANTED);
        for agent in self.agents.values_mut() {
            if agent.fetching.as_ref().is_some_and(|(_, _, until)| now >= *until) {
                agent.fetching = None;
                agent.failed += 1;
            }
        }
        let mut holds: BTreeMap<(PublicKey, bool), Vec<Object>> = BTreeMap::new();
        let files: Vec<Object> =
            self.wanted.iter().map(|(hash, wanted)| Object { hash: *hash, bytes: wanted.bytes }).collect();
        for file in files {
            let holders = self.agents.values().filter(|agent| agent.held.contains(&file.hash)).count();
            let fetchers = self.agents.values().filter(|agent| agent.is_fetching(file.hash)).count();
            let from_server = holders == 0;
            let more = match (holders, fetchers) {
                (0, 0) => usize::from(self.is_waited_for(file.hash, now)),
                (0, _) => 0,
                // Doubling: as many fetch as there are to fetch from.
                _ => (HOLDERS_MAX.saturating_sub(holders + fetchers)).min(holders.saturating_sub(fetchers)),
            };
            for _ in 0..more {
                let Some(key) = self.next_fetcher(file.hash, from_server, now) else { break };
                holds.entry((key, from_server)).or_default().push(file);
                self.told(key, file, from_server, now);
            }
        }
        let peers_of = |objects: &[Object], agent: &PublicKey| {
            let holds_all = |other: &Agent| objects.iter().all(|file| other.held.contains(&file.hash));
            let others = self.agents.iter().filter(|(key, other)| *key != agent && holds_all(other));
            others.map(|(_, other)| other.at).take(OFFERED_MAX).collect::<Vec<_>>()
        };
        holds
            .into_iter()
            .map(|((agent, from_server), objects)| {
                let peers = if from_server { vec![] } else { peers_of(&objects, &agent) };
                Hold { agent, objects, peers }
            })
            .collect()
    }

    /// Whether a machine that is no agent of this site waits for the file now, or two have just asked for it: with one
    /// that fetches it from the server itself, another copy would be of use to nobody.
    fn is_waited_for(&self, hash: Hash, now: Duration) -> bool {
        let here = |who: &Who| self.agents.values().any(|agent| agent.who.is(who));
        let Some(wanted) = self.wanted.get(&hash) else { return false };
        let now_asking = wanted.askers.iter().filter(|(who, (last, _))| now < *last + WAITS && !here(who));
        let waiting: Vec<bool> = now_asking.map(|(_, (_, waits))| *waits).collect();
        waiting.contains(&true) || waiting.len() >= 2
    }

    fn next_fetcher(&self, hash: Hash, from_server: bool, now: Duration) -> Option<PublicKey> {
        let free = |agent: &Agent| {
            let busy = agent.fetching.as_ref().is_some_and(|(_, server, _)| *server != from_server);
            !agent.held.contains(&hash) && !agent.is_fetching(hash) && !busy
        };
        let candidates = self.agents.iter().filter(|(_, agent)| free(agent));
        let by_trust = |(key, agent): &(&PublicKey, &Agent)| {
            // Files that go together are fetched by one agent: it is offered only for all of them.
            (agent.failed, agent.complaints(now), agent.fetching.is_none(), agent.offered, **key)
        };
        candidates.min_by_key(by_trust).map(|(key, _)| *key)
    }

    fn told(&mut self, key: PublicKey, file: Object, from_server: bool, now: Duration) {
        let Some(agent) = self.agents.get_mut(&key) else { return };
        let (hashes, _, until) =
            agent.fetching.get_or_insert_with(|| (BTreeSet::new(), from_server, now + FETCH));
        hashes.insert(file.hash);
        *until += Duration::from_secs(file.bytes / FETCH_LEAST_RATE);
    }

    /// The agents that should stay although their own job is done, and for how long after that: the two that hold most
    /// of what machines of the site have asked for in the last two minutes; and when further machines are `expected`, the
    /// one that holds most, which also has the image.
    pub(super) fn needed(&self, expected: bool, now: Duration) -> Vec<(PublicKey, Duration)> {
        let recent = |wanted: &&Wanted| {
            let here = |who: &Who| self.agents.values().any(|agent| agent.who.is(who));
            wanted.askers.iter().any(|(who, (last, _))| now < *last + Duration::from_secs(120) && !here(who))
        };
        let asked: Vec<Hash> =
            self.wanted.iter().filter(|(_, wanted)| recent(wanted)).map(|(hash, _)| *hash).collect();
        let mut holders: Vec<(usize, usize, PublicKey)> = self
            .agents
            .iter()
            .map(|(key, agent)| {
                (asked.iter().filter(|hash| agent.held.contains(*hash)).count(), agent.held.len(), *key)
            })
            .collect();
        holders.sort_unstable_by(|one, two| two.cmp(one));
        let wanted = holders.iter().filter(|(asked, ..)| *asked > 0).take(OFFERED_MAX);
        let mut needed: Vec<(PublicKey, Duration)> = wanted.map(|(.., key)| (*key, STAYS_ASKED)).collect();
        if needed.is_empty() && expected {
            needed.extend(holders.first().map(|(.., key)| (*key, STAYS_EXPECTED)));
        }
        needed
    }
}
