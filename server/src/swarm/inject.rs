//! Core: which chunk the server gives to whom, so that each leaves it once per site. Owns what is known of
//! one image's agents; touches `common`. Time is an argument, chance comes from a seed.
//!
//! A chunk that nobody at a site holds is *leased* to one agent there, which alone may then pull it from
//! the server; the agents spread it among themselves. In a model this finished within 2 % of the bound
//! with each chunk sent once, where an open server sent three copies and more (research/swarm.md 2.4). Two
//! things make it robust: leases go where the uplink is good and little is still unspread, and an agent
//! that gets nothing from its peers for a while is served directly.
//!
//! Invariant: a chunk is leased at a site at most once, and only while nobody there holds it; but for
//! rescues, which are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::limits::CHUNK_BYTES;
use common::swarm::dice::Dice;
use common::trust::PublicKey;

/// A lease on which nothing moves for this long, or three times what is usual, is over.
const LEASE_PATIENCE: Duration = Duration::from_secs(5);

/// An agent whose lease ran out gets no other for this long, while others can take it.
const PENALTY: Duration = Duration::from_secs(15);

/// How much time's worth of chunks is leased ahead to a site...
const AHEAD: Duration = Duration::from_millis(500);

/// ...and at least so many: the line must not run dry before its speed is known.
const SITE_CHUNKS_MIN: usize = 4;

/// Chunks leased to one agent at once, when others are there and when it is alone at its site.
const AGENT_CHUNKS: usize = 4;
const AGENT_CHUNKS_ALONE: usize = 16;

/// Chunks that go out at once to one site, at the most. Receivers that get from their peers as well give each of ours
/// but a share of their lines: three left ours half idle where all lines were equal (in tests/sim 1.29 of the lower
/// bound with eight machines, eight: 1.11). On a thin line fewer are leased at once, so that they can be passed on soon.
pub const SENDING_PER_SITE: usize = 8;

/// An agent that lacks chunks and gets none from peers for this long is given one at a time directly...
const STARVING: Duration = Duration::from_secs(6);

/// ...as long as that adds less than this share (in per cent) to what one copy costs...
const RESCUE_PERCENT: u64 = 3;

/// ...and after this long as many as it can take: its peers are out of its reach.
const CUT_OFF: Duration = Duration::from_secs(15);

/// Bytes from peers in one report that count as "gets something from peers".
const TRICKLE: u64 = 100_000;

/// An accuser of more neighbours than this is more likely at fault itself: bad memory, a bad NIC.
const ACCUSED_MAX: usize = 2;

/// What the injection hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An agent may fetch from now on. Again after a cut line, with what it holds by then.
    Joined {
        /// Who.
        agent: PublicKey,
        /// Where.
        site: String,
        /// What it has.
        held: ChunkSet,
    },
    /// Its control stream has ended.
    Left {
        /// Who.
        agent: PublicKey,
    },
    /// It holds these as well.
    Have {
        /// Who.
        agent: PublicKey,
        /// What.
        chunks: Vec<ChunkIndex>,
    },
    /// So many bytes went from the server to it.
    Sent {
        /// Who.
        agent: PublicKey,
        /// How many.
        bytes: u64,
    },
    /// The server could not send it a chunk that it leased.
    Failed {
        /// Who.
        agent: PublicKey,
        /// Which.
        chunk: ChunkIndex,
    },
    /// What it says of its line.
    Speed {
        /// Who.
        agent: PublicKey,
        /// Bytes sent to peers.
        sent: u64,
        /// The time it took to send them.
        sending: Duration,
        /// Bytes it got from peers.
        from_peers: u64,
    },
    /// It got a wrong chunk from a neighbour.
    Corrupt {
        /// Who says so.
        by: PublicKey,
        /// Whose it was.
        from: PublicKey,
    },
    /// Time has passed: to be told several times a second.
    Tick,
}

/// What the node is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Let `agent` pull these, and tell it.
    Lease {
        /// Whom.
        agent: PublicKey,
        /// Which.
        chunks: Vec<ChunkIndex>,
    },
    /// Let it do so no more, and tell it.
    Revoke {
        /// Whom.
        agent: PublicKey,
        /// Which.
        chunks: Vec<ChunkIndex>,
    },
    /// It cannot get anything from its peers; tell the log, once.
    CutOff {
        /// Who.
        agent: PublicKey,
    },
}

#[derive(Debug)]
struct Agent {
    site: String,
    held: ChunkSet,
    /// Whether what it holds counts as there for others.
    trusted: bool,
    leases: BTreeSet<ChunkIndex>,
    /// Chunks that nobody else at the site holds.
    sole: usize,
    /// Bytes per second that it can send.
    uplink: Option<u64>,
    /// When something last moved on its leases, or it got the first of them.
    moved: Duration,
    /// When it last got something that was not leased to it, or joined.
    gained: Duration,
    penalty_until: Duration,
    cut_off: bool,
}

#[derive(Debug)]
struct Site {
    /// How many trusted agents hold each chunk.
    copies: Vec<u32>,
    leased: ChunkSet,
    /// Chunks that may have to be leased, next last; stale entries are dropped when met.
    open: Vec<ChunkIndex>,
    /// Bytes per second that go into the site, smoothed.
    rate: u64,
    sent: u64,
    measured: Duration,
}

/// The injection of one image.
#[derive(Debug)]
pub struct Injector {
    wanted: ChunkSet,
    wire_bytes: u64,
    rescued_bytes: u64,
    sites: BTreeMap<String, Site>,
    agents: BTreeMap<PublicKey, Agent>,
    accused: BTreeMap<PublicKey, BTreeSet<PublicKey>>,
    /// Nobody starves before this: looking at every agent for each chunk that one of them has got was most of
    /// what a thousand agents cost.
    starving_from: Duration,
    dice: Dice,
}

impl Injector {
    /// The injection of the chunks `wanted`, which cost `wire_bytes` once.
    #[must_use]
    pub fn new(wanted: ChunkSet, wire_bytes: u64, chance: u64) -> Self {
        Self {
            wanted,
            wire_bytes,
            rescued_bytes: 0,
            sites: BTreeMap::new(),
            agents: BTreeMap::new(),
            accused: BTreeMap::new(),
            starving_from: Duration::MAX,
            dice: Dice::new(chance),
        }
    }

    /// Chunks that `agent` holds and chunks leased to it.
    #[must_use]
    pub fn counts(&self, agent: &PublicKey) -> (u32, u32) {
        self.agents.get(agent).map_or((0, 0), |agent| {
            (agent.held.count(), u32::try_from(agent.leases.len()).unwrap_or(u32::MAX))
        })
    }

    /// Whether `agent` is here and lacks chunks.
    #[must_use]
    pub fn lacks(&self, agent: &PublicKey) -> bool {
        self.agents.get(agent).is_some_and(|agent| agent.held.count() < self.wanted.count())
    }

    /// Takes in what happened, and says what is to be done now.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Joined { agent, site, held } => self.joined(agent, site, &held, now),
            Event::Left { agent } => self.left(agent),
            Event::Have { agent, chunks } => self.have(agent, &chunks, now, &mut effects),
            Event::Sent { agent, bytes } => self.sent(agent, bytes, now),
            Event::Failed { agent, chunk } => self.end_leases(agent, &[chunk]),
            Event::Speed { agent, sent, sending, from_peers } => {
                self.speed(agent, sent, sending, from_peers, now);
            }
            Event::Corrupt { by, from } => self.corrupt(by, from),
            Event::Tick => {
                self.measure(now);
                self.expire(now, &mut effects);
            }
        }
        self.lease(now, &mut effects);
        self.rescue(now, &mut effects);
        effects
    }

    fn joined(&mut self, key: PublicKey, name: String, held: &ChunkSet, now: Duration) {
        self.left(key);
        let (wanted, dice) = (&self.wanted, &mut self.dice);
        self.sites.entry(name.clone()).or_insert_with(|| {
            let mut open: Vec<ChunkIndex> = wanted.iter().collect();
            dice.shuffle(&mut open);
            let copies = vec![0; wanted.len() as usize];
            Site { copies, leased: ChunkSet::new(wanted.len()), open, rate: 0, sent: 0, measured: now }
        });
        let agent = Agent {
            site: name,
            held: ChunkSet::new(self.wanted.len()),
            trusted: true,
            leases: BTreeSet::new(),
            sole: 0,
            uplink: None,
            moved: now,
            gained: now,
            penalty_until: Duration::ZERO,
            cut_off: false,
        };
        self.agents.insert(key, agent);
        self.starving_from = self.starving_from.min(now + STARVING);
        for chunk in held.iter() {
            self.add(key, chunk);
        }
    }

    fn left(&mut self, key: PublicKey) {
        let Some(agent) = self.agents.get(&key) else {
            return;
        };
        let leases: Vec<ChunkIndex> = agent.leases.iter().copied().collect();
        self.end_leases(key, &leases);
        self.discount(key);
        self.agents.remove(&key);
    }

    /// What `key` holds no longer counts for others.
    fn discount(&mut self, key: PublicKey) {
        let Some(agent) = self.agents.get_mut(&key).filter(|agent| agent.trusted) else {
            return;
        };
        agent.trusted = false;
        agent.sole = 0;
        let (site, held): (String, Vec<ChunkIndex>) = (agent.site.clone(), agent.held.iter().collect());
        for chunk in held {
            let Some(place) = self.sites.get_mut(&site) else {
                return;
            };
            place.copies[chunk.at()] -= 1;
            match place.copies[chunk.at()] {
                0 if !place.leased.contains(chunk) => place.open.push(chunk),
                1 => self.sole_holder(&site, chunk, 1),
                _ => {}
            }
        }
    }

    /// Counts `chunk` for or against the one agent of `site` that holds it.
    fn sole_holder(&mut self, site: &str, chunk: ChunkIndex, change: isize) {
        let holder = self.agents.values_mut().find(|a| a.trusted && a.site == site && a.held.contains(chunk));
        if let Some(agent) = holder {
            agent.sole = agent.sole.saturating_add_signed(change);
        }
    }

    /// `key` holds `chunk` now. False if that is no news.
    fn add(&mut self, key: PublicKey, chunk: ChunkIndex) -> bool {
        let Some(agent) = self.agents.get(&key) else {
            return false;
        };
        if !self.wanted.contains(chunk) || agent.held.contains(chunk) {
            return false;
        }
        let (trusted, site) = (agent.trusted, agent.site.clone());
        let mut first = false;
        if trusted && let Some(place) = self.sites.get_mut(&site) {
            place.copies[chunk.at()] += 1;
            first = place.copies[chunk.at()] == 1;
            if place.copies[chunk.at()] == 2 {
                self.sole_holder(&site, chunk, -1);
            }
        }
        if let Some(agent) = self.agents.get_mut(&key) {
            agent.held.insert(chunk);
            agent.sole += usize::from(first);
        }
        true
    }

    fn have(&mut self, key: PublicKey, chunks: &[ChunkIndex], now: Duration, effects: &mut Vec<Effect>) {
        for &chunk in chunks {
            if !self.add(key, chunk) {
                continue;
            }
            let Some(agent) = self.agents.get_mut(&key) else {
                return;
            };
            let site = agent.site.clone();
            agent.moved = now;
            if agent.leases.contains(&chunk) {
                self.end_leases(key, &[chunk]);
                continue;
            }
            agent.gained = now;
            agent.cut_off = false;
            // Somebody else had a lease on it, which is of no more use. Most chunks are leased to nobody, and
            // need no look at every agent.
            if self.sites.get(&site).is_none_or(|site| !site.leased.contains(chunk)) {
                continue;
            }
            let other = self.agents.iter().find(|(_, a)| a.site == site && a.leases.contains(&chunk));
            if let Some(other) = other.map(|(other, _)| *other).filter(|_| self.counts_at(&site, chunk)) {
                self.end_leases(other, &[chunk]);
                effects.push(Effect::Revoke { agent: other, chunks: vec![chunk] });
            }
        }
    }

    fn counts_at(&self, site: &str, chunk: ChunkIndex) -> bool {
        self.sites.get(site).is_some_and(|site| site.copies[chunk.at()] > 0)
    }

    fn end_leases(&mut self, key: PublicKey, chunks: &[ChunkIndex]) {
        let Some(agent) = self.agents.get_mut(&key) else {
            return;
        };
        let Some(site) = self.sites.get_mut(&agent.site) else {
            return;
        };
        for &chunk in chunks {
            if agent.leases.remove(&chunk) {
                site.leased.remove(chunk);
                if site.copies[chunk.at()] == 0 {
                    site.open.push(chunk);
                }
            }
        }
    }

    fn sent(&mut self, key: PublicKey, bytes: u64, now: Duration) {
        if let Some(agent) = self.agents.get_mut(&key) {
            agent.moved = now;
            if let Some(site) = self.sites.get_mut(&agent.site) {
                site.sent += bytes;
            }
        }
    }

    fn speed(&mut self, key: PublicKey, sent: u64, sending: Duration, from_peers: u64, now: Duration) {
        let Some(agent) = self.agents.get_mut(&key) else {
            return;
        };
        if from_peers >= TRICKLE {
            agent.gained = now;
        }
        let millis = u64::try_from(sending.as_millis()).unwrap_or(u64::MAX);
        if millis >= 200 {
            let rate = sent.saturating_mul(1000) / millis;
            agent.uplink = Some(agent.uplink.map_or(rate, |old| old / 2 + rate / 2).max(1));
        }
    }

    fn corrupt(&mut self, by: PublicKey, from: PublicKey) {
        let known = self.agents.contains_key(&by) && self.agents.contains_key(&from);
        if !known || by == from {
            return;
        }
        let accused = self.accused.entry(by).or_default();
        accused.insert(from);
        if accused.len() <= ACCUSED_MAX {
            self.discount(from);
        }
    }

    fn measure(&mut self, now: Duration) {
        for site in self.sites.values_mut() {
            let elapsed = now.saturating_sub(site.measured);
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            if millis < 200 {
                continue;
            }
            // A line that nothing is sent over says nothing about its speed.
            if site.sent > 0 {
                let rate = site.sent.saturating_mul(1000) / millis;
                site.rate = if site.rate == 0 { rate } else { (site.rate * 2 + rate) / 3 };
            }
            site.sent = 0;
            site.measured = now;
        }
    }

    fn expire(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let chunk = u64::from(CHUNK_BYTES);
        let patience: BTreeMap<&String, Duration> = self
            .sites
            .iter()
            .map(|(name, site)| {
                let queued = u64::from(site.leased.count()) * chunk;
                let expected = Duration::from_millis(queued.saturating_mul(1000) / site.rate.max(1));
                let patience = if site.rate == 0 { LEASE_PATIENCE * 3 } else { expected * 3 };
                (name, patience.clamp(LEASE_PATIENCE, LEASE_PATIENCE * 12))
            })
            .collect();
        let late: Vec<PublicKey> = self
            .agents
            .iter()
            .filter(|(_, agent)| {
                let patience = patience.get(&agent.site).copied().unwrap_or(LEASE_PATIENCE);
                !agent.leases.is_empty() && now >= agent.moved + patience
            })
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            let Some(agent) = self.agents.get_mut(&key) else { continue };
            agent.penalty_until = now + PENALTY;
            let chunks: Vec<ChunkIndex> = agent.leases.iter().copied().collect();
            self.end_leases(key, &chunks);
            effects.push(Effect::Revoke { agent: key, chunks });
        }
    }

    fn lease(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut given: BTreeMap<PublicKey, Vec<ChunkIndex>> = BTreeMap::new();
        let room = |site: &Site| (site.leased.count() as usize) < site_window(site);
        let names: Vec<String> =
            self.sites.iter().filter(|(_, site)| room(site)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let window = self.sites.get(&name).map_or(0, site_window);
            while self.sites.get(&name).is_some_and(|site| (site.leased.count() as usize) < window) {
                let Some(chunk) = self.next_open(&name) else { break };
                let Some(agent) = self.taker(&name, now) else {
                    self.sites.entry(name.clone()).and_modify(|site| site.open.push(chunk));
                    break;
                };
                self.grant(agent, chunk, now);
                given.entry(agent).or_default().push(chunk);
            }
        }
        effects.extend(given.into_iter().map(|(agent, chunks)| Effect::Lease { agent, chunks }));
    }

    /// The next chunk that nobody at the site has, taken off the list.
    fn next_open(&mut self, site: &str) -> Option<ChunkIndex> {
        let site = self.sites.get_mut(site)?;
        loop {
            let chunk = site.open.pop()?;
            if site.copies[chunk.at()] == 0 && !site.leased.contains(chunk) {
                return Some(chunk);
            }
        }
    }

    fn grant(&mut self, key: PublicKey, chunk: ChunkIndex, now: Duration) {
        if let Some(agent) = self.agents.get_mut(&key) {
            if agent.leases.is_empty() {
                agent.moved = now;
            }
            agent.leases.insert(chunk);
            if let Some(site) = self.sites.get_mut(&agent.site) {
                site.leased.insert(chunk);
            }
        }
    }

    /// Who takes the next lease: the least unspread for its uplink; not one whose uplink is below a
    /// quarter of the median, nor one whose last lease ran out, unless there is no other.
    fn taker(&mut self, site: &str, now: Duration) -> Option<PublicKey> {
        let here: Vec<(&PublicKey, &Agent)> = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.site == site && agent.held.count() < self.wanted.count())
            .collect();
        let most = if here.len() == 1 { AGENT_CHUNKS_ALONE } else { AGENT_CHUNKS };
        let mut uplinks: Vec<u64> = here.iter().filter_map(|(_, agent)| agent.uplink).collect();
        uplinks.sort_unstable();
        let median = uplinks.get(uplinks.len() / 2).copied().unwrap_or(1);
        let uplink = |agent: &Agent| agent.uplink.unwrap_or(median).max(1);
        let bad =
            |agent: &Agent| now < agent.penalty_until || !agent.trusted || uplink(agent) < median.div_ceil(4);
        let any_good = here.iter().any(|(_, agent)| !bad(agent));
        let rank = |agent: &Agent| {
            let load = u64::try_from(agent.sole + agent.leases.len() + 1).unwrap_or(u64::MAX);
            // Load per uplink, in thousandths of the median's.
            load.saturating_mul(1000).saturating_mul(median) / uplink(agent)
        };
        let fitting: Vec<(u64, PublicKey)> = here
            .into_iter()
            .filter(|(_, agent)| agent.leases.len() < most && (!any_good || !bad(agent)))
            .map(|(key, agent)| (rank(agent), *key))
            .collect();
        let best = fitting.iter().map(|(rank, _)| *rank).min()?;
        let equal: Vec<PublicKey> =
            fitting.into_iter().filter(|(rank, _)| *rank == best).map(|(_, key)| key).collect();
        equal.get(self.dice.below(equal.len())).copied()
    }

    /// Serves agents directly that get nothing from their peers.
    fn rescue(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if now < self.starving_from {
            return;
        }
        let lacking = |agent: &Agent| agent.held.count() < self.wanted.count();
        let lacking = self.agents.iter().filter(|(_, agent)| lacking(agent));
        let from: Vec<(Duration, PublicKey)> =
            lacking.map(|(key, agent)| (agent.gained + STARVING, *key)).collect();
        // What an agent gains makes it later, never sooner.
        self.starving_from = from.iter().map(|(from, _)| *from).min().unwrap_or(Duration::MAX);
        let starving: Vec<PublicKey> =
            from.into_iter().filter(|(from, _)| now >= *from).map(|(_, key)| key).collect();
        for key in starving {
            let Some(agent) = self.agents.get_mut(&key) else { continue };
            let cut_off = now >= agent.gained + CUT_OFF;
            let within = self.rescued_bytes * 100 < self.wire_bytes * RESCUE_PERCENT;
            let most = if cut_off { AGENT_CHUNKS } else { usize::from(within) };
            if agent.leases.len() >= most || now < agent.penalty_until {
                continue;
            }
            let free = most - agent.leases.len();
            let Some(site) = self.sites.get(&agent.site) else { continue };
            let lacks = |chunk: &ChunkIndex| !agent.held.contains(*chunk) && !site.leased.contains(*chunk);
            // What nobody holds is the ordinary lease's to give.
            let chunks: Vec<ChunkIndex> =
                self.wanted.iter().filter(lacks).filter(|c| site.copies[c.at()] > 0).take(free).collect();
            if chunks.is_empty() {
                continue;
            }
            if cut_off && !agent.cut_off {
                agent.cut_off = true;
                effects.push(Effect::CutOff { agent: key });
            }
            self.rescued_bytes += chunks.len() as u64 * u64::from(CHUNK_BYTES);
            chunks.iter().for_each(|chunk| self.grant(key, *chunk, now));
            effects.push(Effect::Lease { agent: key, chunks });
        }
    }
}

fn site_window(site: &Site) -> usize {
    let ahead = u128::from(site.rate) * AHEAD.as_millis() / 1000 / u128::from(CHUNK_BYTES);
    usize::try_from(ahead).unwrap_or(usize::MAX).clamp(SITE_CHUNKS_MIN, usize::MAX)
}

#[cfg(test)]
mod tests;
