//! A world of links with bandwidths, in which the swarm's two cores live: the agents' schedulers and the
//! server's injection, with nothing of theirs replaced. Events are discrete, chance comes from a seed,
//! flows share links max-min fairly, messages take no time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use agent::swarm::schedule::{Effect as Wish, Event as Heard, Scheduler};
use common::chunk::{ChunkIndex, ChunkSet};
use common::limits::CHUNK_BYTES;
use common::swarm::dice::Dice;
use common::trust::{KeyPair, PublicKey};
use server::swarm::inject::{Effect, Event, Injector};

/// Chunks that an agent asks for at once, and those that it and the server send at once.
pub(crate) const PARALLEL: usize = 16;
const UPLOADS: usize = 4;
const SERVER_UPLOADS: usize = 3;

const TICK: f64 = 0.1;
const CHUNK: f64 = CHUNK_BYTES as f64;

/// Megabits per second as bytes per second.
pub(crate) fn mbit(rate: f64) -> f64 {
    rate * 1e6 / 8.0
}

/// What becomes of an agent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    Honest,
    /// Switched off then.
    Killed(f64),
    /// Every chunk that it sends is wrong.
    Liar,
    /// No peer can reach it, and it can reach none.
    Isolated,
}

/// One agent before it lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) site: usize,
    pub(crate) up: f64,
    pub(crate) down: f64,
    pub(crate) joins: f64,
    pub(crate) fate: Fate,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// When the last agent that was not killed was complete; none if that never came.
    pub(crate) seconds: Option<f64>,
    /// Copies of the image that left the server.
    pub(crate) egress: f64,
    /// Copies that went into each site.
    pub(crate) into_site: Vec<f64>,
    /// A digest of every request: the same seed must give the same.
    pub(crate) trace: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Server,
    Agent(usize),
}

struct Flow {
    from: Holder,
    to: usize,
    chunk: ChunkIndex,
    left: f64,
    rate: f64,
}

struct Agent {
    spec: Spec,
    key: PublicKey,
    scheduler: Scheduler,
    held: ChunkSet,
    here: bool,
    done: Option<f64>,
    queue: VecDeque<(usize, ChunkIndex)>,
    sent: f64,
    sending: f64,
    from_peers: f64,
}

/// The world.
pub(crate) struct World {
    now: f64,
    agents: Vec<Agent>,
    injector: Injector,
    granted: BTreeSet<(usize, ChunkIndex)>,
    /// Requests at the server, by site.
    queues: Vec<VecDeque<(usize, ChunkIndex)>>,
    flows: Vec<Flow>,
    server_up: f64,
    server_dies: Option<f64>,
    wan: Vec<f64>,
    served: f64,
    into_site: Vec<f64>,
    chunks: u32,
    redial: BTreeSet<(usize, Holder)>,
    trace: u64,
}

fn key(number: usize) -> PublicKey {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&(number as u64).to_le_bytes());
    KeyPair::from_secret(secret).public()
}

fn full(chunks: u32) -> ChunkSet {
    let mut set = ChunkSet::new(chunks);
    (0..chunks).for_each(|chunk| {
        set.insert(ChunkIndex(chunk));
    });
    set
}

impl World {
    /// A server with an uplink of `server_up` bytes per second, sites behind lines of `wan`, and agents.
    pub(crate) fn new(seed: u64, chunks: u32, server_up: f64, wan: Vec<f64>, specs: &[Spec]) -> Self {
        let mut dice = Dice::new(seed);
        let server = key(usize::MAX);
        let agents = specs.iter().enumerate().map(|(number, spec)| Agent {
            spec: *spec,
            key: key(number),
            scheduler: Scheduler::new(server, &full(chunks), PARALLEL, dice.roll()),
            held: ChunkSet::new(chunks),
            here: false,
            done: None,
            queue: VecDeque::new(),
            sent: 0.0,
            sending: 0.0,
            from_peers: 0.0,
        });
        let agents = agents.collect();
        Self {
            now: 0.0,
            agents,
            injector: Injector::new(full(chunks), u64::from(chunks) * u64::from(CHUNK_BYTES), dice.roll()),
            granted: BTreeSet::new(),
            queues: vec![VecDeque::new(); wan.len()],
            flows: Vec::new(),
            server_up,
            server_dies: None,
            into_site: vec![0.0; wan.len()],
            wan,
            served: 0.0,
            chunks,
            redial: BTreeSet::new(),
            trace: 0,
        }
    }

    /// The server is gone from `at` on.
    pub(crate) fn server_dies(mut self, at: f64) -> Self {
        self.server_dies = Some(at);
        self
    }

    /// Runs until everybody is complete, or for `most` seconds.
    pub(crate) fn run(mut self, most: f64) -> Outcome {
        let (mut next_tick, mut ticks) = (0.0, 0u64);
        while self.now < most && !self.finished() {
            self.share();
            let done = self.flows.iter().map(|flow| flow.left / flow.rate.max(1e-9));
            let step = done.fold(next_tick - self.now, f64::min).max(0.0);
            self.advance(step);
            if self.now >= next_tick - 1e-9 {
                ticks += 1;
                next_tick += TICK;
                self.tick(ticks);
            }
            self.land();
            self.pump();
        }
        let whole = f64::from(self.chunks) * CHUNK;
        let done: Option<Vec<f64>> = self.survivors().map(|agent| agent.done).collect();
        Outcome {
            seconds: done.map(|done| done.into_iter().fold(0.0, f64::max)),
            egress: self.served / whole,
            into_site: self.into_site.iter().map(|bytes| bytes / whole).collect(),
            trace: self.trace,
        }
    }

    fn survivors(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| !matches!(agent.spec.fate, Fate::Killed(_)))
    }

    fn finished(&self) -> bool {
        self.survivors().all(|agent| agent.done.is_some())
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.now)
    }

    fn server_lives(&self) -> bool {
        self.server_dies.is_none_or(|at| self.now < at)
    }

    fn number(&self, key: &PublicKey) -> Option<usize> {
        self.agents.iter().position(|agent| agent.key == *key)
    }

    /// Max-min fair rates: the tightest link is shared out first, then the next.
    fn share(&mut self) {
        let count = self.agents.len();
        let mut room: Vec<f64> = self.agents.iter().map(|agent| agent.spec.up).collect();
        room.extend(self.agents.iter().map(|agent| agent.spec.down));
        room.push(self.server_up);
        room.extend(&self.wan);
        let path = |flow: &Flow| match flow.from {
            Holder::Agent(from) => [from, count + flow.to, count + flow.to],
            Holder::Server => [2 * count, count + flow.to, 2 * count + 1 + self.agents[flow.to].spec.site],
        };
        let paths: Vec<[usize; 3]> = self.flows.iter().map(path).collect();
        let mut open: Vec<bool> = vec![true; paths.len()];
        loop {
            let mut users = vec![0u32; room.len()];
            for (path, _) in paths.iter().zip(&open).filter(|(_, open)| **open) {
                let distinct: BTreeSet<usize> = path.iter().copied().collect();
                distinct.into_iter().for_each(|link| users[link] += 1);
            }
            let shares = (0..room.len()).filter(|link| users[*link] > 0);
            let share = |link: &usize| room[*link].max(0.0) / f64::from(users[*link]);
            let Some(tight) = shares.min_by(|a, b| share(a).total_cmp(&share(b))) else { return };
            let rate = share(&tight);
            for (at, path) in paths.iter().enumerate().filter(|(_, path)| path.contains(&tight)) {
                if std::mem::replace(&mut open[at], false) {
                    self.flows[at].rate = rate;
                    let distinct: BTreeSet<usize> = path.iter().copied().collect();
                    distinct.into_iter().for_each(|link| room[link] -= rate);
                }
            }
        }
    }

    fn advance(&mut self, step: f64) {
        self.now += step;
        let mut served: BTreeMap<usize, f64> = BTreeMap::new();
        for flow in &mut self.flows {
            let moved = (flow.rate * step).min(flow.left);
            flow.left -= moved;
            match flow.from {
                Holder::Server => *served.entry(flow.to).or_default() += moved,
                Holder::Agent(from) => {
                    self.agents[from].sent += moved;
                    self.agents[flow.to].from_peers += moved;
                }
            }
        }
        let sending: BTreeSet<usize> = self
            .flows
            .iter()
            .filter_map(|flow| match flow.from {
                Holder::Agent(from) => Some(from),
                Holder::Server => None,
            })
            .collect();
        sending.into_iter().for_each(|agent| self.agents[agent].sending += step);
        for (to, bytes) in served {
            self.served += bytes;
            self.into_site[self.agents[to].spec.site] += bytes;
            let agent = self.agents[to].key;
            // Fractions of a byte are lost; this is but a sign of progress and of speed.
            self.inject(Event::Sent { agent, bytes: bytes as u64 });
        }
    }

    fn tick(&mut self, ticks: u64) {
        for at in 0..self.agents.len() {
            let agent = &self.agents[at];
            match agent.spec.fate {
                Fate::Killed(when) if agent.here && self.now >= when => self.leave(at),
                Fate::Killed(when) if self.now >= when => {}
                _ if !agent.here && self.now >= agent.spec.joins => self.join(at),
                _ => {}
            }
        }
        for (at, holder) in std::mem::take(&mut self.redial) {
            self.link(at, holder);
        }
        let moving: BTreeSet<(usize, Holder)> = self.flows.iter().map(|flow| (flow.to, flow.from)).collect();
        for (to, from) in moving {
            let from = self.key_of(from);
            self.schedule(to, Heard::Moved { from });
        }
        // Who waits in a queue hears every second that the holder lives.
        if ticks.is_multiple_of(10) {
            self.say_waiting();
        }
        for at in (0..self.agents.len()).filter(|at| self.agents[*at].here).collect::<Vec<_>>() {
            self.schedule(at, Heard::Tick);
            if ticks.is_multiple_of(20) {
                let agent = &mut self.agents[at];
                let event = Event::Speed {
                    agent: agent.key,
                    sent: agent.sent as u64,
                    sending: Duration::from_secs_f64(agent.sending),
                    from_peers: agent.from_peers as u64,
                };
                (agent.sent, agent.sending, agent.from_peers) = (0.0, 0.0, 0.0);
                self.inject(event);
            }
        }
        self.inject(Event::Tick);
    }

    fn say_waiting(&mut self) {
        let mut waiting: BTreeSet<(usize, Holder)> = BTreeSet::new();
        for (from, agent) in self.agents.iter().enumerate().filter(|(_, agent)| agent.here) {
            waiting.extend(agent.queue.iter().map(|(to, _)| (*to, Holder::Agent(from))));
        }
        if self.server_lives() {
            waiting.extend(self.queues.iter().flatten().map(|(to, _)| (*to, Holder::Server)));
        }
        for (to, from) in waiting {
            let from = self.key_of(from);
            self.schedule(to, Heard::Moved { from });
        }
    }

    fn key_of(&self, holder: Holder) -> PublicKey {
        match holder {
            Holder::Server => key(usize::MAX),
            Holder::Agent(number) => self.agents[number].key,
        }
    }

    fn neighbours(&self, at: usize) -> Vec<usize> {
        let own = &self.agents[at];
        let knows = |other: &Agent| {
            other.here
                && other.spec.site == own.spec.site
                && other.spec.fate != Fate::Isolated
                && own.spec.fate != Fate::Isolated
        };
        (0..self.agents.len()).filter(|other| *other != at && knows(&self.agents[*other])).collect()
    }

    fn join(&mut self, at: usize) {
        let liar = self.agents[at].spec.fate == Fate::Liar;
        self.agents[at].here = true;
        if liar {
            // It claims everything from the start.
            self.agents[at].held = full(self.chunks);
            self.agents[at].done = Some(self.now);
        }
        let agent = &self.agents[at];
        let (agent, site, held) = (agent.key, agent.spec.site.to_string(), agent.held.clone());
        self.link(at, Holder::Server);
        for other in self.neighbours(at) {
            self.link(at, Holder::Agent(other));
            self.link(other, Holder::Agent(at));
        }
        self.inject(Event::Joined { agent, site, held });
    }

    /// `at` has dialled `holder`.
    fn link(&mut self, at: usize, holder: Holder) {
        let held = match holder {
            Holder::Server if !self.server_lives() => return,
            Holder::Server => ChunkSet::new(self.chunks),
            Holder::Agent(other) if !self.agents[other].here => return,
            Holder::Agent(other) => self.agents[other].held.clone(),
        };
        let from = self.key_of(holder);
        self.schedule(at, Heard::Up { from, held, same_site: true });
    }

    fn leave(&mut self, at: usize) {
        let gone = self.agents[at].key;
        self.agents[at].here = false;
        self.agents[at].queue.clear();
        self.flows.retain(|flow| flow.to != at && flow.from != Holder::Agent(at));
        for other in self.agents.iter_mut().filter(|agent| agent.here) {
            other.queue.retain(|(to, _)| *to != at);
        }
        self.queues.iter_mut().for_each(|queue| queue.retain(|(to, _)| *to != at));
        for other in 0..self.agents.len() {
            if self.agents[other].here {
                self.schedule(other, Heard::Gone { from: gone });
            }
        }
        self.inject(Event::Left { agent: gone });
    }

    fn schedule(&mut self, at: usize, event: Heard) {
        let now = self.time();
        for wish in self.agents[at].scheduler.handle(event, now) {
            match wish {
                Wish::Cancel { from, chunk } => self.drop_requests(at, from, Some(chunk)),
                Wish::Reset { from } => {
                    self.drop_requests(at, from, None);
                    let number = self.number(&from);
                    let holder = number.map_or(Holder::Server, Holder::Agent);
                    self.flows.retain(|flow| flow.to != at || flow.from != holder);
                    self.redial.insert((at, holder));
                }
                Wish::Quarantined { .. } => {}
            }
        }
    }

    fn drop_requests(&mut self, at: usize, from: PublicKey, chunk: Option<ChunkIndex>) {
        let other =
            |entry: &(usize, ChunkIndex)| entry.0 != at || chunk.is_some_and(|chunk| chunk != entry.1);
        match self.number(&from) {
            Some(holder) => self.agents[holder].queue.retain(other),
            None => self.queues[self.agents[at].spec.site].retain(other),
        }
    }

    fn inject(&mut self, event: Event) {
        if !self.server_lives() {
            return;
        }
        let now = self.time();
        for effect in self.injector.handle(event, now) {
            match effect {
                Effect::Lease { agent, chunks } => {
                    let Some(at) = self.number(&agent) else { continue };
                    self.granted.extend(chunks.iter().map(|chunk| (at, *chunk)));
                    self.schedule(at, Heard::Leased(chunks));
                }
                Effect::Revoke { agent, chunks } => {
                    let Some(at) = self.number(&agent) else { continue };
                    chunks.iter().for_each(|chunk| {
                        self.granted.remove(&(at, *chunk));
                    });
                    self.schedule(at, Heard::Revoked(chunks));
                }
                Effect::CutOff { .. } => {}
            }
        }
    }

    /// What has arrived.
    fn land(&mut self) {
        if !self.server_lives() {
            self.flows.retain(|flow| flow.from != Holder::Server);
        }
        // Half a byte: what is left of rounding.
        let (done, on): (Vec<Flow>, Vec<Flow>) =
            std::mem::take(&mut self.flows).into_iter().partition(|f| f.left < 0.5);
        self.flows = on;
        for Flow { from, to, chunk, .. } in done {
            let (now, sender) = (self.time(), self.key_of(from));
            if !self.agents[to].scheduler.arrived(sender, chunk, now) {
                continue;
            }
            let lie = matches!(from, Holder::Agent(from) if self.agents[from].spec.fate == Fate::Liar);
            if lie {
                self.schedule(to, Heard::Corrupt { from: sender, chunk });
                let by = self.agents[to].key;
                self.inject(Event::Corrupt { by, from: sender });
                continue;
            }
            self.schedule(to, Heard::Verified { chunk });
            let agent = &mut self.agents[to];
            agent.held.insert(chunk);
            if agent.scheduler.complete() && agent.done.is_none() {
                agent.done = Some(self.now);
            }
            let key = agent.key;
            for other in self.neighbours(to) {
                self.schedule(other, Heard::Have { from: key, chunks: vec![chunk] });
            }
            self.inject(Event::Have { agent: key, chunks: vec![chunk] });
        }
    }

    /// Requests go out, and flows begin where there is a free slot.
    fn pump(&mut self) {
        let now = self.time();
        for at in 0..self.agents.len() {
            if !self.agents[at].here || self.agents[at].spec.fate == Fate::Liar {
                continue;
            }
            while let Some(request) = self.agents[at].scheduler.next_request(now) {
                assert!(self.agents[at].scheduler.in_flight() <= PARALLEL);
                let holder = self.number(&request.from);
                let mark =
                    (at as u64) << 40 | (holder.unwrap_or(999) as u64) << 24 | u64::from(request.chunk.0);
                self.trace = Dice::new(self.trace ^ mark).roll();
                match holder {
                    Some(holder) => self.agents[holder].queue.push_back((at, request.chunk)),
                    None => self.queues[self.agents[at].spec.site].push_back((at, request.chunk)),
                }
            }
        }
        self.serve_peers();
        self.serve_sites();
    }

    fn active(&self, wanted: impl Fn(&Flow) -> bool) -> usize {
        self.flows.iter().filter(|flow| wanted(flow)).count()
    }

    fn serve_peers(&mut self) {
        for from in 0..self.agents.len() {
            while self.active(|flow| flow.from == Holder::Agent(from)) < UPLOADS {
                // A puller's stream carries one chunk at a time.
                let busy =
                    |to: usize| self.active(|flow| flow.from == Holder::Agent(from) && flow.to == to) > 0;
                let next = self.agents[from].queue.iter().position(|(to, _)| !busy(*to));
                let Some((to, chunk)) = next.and_then(|at| self.agents[from].queue.remove(at)) else { break };
                self.flows.push(Flow { from: Holder::Agent(from), to, chunk, left: CHUNK, rate: 0.0 });
            }
        }
    }

    fn serve_sites(&mut self) {
        if !self.server_lives() {
            return;
        }
        for site in 0..self.wan.len() {
            loop {
                let of_site = |flow: &Flow| self.agents[flow.to].spec.site == site;
                if self.active(|flow| flow.from == Holder::Server && of_site(flow)) >= SERVER_UPLOADS {
                    break;
                }
                let Some((to, chunk)) = self.queues[site].pop_front() else { break };
                if self.granted.contains(&(to, chunk)) {
                    self.flows.push(Flow { from: Holder::Server, to, chunk, left: CHUNK, rate: 0.0 });
                } else {
                    self.schedule(to, Heard::Unavailable { from: key(usize::MAX), chunk });
                }
            }
        }
    }
}
