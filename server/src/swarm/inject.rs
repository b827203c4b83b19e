//! Core: which chunk the server sends to which agent, so that each chunk is sent once per site. Owns what is known of
//! one image's agents; touches `common`. Time is an argument, random numbers come from a seed.
//!
//! A chunk that nobody at a site holds is *leased* to one agent there, which alone may then pull it from
//! the server; the agents spread it among themselves. In a model this finished within 2 % of the bound
//! with each chunk sent once, where a server that serves every request sent three copies and more (`tests/sim` has
//! grown from that model). Two things make it robust: a lease goes to an agent with a good uplink and few chunks that
//! it alone holds, and an agent that gets nothing from its peers for a while is served directly.
//!
//! Invariant: a chunk is leased at a site at most once, and only while nobody there holds it. Rescues are the
//! exception: those of starving agents are counted in `rescued_bytes`.

// Events that come in, and effects that go out.
mod event;

// Which agent gets the next chunk.
mod lease;

// What is done when a transfer makes no progress, and which agents are spared.
mod rescue;
mod spare;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::limits::SPEED_MAX;
use common::swarm::splitmix::SplitMix64;
use common::trust::PublicKey;

pub use event::{Effect, Event};

/// Chunks that the server sends to one site at the same time, at the most. A receiver's line carries its peers' chunks
/// as well: with three at once, the server's line was half idle where all lines were equal. Eight share it so thinly
/// that each ends late, and is passed on late. In tests/sim, eight equal machines: 1.29 of the lower bound with three,
/// 1.08 with five, 1.11 with eight.
pub const SENDING_PER_SITE: usize = 5;

/// An agent that reports at least so many bytes from peers in one report is not starving.
const TRICKLE: u64 = 100_000;

/// An agent that reports corrupt chunks from more neighbours than this is more likely at fault itself: bad memory, a
/// bad NIC. Its reports are ignored.
const ACCUSED_MAX: usize = 2;

#[derive(Debug)]
struct Agent {
    site: String,
    /// Whether it is a relay: it stays, and has the whole line into its LAN for sending.
    is_relay: bool,
    held: ChunkSet,
    /// The chunks that it can take as deltas.
    deltas: ChunkSet,
    /// Whether the chunks that it holds count as available to others; false once it is believed to have sent a wrong
    /// one.
    trusted: bool,
    leases: BTreeSet<ChunkIndex>,
    /// How many of its chunks nobody else at the site holds.
    sole: usize,
    /// Bytes per second that it can send, smoothed; `None` until it has sent for 200 ms within one report.
    uplink: Option<u64>,
    joined: Duration,
    /// When the server last sent it bytes, it announced a chunk, or it got its first lease: the lease timeout begins
    /// then.
    moved: Duration,
    /// When it last got something that was not leased to it, or joined.
    gained: Duration,
    /// When it was last seen that its peers have nothing that it lacks.
    alone: Duration,
    penalty_until: Duration,
    cut_off: bool,
    spared: bool,
}

#[derive(Debug)]
struct Site {
    /// How many trusted agents hold each chunk.
    copies: Vec<u32>,
    leased: ChunkSet,
    /// Chunks that may have to be leased, each once, the next one last. An entry that is held or leased by now is
    /// dropped when it is popped.
    open: Vec<ChunkIndex>,
    listed: ChunkSet,
    /// Whether `open` is in the order of place, and not at random.
    in_order: bool,
    /// When the first agent joined at this site.
    began: Duration,
    /// How many agents are at the site, and whether the uplink of any is known.
    agents: usize,
    uplink_known: bool,
    /// Since when `open` has been empty; `None` while it is not.
    idle_since: Option<Duration>,
    /// Bytes per second that the server sends into the site, smoothed; zero until something was sent.
    rate: u64,
    sent: u64,
    measured: Duration,
}

impl Site {
    /// Lists `chunk` as one that may have to be leased.
    fn reopen(&mut self, chunk: ChunkIndex) {
        if self.listed.insert(chunk) {
            self.open.push(chunk);
        }
    }

    /// Puts what is open in the order of place, once, if an agent takes deltas: a delta's bases lie near its chunk on
    /// the disk that is being overwritten, so in that order few of them have to be kept in memory.
    fn in_order_for(&mut self, deltas: &ChunkSet) {
        if !deltas.is_empty() && !std::mem::replace(&mut self.in_order, true) {
            self.open.sort_unstable_by(|one, other| other.cmp(one));
        }
    }

    fn pop(&mut self) -> Option<ChunkIndex> {
        let chunk = self.open.pop()?;
        self.listed.remove(chunk);
        Some(chunk)
    }
}

/// The injection of one image.
#[derive(Debug)]
pub struct Injector {
    wanted: ChunkSet,
    /// Chunks that the server cannot read.
    lost: ChunkSet,
    wire_bytes: u64,
    rescued_bytes: u64,
    sites: BTreeMap<String, Site>,
    agents: BTreeMap<PublicKey, Agent>,
    accused: BTreeMap<PublicKey, BTreeSet<PublicKey>>,
    /// Nobody starves before this time, so nothing is searched until then: a look at every agent for each chunk that
    /// one of them got was most of what a thousand agents cost.
    starving_from: Duration,
    /// When it was last decided which agents are spared.
    spared_at: Duration,
    rng: SplitMix64,
}

impl Injector {
    /// The injection of the chunks `wanted`; one copy of all of them is `wire_bytes` on the wire.
    #[must_use]
    pub fn new(wanted: ChunkSet, wire_bytes: u64, rng_seed: u64) -> Self {
        Self {
            lost: ChunkSet::new(wanted.len()),
            wanted,
            wire_bytes,
            rescued_bytes: 0,
            sites: BTreeMap::new(),
            agents: BTreeMap::new(),
            accused: BTreeMap::new(),
            starving_from: Duration::MAX,
            spared_at: Duration::ZERO,
            rng: SplitMix64::new(rng_seed),
        }
    }

    /// How many chunks `agent` holds, and how many are leased to it.
    #[must_use]
    pub fn counts(&self, agent: &PublicKey) -> (u32, u32) {
        self.agents.get(agent).map_or((0, 0), |agent| {
            (agent.held.count(), u32::try_from(agent.leases.len()).unwrap_or(u32::MAX))
        })
    }

    /// The speed of the uplink of `agent` in bytes a second, as its reports show it; `None` while it has sent nothing.
    #[must_use]
    pub fn uplink(&self, agent: &PublicKey) -> Option<u64> {
        self.agents.get(agent)?.uplink
    }

    fn lacking(&self, agent: &Agent) -> bool {
        agent.held.count() < self.wanted.count()
    }

    /// Takes one event, and returns the leases and other effects that follow.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Joined { agent, site, held, deltas, is_relay } => {
                self.joined(agent, site, &held, deltas, now);
                if let Some(agent) = self.agents.get_mut(&agent) {
                    agent.is_relay = is_relay;
                }
            }
            Event::Left { agent } => self.left(agent),
            Event::Have { agent, chunks } => self.have(agent, &chunks, now, &mut effects),
            Event::Sent { agent, bytes } => self.sent(agent, bytes, now),
            Event::Failed { agent, chunk } => {
                self.lost.insert(chunk);
                self.end_leases(agent, &[chunk]);
            }
            Event::Mended(chunk) => self.mended(chunk),
            Event::Forgotten { agent } => {
                self.left(agent);
                self.accused.remove(&agent);
            }
            Event::Speed { agent, sent, sending, from_peers } => {
                self.speed(agent, sent, sending, from_peers, now);
            }
            Event::Corrupt { by, from } => self.corrupt(by, from),
            Event::Tick => {
                self.measure(now);
                self.expire(now, &mut effects);
                self.spare(now, &mut effects);
                self.loosen(now, &mut effects);
            }
        }
        self.lease(now, &mut effects);
        self.rescue(now, &mut effects);
        effects
    }

    fn joined(&mut self, key: PublicKey, name: String, held: &ChunkSet, deltas: ChunkSet, now: Duration) {
        self.left(key);
        let (wanted, rng) = (&self.wanted, &mut self.rng);
        self.sites.entry(name.clone()).or_insert_with(|| {
            let mut open: Vec<ChunkIndex> = wanted.iter().collect();
            rng.shuffle(&mut open);
            let copies = vec![0; wanted.len() as usize];
            Site {
                copies,
                leased: ChunkSet::new(wanted.len()),
                open,
                listed: wanted.clone(),
                in_order: false,
                began: now,
                agents: 0,
                uplink_known: false,
                idle_since: None,
                rate: 0,
                sent: 0,
                measured: now,
            }
        });
        let agent = Agent {
            site: name,
            is_relay: false,
            held: ChunkSet::new(self.wanted.len()),
            deltas,
            trusted: !self.is_accused(&key),
            leases: BTreeSet::new(),
            sole: 0,
            uplink: None,
            joined: now,
            moved: now,
            gained: now,
            alone: now,
            penalty_until: Duration::ZERO,
            cut_off: false,
            spared: false,
        };
        if let Some(site) = self.sites.get_mut(&agent.site) {
            site.agents += 1;
            site.in_order_for(&agent.deltas);
        }
        self.agents.insert(key, agent);
        self.may_starve(now);
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
        if let Some(gone) = self.agents.remove(&key)
            && let Some(site) = self.sites.get_mut(&gone.site)
        {
            site.agents -= 1;
        }
    }

    /// Ends the trust in `key`: the chunks that it holds no longer count as available at its site.
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
                0 if !place.leased.contains(chunk) => place.reopen(chunk),
                1 => self.sole_holder(&site, chunk, 1),
                _ => {}
            }
        }
    }

    /// Changes `sole` of the one trusted agent of `site` that holds `chunk`.
    fn sole_holder(&mut self, site: &str, chunk: ChunkIndex, change: isize) {
        let holder = self.agents.values_mut().find(|a| a.trusted && a.site == site && a.held.contains(chunk));
        if let Some(agent) = holder {
            agent.sole = agent.sole.saturating_add_signed(change);
        }
    }

    /// Records that `key` holds `chunk`. False if that was known, or the chunk is not wanted.
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
            // A lease that another agent has on it is of no more use. Most chunks are leased to nobody, so the
            // search of all agents is skipped for them.
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
                    site.reopen(chunk);
                }
            }
        }
    }

    fn mended(&mut self, chunk: ChunkIndex) {
        if self.lost.remove(chunk) {
            for site in self.sites.values_mut() {
                if site.copies[chunk.at()] == 0 && !site.leased.contains(chunk) {
                    site.reopen(chunk);
                }
            }
        }
    }

    /// The trusted agents that hold `chunk`.
    pub fn holders(&self, chunk: ChunkIndex) -> impl Iterator<Item = PublicKey> + '_ {
        let holds = move |agent: &Agent| agent.trusted && agent.held.contains(chunk);
        self.agents.iter().filter(move |(_, agent)| holds(agent)).map(|(key, _)| *key)
    }

    /// Whether the server can read none of the chunks that `agent` lacks, and nobody at its site has one that is lost.
    #[must_use]
    pub fn is_stranded(&self, agent: &PublicKey) -> bool {
        let Some(agent) = self.agents.get(agent).filter(|agent| self.lacking(agent)) else {
            return false;
        };
        let Some(site) = self.sites.get(&agent.site) else { return false };
        let lacks = self.wanted.words().iter().zip(agent.held.words()).map(|(all, held)| all & !held);
        if lacks.zip(self.lost.words()).any(|(lacks, lost)| lacks & !lost != 0) {
            return false;
        }
        self.lost.iter().all(|chunk| agent.held.contains(chunk) || site.copies[chunk.at()] == 0)
    }

    fn sent(&mut self, key: PublicKey, bytes: u64, now: Duration) {
        if let Some(agent) = self.agents.get_mut(&key) {
            agent.moved = now;
            if let Some(site) = self.sites.get_mut(&agent.site) {
                site.sent = site.sent.saturating_add(bytes);
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
            let rate = (sent.saturating_mul(1000) / millis).min(SPEED_MAX);
            if let Some(site) = self.sites.get_mut(&agent.site) {
                site.uplink_known = true;
            }
            agent.uplink = Some(agent.uplink.map_or(rate, |old| old / 2 + rate / 2).max(1));
        }
    }

    fn corrupt(&mut self, by: PublicKey, from: PublicKey) {
        if !self.agents.contains_key(&by) || by == from {
            return;
        }
        let accused = self.accused.entry(by).or_default();
        // One entry above ACCUSED_MAX is enough to know that it accuses too many.
        if accused.len() <= ACCUSED_MAX {
            accused.insert(from);
        }
        if self.is_accused(&from) {
            self.discount(from);
        }
    }

    /// Whether an agent that accuses no more than `ACCUSED_MAX` others got a wrong chunk from `key`.
    fn is_accused(&self, key: &PublicKey) -> bool {
        self.accused.values().any(|accused| accused.len() <= ACCUSED_MAX && accused.contains(key))
    }

    fn measure(&mut self, now: Duration) {
        for site in self.sites.values_mut() {
            let elapsed = now.saturating_sub(site.measured);
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            if millis < 200 {
                continue;
            }
            // The speed of a line cannot be measured while nothing is sent over it.
            if site.sent > 0 {
                let rate = site.sent.saturating_mul(1000) / millis;
                site.rate = if site.rate == 0 { rate } else { (site.rate * 2 + rate) / 3 };
            }
            site.sent = 0;
            site.measured = now;
        }
    }
}

#[cfg(test)]
mod tests;
