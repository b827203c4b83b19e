//! The world's server: what `server/src/swarm` does around the injection, without sockets. Owns the
//! injection, who may pull what, and the requests of each site; touches lines and post.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use common::chunk::ChunkIndex;
use common::limits::CHUNK_BYTES;
use common::swarm::splitmix::SplitMix64;
use common::trust::PublicKey;
use server::swarm::inject::{Effect, Event, Injector, SENDING_PER_SITE};

use crate::lines::Holder;
use crate::post::Message;
use crate::world::{World, full, key};

/// The server.
pub(crate) struct Office {
    pub(crate) key: PublicKey,
    pub(crate) injector: Injector,
    granted: HashSet<(usize, ChunkIndex)>,
    /// Requests by site, and how many of each site's are on their way.
    queues: Vec<VecDeque<(usize, ChunkIndex)>>,
    sending: Vec<usize>,
    /// Sites for which something may be sent.
    ready: Vec<bool>,
    /// Bytes that went into each site, and to each machine since the injection last heard.
    pub(crate) served: Vec<f64>,
    progress: BTreeMap<usize, f64>,
    /// From when until when the server is switched off.
    pub(crate) gone: (f64, f64),
    lives: bool,
    chunks: u32,
    rng_seed: u64,
}

fn injector(chunks: u32, rng_seed: u64) -> Injector {
    Injector::new(full(chunks), u64::from(chunks) * u64::from(CHUNK_BYTES), rng_seed)
}

impl Office {
    pub(crate) fn new(chunks: u32, sites: usize, rng_seed: u64) -> Self {
        Self {
            key: key(usize::MAX),
            injector: injector(chunks, rng_seed),
            granted: HashSet::new(),
            queues: vec![VecDeque::new(); sites],
            sending: vec![0; sites],
            ready: vec![false; sites],
            served: vec![0.0; sites],
            progress: BTreeMap::new(),
            gone: (f64::INFINITY, f64::INFINITY),
            lives: true,
            chunks,
            rng_seed,
        }
    }

    pub(crate) fn count(&mut self, to: usize, site: usize, bytes: f64) {
        self.served[site] += bytes;
        *self.progress.entry(to).or_default() += bytes;
    }

    /// Who waits for a turn.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = usize> {
        self.queues.iter().flatten().map(|(to, _)| *to)
    }

    pub(crate) fn asked(&mut self, site: usize, by: usize, chunk: ChunkIndex) {
        self.queues[site].push_back((by, chunk));
        self.ready[site] = true;
    }

    pub(crate) fn retain(&mut self, site: usize, keep: impl Fn(&(usize, ChunkIndex)) -> bool) {
        self.queues[site].retain(keep);
    }

    pub(crate) fn free(&mut self, site: usize) {
        self.sending[site] -= 1;
        self.ready[site] = true;
    }

    pub(crate) fn forget(&mut self, machine: usize, site: usize) {
        self.queues[site].retain(|(to, _)| *to != machine);
        self.granted.retain(|(to, _)| *to != machine);
    }

    fn switched_off(&mut self) {
        self.lives = false;
        self.granted.clear();
        self.progress.clear();
        self.queues.iter_mut().for_each(VecDeque::clear);
    }

    fn back(&mut self) {
        self.lives = true;
        self.rng_seed = SplitMix64::new(self.rng_seed).next_u64();
        self.injector = injector(self.chunks, self.rng_seed);
    }
}

impl World {
    pub(crate) fn server_lives(&self) -> bool {
        self.office.lives
    }

    pub(crate) fn server_comes_and_goes(&mut self) {
        let (from, to) = self.office.gone;
        let lives = self.now < from || self.now >= to;
        if lives == self.office.lives {
            return;
        }
        let here: Vec<usize> = (0..self.machines.len()).filter(|at| self.machines[*at].here).collect();
        if lives {
            self.office.back();
            for at in here {
                self.dial(at, Holder::Server);
                self.inject_join(at);
            }
            return;
        }
        for flow in self.lines.stop(|flow| flow.from == Holder::Server) {
            self.free(flow.from, flow.to);
        }
        self.post.lose(Message::of_server);
        self.office.switched_off();
        for at in here {
            self.unlink(at, self.office.key);
        }
    }

    pub(crate) fn inject_join(&mut self, at: usize) {
        let machine = &self.machines[at];
        let site = format!("{:03}", machine.spec.site);
        let (agent, held) = (machine.key, machine.held.clone());
        let accused: Vec<_> = machine.scheduler.accused().map(|(from, _)| from).collect();
        self.inject(Event::Joined { agent, site, held });
        for from in accused {
            self.inject(Event::Corrupt { by: agent, from });
        }
    }

    pub(crate) fn server_tick(&mut self) {
        for (to, bytes) in std::mem::take(&mut self.office.progress) {
            let agent = self.machines[to].key;
            // Fractions of a byte are lost; this is but a sign of progress and of speed.
            self.inject(Event::Sent { agent, bytes: bytes as u64 });
        }
        self.inject(Event::Tick);
    }

    pub(crate) fn told(&mut self, from: usize, chunks: Vec<ChunkIndex>) {
        self.inject(Event::Have { agent: self.machines[from].key, chunks });
    }

    pub(crate) fn inject(&mut self, event: Event) {
        if !self.office.lives {
            return;
        }
        let (now, arrives) = (self.time(), self.now + self.delay(Holder::Server));
        for effect in self.office.injector.handle(event, now) {
            match effect {
                Effect::Lease { agent, chunks } => {
                    let Some(&to) = self.numbers.get(&agent) else { continue };
                    self.office.granted.extend(chunks.iter().map(|chunk| (to, *chunk)));
                    self.post.send(arrives, Message::Lease { to, chunks });
                }
                Effect::Revoke { agent, chunks } => {
                    let Some(&to) = self.numbers.get(&agent) else { continue };
                    for chunk in &chunks {
                        self.office.granted.remove(&(to, *chunk));
                    }
                    self.post.send(arrives, Message::Revoke { to, chunks });
                }
                Effect::Spare { agent, .. } => {
                    let Some(&of) = self.numbers.get(&agent) else { continue };
                    self.tell_spared(self.machines[of].spec.site, arrives);
                }
                Effect::CutOff { .. } => {}
            }
        }
    }

    fn tell_spared(&mut self, site: usize, arrives: f64) {
        let here = self.machines.iter().enumerate().filter(|(_, machine)| machine.spec.site == site);
        let here: Vec<usize> = here.filter(|(_, machine)| machine.here).map(|(at, _)| at).collect();
        let keys = here.iter().map(|at| self.machines[*at].key);
        let spared: BTreeSet<PublicKey> = keys.filter(|key| self.office.injector.is_spared(key)).collect();
        for to in here {
            self.post.send(arrives, Message::Spare { to, spared: spared.clone() });
        }
    }

    pub(crate) fn serve_sites(&mut self) {
        for site in 0..self.office.ready.len() {
            if !std::mem::take(&mut self.office.ready[site]) {
                continue;
            }
            while self.office.sending[site] < SENDING_PER_SITE {
                let Some((to, chunk)) = self.office.queues[site].pop_front() else { break };
                if self.office.granted.contains(&(to, chunk)) {
                    self.office.sending[site] += 1;
                    self.lines.begin(Holder::Server, to, chunk);
                    self.coming_changes(to);
                } else {
                    let answer = Message::Unavailable { holder: Holder::Server, to, chunk };
                    self.post.send(self.now + self.delay(Holder::Server), answer);
                }
            }
        }
    }
}
