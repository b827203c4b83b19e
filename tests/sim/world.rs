//! A world of lines with the swarm's two cores: the agents' sessions and the server's image swarm, unchanged. Owns the
//! clock; touches everything in the world. Events are discrete, random numbers come from a seed, lines are shared
//! max-min fairly, messages take the delay of their line.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use agent::swarm::session::{self, Pulled};
use agent::swarm::{GATHERED, MOVED};
use common::swarm::serve::{NEWS, WAITING};
use common::swarm::splitmix::SplitMix64;
use common::trust::PublicKey;
use server::swarm::image_swarm;

use crate::first_seed::FirstSeed;
use crate::lines::{CHUNK, Holder, Lines};
use crate::machine::Machine;
use crate::names::key;
use crate::post::{Message, Post};
use crate::spec::Spec;

/// The delay of a message within a site, in seconds, unless a test sets another.
const LAN_DELAY: f64 = 0.0005;

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// Seconds until the last machine that can finish was complete; none if that did not happen.
    pub(crate) seconds: Option<f64>,
    /// Copies of the image that left the server.
    pub(crate) egress: f64,
    /// Copies of the image that went into each site.
    pub(crate) into_site: Vec<f64>,
    /// Copies of chunks received by machines that had them already, summed over all machines, in images.
    pub(crate) duplicates: f64,
    /// A digest of every request: the same seed has to give the same digest.
    pub(crate) trace: u64,
}

/// The world and its clock.
pub(crate) struct World {
    pub(crate) now: f64,
    pub(crate) post: Post,
    pub(crate) lines: Lines,
    pub(crate) machines: Vec<Machine>,
    pub(crate) numbers: HashMap<PublicKey, usize>,
    pub(crate) server: FirstSeed,
    pub(crate) chunks: u32,
    /// Machines that may have a chunk to send.
    pub(crate) sending: BTreeSet<usize>,
    pub(crate) duplicates: u64,
    pub(crate) trace: u64,
    lan_delay: f64,
    wan_delay: f64,
    grain: f64,
}

impl World {
    /// A server with an uplink of `server` bytes per second, sites behind lines of `wan`, and machines.
    pub(crate) fn new(seed: u64, chunks: u32, server: f64, wan: &[f64], specs: &[Spec]) -> Self {
        let mut rng = SplitMix64::new(seed);
        let first_seed = FirstSeed::new(wan.len(), rng.next_u64());
        let machines: Vec<Machine> = specs
            .iter()
            .enumerate()
            .map(|(number, spec)| {
                Machine::new(number, *spec, [key(number), first_seed.key], chunks, rng.next_u64())
            })
            .collect();
        let mut world = Self {
            now: 0.0,
            post: Post::default(),
            lines: Lines::new(server, wan, specs),
            numbers: machines.iter().enumerate().map(|(number, machine)| (machine.key, number)).collect(),
            machines,
            server: first_seed,
            chunks,
            sending: BTreeSet::new(),
            duplicates: 0,
            trace: 0,
            lan_delay: LAN_DELAY,
            wan_delay: LAN_DELAY,
            grain: 0.0,
        };
        world.admit_all();
        world
    }

    /// Sets the delays of messages, in seconds: within a site, and to the server.
    pub(crate) fn delays(mut self, lan: f64, wan: f64) -> Self {
        (self.lan_delay, self.wan_delay) = (lan, wan);
        self
    }

    /// Limits the steps of the clock to at least `grain` seconds, for worlds in which something always happens. What a
    /// line could have carried after a chunk's end within a step is lost.
    pub(crate) fn grain(mut self, grain: f64) -> Self {
        self.grain = grain;
        self
    }

    /// Switches the server off from `at` to `back`; it then has forgotten everything.
    pub(crate) fn server_dies(mut self, at: f64, back: f64) -> Self {
        self.server.gone = (at, back);
        self
    }

    /// Runs until every machine is complete, or for `most` seconds.
    pub(crate) fn run(mut self, most: f64) -> Outcome {
        let (mut next_tick, mut ticks) = (0.0, 0u64);
        while self.now < most && !self.finished() {
            self.lines.share();
            let next = (self.now + self.lines.next_end()).min(self.post.next()).min(next_tick);
            self.advance((next - self.now).max(self.grain));
            if self.now >= next_tick - 1e-9 {
                ticks += 1;
                next_tick += session::TICK.as_secs_f64();
                self.tick(ticks);
            }
            while let Some(message) = self.post.due(self.now) {
                self.deliver(message);
            }
            self.send();
        }
        self.check();
        self.outcome()
    }

    /// Lets machines and server come and go, and gives those that are there a tick.
    fn tick(&mut self, ticks: u64) {
        let time =
            |pace: Duration| u128::from(ticks).is_multiple_of(pace.as_millis() / session::TICK.as_millis());
        self.server_comes_and_goes();
        if time(MOVED) {
            self.tell_of_flows();
        }
        if time(WAITING) {
            self.tell_of_queues();
        }
        self.tick_machines();
        if time(image_swarm::TICK) {
            self.server_tick();
        }
    }

    fn outcome(&self) -> Outcome {
        let whole = f64::from(self.chunks) * CHUNK;
        let done: Option<Vec<f64>> = self.finishers().map(|machine| machine.done).collect();
        Outcome {
            seconds: done.map(|done| done.into_iter().fold(0.0, f64::max)),
            egress: self.server.served.iter().sum::<f64>() / whole,
            into_site: self.server.served.iter().map(|bytes| bytes / whole).collect(),
            duplicates: self.duplicates as f64 / whole,
            trace: self.trace,
        }
    }

    /// Checks that every chunk that counts as held has passed its check, and that nobody was told of another.
    fn check(&self) {
        for machine in self.machines.iter().filter(|machine| !machine.lies()) {
            assert_eq!(*machine.session.held(), machine.held, "held is what was verified");
            assert_eq!(machine.held, machine.right, "verified is what an honest sender sent");
            assert_eq!(machine.done.is_some(), machine.held.count() == self.chunks);
        }
        for node in self.server.swarm.status().nodes {
            let machine = node.job.and_then(|job| self.machines.get(usize::try_from(job.0).ok()?));
            let held = machine.map_or(0, |machine| machine.held.count());
            assert!(node.held <= held, "the server believes more");
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

    /// The delay of a message between a machine and `holder`, in seconds.
    pub(crate) fn delay(&self, holder: Holder) -> f64 {
        if holder == Holder::Server { self.wan_delay } else { self.lan_delay }
    }

    pub(crate) fn holder(&self, key: &PublicKey) -> Holder {
        self.numbers.get(key).map_or(Holder::Server, |number| Holder::Machine(*number))
    }

    pub(crate) fn key_of(&self, holder: Holder) -> PublicKey {
        match holder {
            Holder::Server => self.server.key,
            Holder::Machine(number) => self.machines[number].key,
        }
    }

    fn advance(&mut self, step: f64) {
        self.now += step;
        let (machines, server) = (&mut self.machines, &mut self.server);
        let ended = self.lines.advance(step, |moved| match moved.from {
            Holder::Server => server.count(moved.to, machines[moved.to].spec.site, moved.bytes),
            Holder::Machine(from) => machines[from].life.uploaded += moved.bytes,
        });
        for flow in ended {
            self.free(flow.from, flow.to);
            let landed = Message::Landed { from: flow.from, to: flow.to, chunk: flow.chunk };
            self.post.send(self.now + self.delay(flow.from), landed);
        }
    }

    /// A flow from `from` to `to` has ended: starts the next one.
    pub(crate) fn free(&mut self, from: Holder, to: usize) {
        self.coming_changes(to);
        match from {
            Holder::Server => self.server.free(self.machines[to].spec.site),
            Holder::Machine(from) => {
                self.machines[from].life.uploading.retain(|other| *other != to);
                self.sending.insert(from);
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Reached { at, dial } => self.reached(at, dial),
            Message::Ask { holder, by, chunk } => self.asked(holder, by, chunk),
            Message::Cancel { holder, by, chunk } => self.drop_request(holder, by, Some(chunk)),
            Message::Unavailable { holder, to, chunk } => {
                self.pulled(to, holder, Pulled::Unavailable(chunk));
            }
            Message::Landed { from, to, chunk } => self.landed(from, to, chunk),
            Message::Gather { of } => self.gathered(of),
            Message::Have { from, chunks } => self.have(from, &chunks),
            Message::Count { of } => self.count_coming(of),
            Message::Coming { to, chunks } => self.machines[to].life.coming = chunks,
            Message::ToServer { from, word } => self.server_hears(from, word),
            Message::ToAgent { to, word } => self.agent_hears(to, word),
        }
    }

    fn send(&mut self) {
        for from in std::mem::take(&mut self.sending) {
            self.serve_peers(from);
        }
        self.serve_sites();
    }

    /// Announces what is new at `of` to those who pull from it.
    fn gathered(&mut self, of: usize) {
        let machine = &mut self.machines[of];
        machine.life.next_news = self.now + NEWS.as_secs_f64();
        let chunks = std::mem::take(&mut machine.life.news);
        self.post.send(self.now + self.delay(Holder::Machine(of)), Message::Have { from: of, chunks });
    }

    /// The count of chunks arriving at `to` has changed: schedules telling its neighbours.
    pub(crate) fn coming_changes(&mut self, to: usize) {
        let machine = &mut self.machines[to];
        if !std::mem::replace(&mut machine.life.counting, true) {
            self.post.send(self.now.max(machine.life.next_count), Message::Count { of: to });
        }
    }

    fn count_coming(&mut self, of: usize) {
        let coming = self.lines.flows().iter().filter(|flow| flow.to == of).count();
        let machine = &mut self.machines[of];
        machine.life.counting = false;
        machine.life.next_count = self.now + GATHERED.as_secs_f64();
        let chunks = u32::try_from(coming).unwrap_or(u32::MAX);
        self.post.send(self.now + self.delay(Holder::Machine(of)), Message::Coming { to: of, chunks });
    }
}
