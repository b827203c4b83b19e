//! A world of lines in which the swarm's two cores live: the agents' schedulers and the server's injection,
//! with nothing of theirs replaced. Owns the clock; touches everything in the world. Events are discrete,
//! chance comes from a seed, lines are shared max-min fairly, messages take the delay of their line.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use common::chunk::ChunkSet;
use common::swarm::splitmix::SplitMix64;
use common::trust::{KeyPair, PublicKey};

use crate::lines::{CHUNK, Holder, Lines, Spec};
use crate::machine::Machine;
use crate::office::Office;
use crate::post::{Message, Post};

/// How often the cores hear that time has passed.
const TICK: f64 = 0.1;

/// What a message takes within a site, unless a test says otherwise.
const LAN_DELAY: f64 = 0.0005;

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// When the last machine that can finish was complete; none if that never came.
    pub(crate) seconds: Option<f64>,
    /// Copies of the image that left the server.
    pub(crate) egress: f64,
    /// Copies that went into each site.
    pub(crate) into_site: Vec<f64>,
    /// Copies that came to machines which had them already, over all machines.
    pub(crate) duplicates: f64,
    /// A digest of every request: the same seed must give the same.
    pub(crate) trace: u64,
}

/// The world.
pub(crate) struct World {
    pub(crate) now: f64,
    pub(crate) post: Post,
    pub(crate) lines: Lines,
    pub(crate) machines: Vec<Machine>,
    pub(crate) numbers: HashMap<PublicKey, usize>,
    pub(crate) office: Office,
    pub(crate) chunks: u32,
    /// Machines that may have something to ask for, and those that may have something to send.
    pub(crate) asking: BTreeSet<usize>,
    pub(crate) sending: BTreeSet<usize>,
    pub(crate) redial: BTreeSet<(usize, Holder)>,
    /// Sites whose machines are to be told of their neighbours anew.
    pub(crate) moved_in: BTreeSet<usize>,
    pub(crate) duplicates: u64,
    pub(crate) trace: u64,
    lan_delay: f64,
    wan_delay: f64,
    grain: f64,
}

pub(crate) fn key(number: usize) -> PublicKey {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&(number as u64).to_le_bytes());
    KeyPair::from_secret(secret).public()
}

pub(crate) fn full(chunks: u32) -> ChunkSet {
    let mut set = ChunkSet::new(chunks);
    (0..chunks).for_each(|chunk| {
        set.insert(common::chunk::ChunkIndex(chunk));
    });
    set
}

impl World {
    /// A server with an uplink of `server` bytes per second, sites behind lines of `wan`, and machines.
    pub(crate) fn new(seed: u64, chunks: u32, server: f64, wan: &[f64], specs: &[Spec]) -> Self {
        let mut rng = SplitMix64::new(seed);
        let office = Office::new(chunks, wan.len(), rng.next_u64());
        let machines: Vec<Machine> = specs
            .iter()
            .enumerate()
            .map(|(number, spec)| Machine::new(*spec, key(number), office.key, chunks, rng.next_u64()))
            .collect();
        Self {
            now: 0.0,
            post: Post::default(),
            lines: Lines::new(server, wan, specs),
            numbers: machines.iter().enumerate().map(|(number, machine)| (machine.key, number)).collect(),
            machines,
            office,
            chunks,
            asking: BTreeSet::new(),
            sending: BTreeSet::new(),
            redial: BTreeSet::new(),
            moved_in: BTreeSet::new(),
            duplicates: 0,
            trace: 0,
            lan_delay: LAN_DELAY,
            wan_delay: LAN_DELAY,
            grain: 0.0,
        }
    }

    /// Messages take so many seconds within a site, and to the server.
    pub(crate) fn delays(mut self, lan: f64, wan: f64) -> Self {
        (self.lan_delay, self.wan_delay) = (lan, wan);
        self
    }

    /// Looks at the world every so many seconds at the most, for worlds in which something always happens.
    /// What is left of a line when a chunk ends in between is lost.
    pub(crate) fn grain(mut self, grain: f64) -> Self {
        self.grain = grain;
        self
    }

    /// The server is gone from `at` to `back`, and remembers nothing then.
    pub(crate) fn server_dies(mut self, at: f64, back: f64) -> Self {
        self.office.gone = (at, back);
        self
    }

    /// Runs until everybody is complete, or for `most` seconds.
    pub(crate) fn run(mut self, most: f64) -> Outcome {
        let (mut next_tick, mut ticks) = (0.0, 0u64);
        while self.now < most && !self.finished() {
            self.lines.share();
            let next = (self.now + self.lines.next_end()).min(self.post.next()).min(next_tick);
            self.advance((next - self.now).max(self.grain));
            if self.now >= next_tick - 1e-9 {
                ticks += 1;
                next_tick += TICK;
                self.tick(ticks);
            }
            while let Some(message) = self.post.due(self.now) {
                self.deliver(message);
            }
            self.ask();
            self.send();
        }
        self.check();
        self.outcome()
    }

    fn outcome(&self) -> Outcome {
        let whole = f64::from(self.chunks) * CHUNK;
        let done: Option<Vec<f64>> = self.finishers().map(|machine| machine.done).collect();
        Outcome {
            seconds: done.map(|done| done.into_iter().fold(0.0, f64::max)),
            egress: self.office.served.iter().sum::<f64>() / whole,
            into_site: self.office.served.iter().map(|bytes| bytes / whole).collect(),
            duplicates: self.duplicates as f64 / whole,
            trace: self.trace,
        }
    }

    /// What must hold of every run, whatever happened: what counts as held has passed its check here, and
    /// nobody was told of more.
    fn check(&self) {
        for machine in self.machines.iter().filter(|machine| !machine.lies()) {
            let (verified, wanted) = machine.scheduler.progress();
            assert_eq!(verified, machine.held.count(), "held is what was verified");
            assert_eq!(machine.held, machine.right, "verified is what an honest sender sent");
            assert_eq!(machine.done.is_some(), verified == wanted);
            assert!(self.office.injector.counts(&machine.key).0 <= verified, "the server believes more");
        }
    }

    fn finishers(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.spec.fate.finishes())
    }

    fn finished(&self) -> bool {
        self.finishers().all(|machine| machine.done.is_some())
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.now)
    }

    /// What a message between a machine and `holder` takes.
    pub(crate) fn delay(&self, holder: Holder) -> f64 {
        if holder == Holder::Server { self.wan_delay } else { self.lan_delay }
    }

    pub(crate) fn holder(&self, key: &PublicKey) -> Holder {
        self.numbers.get(key).map_or(Holder::Server, |number| Holder::Machine(*number))
    }

    pub(crate) fn key_of(&self, holder: Holder) -> PublicKey {
        match holder {
            Holder::Server => self.office.key,
            Holder::Machine(number) => self.machines[number].key,
        }
    }

    fn advance(&mut self, step: f64) {
        self.now += step;
        let (machines, office, now) = (&mut self.machines, &mut self.office, self.now);
        let ended = self.lines.advance(step, |moved| {
            match moved.from {
                Holder::Server => office.count(moved.to, machines[moved.to].spec.site, moved.bytes),
                Holder::Machine(from) => {
                    machines[from].count_sent(moved.bytes, step, now);
                    machines[moved.to].from_peers += moved.bytes;
                }
            };
        });
        for flow in ended {
            self.free(flow.from, flow.to);
            let landed = Message::Landed { from: flow.from, to: flow.to, chunk: flow.chunk };
            self.post.send(self.now + self.delay(flow.from), landed);
        }
    }

    /// A flow from `from` to `to` is over: something else can go.
    pub(crate) fn free(&mut self, from: Holder, to: usize) {
        self.coming_changes(to);
        match from {
            Holder::Server => self.office.free(self.machines[to].spec.site),
            Holder::Machine(from) => {
                self.machines[from].uploading.retain(|other| *other != to);
                self.sending.insert(from);
            }
        }
    }

    /// Ends what is on its way from `holder` to `at`.
    pub(crate) fn cut(&mut self, at: usize, holder: Holder) {
        for flow in self.lines.stop(|flow| flow.to == at && flow.from == holder) {
            self.free(flow.from, flow.to);
        }
        self.post.lose(|message| message.between(at, holder));
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Up { at, holder } => self.up(at, holder),
            Message::Ask { holder, by, chunk } => self.asked(holder, by, chunk),
            Message::Cancel { holder, by, chunk } => self.drop_request(holder, by, Some(chunk)),
            Message::Unavailable { holder, to, chunk } => self.unavailable(holder, to, chunk),
            Message::Landed { from, to, chunk } => self.landed(from, to, chunk),
            Message::Gather { of } => self.gathered(of),
            Message::Have { from, chunks } => self.have(from, &chunks),
            Message::Count { of } => self.count_coming(of),
            Message::Coming { to, chunks } => self.machines[to].coming = chunks,
            Message::Report { of } => self.reported(of),
            Message::Told { from, chunks } => self.told(from, chunks),
            Message::Lease { to, chunks } => self.leased(to, chunks),
            Message::Revoke { to, chunks } => self.revoked(to, chunks),
            Message::Spare { to, spared } => self.spare(to, spared),
        }
    }

    fn send(&mut self) {
        for from in std::mem::take(&mut self.sending) {
            self.serve_peers(from);
        }
        self.serve_sites();
    }
}
