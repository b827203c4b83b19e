//! The machines of the world: what `agent/src/swarm/node.rs` does around the scheduler, without sockets.
//! Owns each machine's scheduler, what it holds, and whom it sends to; touches lines and post.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use agent::swarm::session::schedule::{Effect, Event, Scheduler};
use common::chunk::{ChunkIndex, ChunkSet};
use common::limits::CHUNK_BYTES;
use common::plan::Tuning;
use common::swarm::slots::{self, at_once};
use common::swarm::splitmix::SplitMix64;
use common::trust::PublicKey;
use server::swarm::inject;

use crate::fault::Fate;
use crate::lines::{Holder, Spec};
use crate::post::Message;
use crate::world::{World, full};

/// Neighbours hear of new chunks, and of how many are coming, at most this often, and the server: as in the real node.
const NEWS: f64 = 0.02;
const REPORT: f64 = 0.05;

/// A site of up to so many machines is a full mesh, as the server's room has it.
const FULL_MESH_MAX: usize = 16;

/// One machine.
pub(crate) struct Machine {
    pub(crate) spec: Spec,
    pub(crate) key: PublicKey,
    pub(crate) scheduler: Scheduler,
    pub(crate) held: ChunkSet,
    /// What came from somebody who does not lie.
    pub(crate) right: ChunkSet,
    /// What is held or asked for: news of it is no reason to look for something to ask.
    covered: ChunkSet,
    pub(crate) here: bool,
    pub(crate) done: Option<f64>,
    stalled: bool,
    queue: VecDeque<(usize, ChunkIndex)>,
    pub(crate) uploading: Vec<usize>,
    neighbours: Vec<usize>,
    news: Vec<ChunkIndex>,
    next_news: f64,
    report: Vec<ChunkIndex>,
    /// How many chunks are on their way here, as its neighbours know.
    pub(crate) coming: u32,
    /// Whether they are to hear that anew, and the earliest that they can.
    counting: bool,
    next_count: f64,
    sent: f64,
    spared: bool,
    sending: f64,
    counted: f64,
    pub(crate) from_peers: f64,
    parallel: usize,
    uploads: usize,
    rng_seed: u64,
}

impl Machine {
    pub(crate) fn new(spec: Spec, key: PublicKey, server: PublicKey, chunks: u32, rng_seed: u64) -> Self {
        let tuning = Tuning::default();
        let parallel = tuning.fetch_parallel as usize;
        Self {
            spec,
            key,
            scheduler: Scheduler::new(server, &full(chunks), parallel, rng_seed),
            held: ChunkSet::new(chunks),
            right: ChunkSet::new(chunks),
            covered: ChunkSet::new(chunks),
            here: false,
            done: None,
            stalled: false,
            queue: VecDeque::new(),
            uploading: Vec::new(),
            neighbours: Vec::new(),
            news: Vec::new(),
            next_news: 0.0,
            report: Vec::new(),
            coming: 0,
            counting: false,
            next_count: 0.0,
            sent: 0.0,
            spared: false,
            sending: 0.0,
            counted: -1.0,
            from_peers: 0.0,
            parallel,
            uploads: tuning.upload_parallel as usize,
            rng_seed,
        }
    }

    pub(crate) fn lies(&self) -> bool {
        self.spec.fate == Fate::Liar
    }

    /// Whether it still fetches.
    fn fetches(&self) -> bool {
        self.here && self.done.is_none() && !self.lies()
    }

    fn at_once(&self) -> usize {
        at_once(self.uploads, self.spared)
    }

    /// Counts bytes sent in the step that ends `now`; a step's time counts once.
    pub(crate) fn count_sent(&mut self, bytes: f64, step: f64, now: f64) {
        self.sent += bytes;
        if self.counted < now {
            self.counted = now;
            self.sending += step;
        }
    }

    /// A new life of the process, with what is on the disk.
    fn start_again(&mut self, server: PublicKey, chunks: u32, now: Duration) {
        self.rng_seed = SplitMix64::new(self.rng_seed).next_u64();
        self.scheduler = Scheduler::new(server, &full(chunks), self.parallel, self.rng_seed);
        self.scheduler.handle(Event::Found(self.held.iter().collect()), now);
        self.covered = self.held.clone();
        self.spared = false;
        (self.coming, self.counting) = (0, false);
        (self.sent, self.sending, self.from_peers) = (0.0, 0.0, 0.0);
    }
}

/// Whom the `at`th of `len` machines knows: all, or those at distances of powers of two around the ring.
fn neighbours_of(at: usize, len: usize) -> Vec<usize> {
    if len <= FULL_MESH_MAX {
        return (0..len).filter(|other| *other != at).collect();
    }
    let distances = (0..).map(|power| 1 << power).take_while(|distance| *distance <= len / 2);
    let mut list: Vec<usize> =
        distances.flat_map(|distance| [(at + distance) % len, (at + len - distance) % len]).collect();
    list.sort_unstable();
    list.dedup();
    list
}

impl World {
    /// Tells the cores that time has passed; machines come and go.
    pub(crate) fn tick(&mut self, ticks: u64) {
        self.server_comes_and_goes();
        for at in 0..self.machines.len() {
            self.fate(at);
        }
        for site in std::mem::take(&mut self.moved_in) {
            self.tell_neighbours(site);
        }
        for (at, holder) in std::mem::take(&mut self.redial) {
            self.dial(at, holder);
        }
        let moving = self.lines.flows().iter().filter(|flow| flow.rate > 0.0);
        let mut heard: Vec<(usize, Holder)> = moving.map(|flow| (flow.to, flow.from)).collect();
        // Who waits in a queue hears every second that the holder lives.
        if ticks.is_multiple_of(10) {
            let alive = |machine: &&Machine| machine.here && !machine.stalled;
            for machine in self.machines.iter().filter(alive) {
                let from = self.holder(&machine.key);
                heard.extend(machine.queue.iter().map(|(to, _)| (*to, from)));
            }
            heard.extend(self.office.waiting().map(|to| (to, Holder::Server)));
        }
        for (to, from) in heard {
            let from = self.key_of(from);
            self.schedule(to, Event::Moved { from });
        }
        for at in 0..self.machines.len() {
            if self.machines[at].fetches() {
                self.schedule(at, Event::Tick);
                self.asking.insert(at);
            }
            if self.machines[at].here && ticks.is_multiple_of(10) {
                self.say_speed(at);
            }
        }
        self.server_tick();
    }

    fn fate(&mut self, at: usize) {
        let machine = &self.machines[at];
        let Spec { site: _, up, down, joins, fate } = machine.spec;
        let now = self.now;
        let here = now >= joins
            && match fate {
                Fate::Killed(when) => now < when,
                Fate::Restarts(when, back) => now < when || now >= back,
                _ => true,
            };
        let stalled = matches!(fate, Fate::Stalls(from, to) if now >= from && now < to);
        match (machine.here, here) {
            (false, true) => self.join(at),
            (true, false) => self.leave(at),
            _ => {}
        }
        if self.machines[at].stalled != stalled {
            self.machines[at].stalled = stalled;
            if stalled { self.lines.set(at, 0.0, 0.0) } else { self.lines.set(at, up, down) }
        }
    }

    fn say_speed(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let event = inject::Event::Speed {
            agent: machine.key,
            sent: machine.sent as u64,
            sending: Duration::from_secs_f64(machine.sending),
            from_peers: machine.from_peers as u64,
        };
        (machine.sent, machine.sending, machine.from_peers) = (0.0, 0.0, 0.0);
        self.inject(event);
    }

    fn join(&mut self, at: usize) {
        let (server, chunks, now, time) = (self.office.key, self.chunks, self.now, self.time());
        let machine = &mut self.machines[at];
        machine.here = true;
        if machine.lies() {
            // It claims everything from the start.
            machine.held = full(chunks);
            machine.done = Some(now);
        } else {
            machine.start_again(server, chunks, time);
        }
        self.moved_in.insert(self.machines[at].spec.site);
        self.dial(at, Holder::Server);
        self.inject_join(at);
    }

    fn leave(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        machine.here = false;
        machine.queue.clear();
        machine.uploading.clear();
        machine.news.clear();
        machine.report.clear();
        let (gone, site) = (machine.key, machine.spec.site);
        self.post.lose(|message| message.concerns(at));
        for flow in self.lines.stop(|flow| flow.to == at || flow.from == Holder::Machine(at)) {
            self.free(flow.from, flow.to);
        }
        self.redial.retain(|(by, holder)| *by != at && *holder != Holder::Machine(at));
        for other in std::mem::take(&mut self.machines[at].neighbours) {
            self.machines[other].queue.retain(|(to, _)| *to != at);
            self.unlink(other, gone);
            self.machines[other].neighbours.retain(|own| *own != at);
        }
        self.moved_in.insert(site);
        self.office.forget(at, site);
        self.inject(inject::Event::Left { agent: gone });
    }

    /// The neighbour `gone` is none any more.
    pub(crate) fn unlink(&mut self, at: usize, gone: PublicKey) {
        self.schedule(at, Event::Gone { from: gone });
        let machine = &mut self.machines[at];
        machine.covered = machine.held.clone();
        self.asking.insert(at);
    }

    /// Who is new among a machine's neighbours is dialled; who is none any more is forgotten.
    fn tell_neighbours(&mut self, site: usize) {
        let fits = |machine: &Machine| {
            machine.here && machine.spec.site == site && machine.spec.fate != Fate::Isolated
        };
        let mut here: Vec<usize> = (0..self.machines.len()).filter(|at| fits(&self.machines[*at])).collect();
        here.sort_unstable_by_key(|at| self.machines[*at].key);
        for (place, &at) in here.iter().enumerate() {
            let list: Vec<usize> =
                neighbours_of(place, here.len()).into_iter().map(|place| here[place]).collect();
            let old = std::mem::replace(&mut self.machines[at].neighbours, list.clone());
            for &gone in old.iter().filter(|gone| !list.contains(gone)) {
                self.machines[gone].queue.retain(|(to, _)| *to != at);
                self.cut(at, Holder::Machine(gone));
                self.unlink(at, self.machines[gone].key);
            }
            for &new in list.iter().filter(|new| !old.contains(new)) {
                self.dial(at, Holder::Machine(new));
            }
        }
    }

    pub(crate) fn dial(&mut self, at: usize, holder: Holder) {
        self.post.send(self.now + self.delay(holder), Message::Up { at, holder });
    }

    /// `at` has dialled `holder`.
    pub(crate) fn up(&mut self, at: usize, holder: Holder) {
        let held = match holder {
            Holder::Server if !self.server_lives() => return,
            Holder::Server => ChunkSet::new(self.chunks),
            Holder::Machine(other) if !self.machines[at].neighbours.contains(&other) => return,
            Holder::Machine(other) => self.machines[other].held.clone(),
        };
        let from = self.key_of(holder);
        if self.machines[at].fetches() {
            self.schedule(at, Event::Up { from, held, same_site: true });
            self.asking.insert(at);
        }
    }

    pub(crate) fn schedule(&mut self, at: usize, event: Event) {
        let now = self.time();
        for effect in self.machines[at].scheduler.handle(event, now) {
            match effect {
                Effect::Cancel { from, chunk } => {
                    let holder = self.holder(&from);
                    self.post.send(self.now + self.delay(holder), Message::Cancel { holder, by: at, chunk });
                }
                Effect::Reset { from } => {
                    let holder = self.holder(&from);
                    self.cut(at, holder);
                    self.drop_request(holder, at, None);
                    self.redial.insert((at, holder));
                    self.machines[at].covered = self.machines[at].held.clone();
                    self.asking.insert(at);
                }
                Effect::Quarantined { .. } | Effect::Hollow { .. } => {}
            }
        }
    }

    /// Requests go out.
    pub(crate) fn ask(&mut self) {
        let now = self.time();
        for at in std::mem::take(&mut self.asking) {
            if !self.machines[at].fetches() {
                continue;
            }
            while let Some(request) = self.machines[at].scheduler.next_request(now) {
                let machine = &mut self.machines[at];
                assert!(machine.scheduler.in_flight() <= machine.parallel);
                machine.covered.insert(request.chunk);
                let holder = self.holder(&request.from);
                let number = if let Holder::Machine(number) = holder { number } else { 0xFFFF };
                let mark = (at as u64) << 48 | (number as u64) << 32 | u64::from(request.chunk.0);
                self.trace = SplitMix64::new(self.trace ^ mark).next_u64();
                let ask = Message::Ask { holder, by: at, chunk: request.chunk };
                self.post.send(self.now + self.delay(holder), ask);
            }
        }
    }

    pub(crate) fn asked(&mut self, holder: Holder, by: usize, chunk: ChunkIndex) {
        match holder {
            Holder::Server => self.office.asked(self.machines[by].spec.site, by, chunk),
            Holder::Machine(holder) => {
                self.machines[holder].queue.push_back((by, chunk));
                self.sending.insert(holder);
            }
        }
    }

    /// Takes back what `by` asked for at `holder`: one chunk or all.
    pub(crate) fn drop_request(&mut self, holder: Holder, by: usize, chunk: Option<ChunkIndex>) {
        let other =
            |entry: &(usize, ChunkIndex)| entry.0 != by || chunk.is_some_and(|chunk| chunk != entry.1);
        match holder {
            Holder::Server => self.office.retain(self.machines[by].spec.site, other),
            Holder::Machine(holder) => self.machines[holder].queue.retain(other),
        }
    }

    pub(crate) fn unavailable(&mut self, holder: Holder, to: usize, chunk: ChunkIndex) {
        let from = self.key_of(holder);
        self.machines[to].covered.remove(chunk);
        self.schedule(to, Event::Unavailable { from, chunk });
        self.asking.insert(to);
    }

    /// Flows begin where there is a free slot.
    pub(crate) fn serve_peers(&mut self, from: usize) {
        let holder = Holder::Machine(from);
        while self.machines[from].uploading.len() < self.machines[from].at_once() {
            let Some((to, chunk)) = self.next_turn(from) else { break };
            let machine = &mut self.machines[from];
            if machine.held.contains(chunk) {
                machine.uploading.push(to);
                self.lines.begin(holder, to, chunk);
                self.coming_changes(to);
            } else {
                let answer = Message::Unavailable { holder, to, chunk };
                self.post.send(self.now + self.delay(holder), answer);
            }
        }
    }

    /// Whose turn it is at `from`, taken off its queue.
    fn next_turn(&mut self, from: usize) -> Option<(usize, ChunkIndex)> {
        let machine = &self.machines[from];
        // A puller's stream carries one chunk at a time.
        let waits = |(_, (to, _)): &(usize, &(usize, ChunkIndex))| !machine.uploading.contains(to);
        let waiting: Vec<(usize, usize)> =
            machine.queue.iter().enumerate().filter(waits).map(|(place, (to, _))| (place, *to)).collect();
        let turn = slots::next(waiting.iter().map(|(_, to)| self.machines[*to].coming))?;
        self.machines[from].queue.remove(waiting[turn].0)
    }

    /// A chunk begins or ends its way to `to`.
    pub(crate) fn coming_changes(&mut self, to: usize) {
        let machine = &mut self.machines[to];
        if !std::mem::replace(&mut machine.counting, true) {
            self.post.send(self.now.max(machine.next_count), Message::Count { of: to });
        }
    }

    pub(crate) fn count_coming(&mut self, of: usize) {
        let coming = self.lines.flows().iter().filter(|flow| flow.to == of).count();
        let machine = &mut self.machines[of];
        machine.counting = false;
        machine.next_count = self.now + NEWS;
        let chunks = u32::try_from(coming).unwrap_or(u32::MAX);
        self.post.send(self.now + self.delay(Holder::Machine(of)), Message::Coming { to: of, chunks });
    }

    pub(crate) fn landed(&mut self, from: Holder, to: usize, chunk: ChunkIndex) {
        let (now, sender) = (self.time(), self.key_of(from));
        self.asking.insert(to);
        // It was asked for twice, or of somebody who is asked nothing more.
        if !self.machines[to].scheduler.arrived(sender, chunk, now) {
            self.duplicates += u64::from(CHUNK_BYTES);
            return;
        }
        if matches!(from, Holder::Machine(from) if self.machines[from].lies()) {
            self.machines[to].covered.remove(chunk);
            self.schedule(to, Event::Corrupt { from: sender, chunk });
            self.inject(inject::Event::Corrupt { by: self.machines[to].key, from: sender });
            return;
        }
        self.schedule(to, Event::Verified { chunk });
        let machine = &mut self.machines[to];
        machine.held.insert(chunk);
        machine.right.insert(chunk);
        machine.covered.insert(chunk);
        if machine.scheduler.complete() && machine.done.is_none() {
            machine.done = Some(self.now);
        }
        if machine.news.is_empty() {
            self.post.send(self.now.max(machine.next_news), Message::Gather { of: to });
        }
        if machine.report.is_empty() {
            let next = ((self.now / REPORT).floor() + 1.0) * REPORT;
            self.post.send(next, Message::Report { of: to });
        }
        machine.news.push(chunk);
        machine.report.push(chunk);
    }

    pub(crate) fn gathered(&mut self, of: usize) {
        let machine = &mut self.machines[of];
        machine.next_news = self.now + NEWS;
        let chunks = std::mem::take(&mut machine.news);
        self.post.send(self.now + self.delay(Holder::Machine(of)), Message::Have { from: of, chunks });
    }

    pub(crate) fn have(&mut self, from: usize, chunks: &[ChunkIndex]) {
        let neighbours = std::mem::take(&mut self.machines[from].neighbours);
        for &to in &neighbours {
            let machine = &self.machines[to];
            if !machine.fetches() {
                continue;
            }
            if chunks.iter().any(|chunk| !machine.covered.contains(*chunk)) {
                self.asking.insert(to);
            }
            self.schedule(to, Event::Have { from: self.machines[from].key, chunks: chunks.to_vec() });
        }
        self.machines[from].neighbours = neighbours;
    }

    pub(crate) fn reported(&mut self, of: usize) {
        let chunks = std::mem::take(&mut self.machines[of].report);
        self.post.send(self.now + self.delay(Holder::Server), Message::Told { from: of, chunks });
    }

    pub(crate) fn leased(&mut self, to: usize, chunks: Vec<ChunkIndex>) {
        self.schedule(to, Event::Leased(chunks));
        self.asking.insert(to);
    }

    pub(crate) fn spare(&mut self, to: usize, spared: BTreeSet<PublicKey>) {
        self.machines[to].covered = self.machines[to].held.clone();
        self.machines[to].spared = spared.contains(&self.machines[to].key);
        self.schedule(to, Event::Spare(spared));
        self.asking.insert(to);
    }

    pub(crate) fn revoked(&mut self, to: usize, chunks: Vec<ChunkIndex>) {
        self.schedule(to, Event::Revoked(chunks));
    }
}
