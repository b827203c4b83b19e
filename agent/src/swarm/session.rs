//! Core: one agent's part in the swarm of its image. Owns what it knows of the server and of its neighbours, and all
//! that it decides: whom to dial and when again, what to ask of whom, whom to blame, what to tell the server, the steps
//! and the log, when to despair and when to let itself go. Touches `common` and the words of `event` and `verify`. Time
//! is an argument (since the session began), chance comes from a seed, and the bytes of chunks stay with whoever drives
//! it: `node` over libp2p, `tests/sim` over simulated lines.

// What it hears, and what is to be done.
mod event;

// Whom to dial, and when again.
mod links;

// Which chunk from whom, now.
mod schedule;

// What fetching waits for, and what else the server hears of the line.
mod report;
mod waits;

// What is made of what others say, and what is said to them as time passes.
mod hear;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::Multiaddr;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{ImageId, JobId};
use common::step::Sources;
use common::swarm::behaviour::Protocol;
use common::trust::PublicKey;
use common::wire::swarm::{Neighbour, ToServer};

use super::event::SwarmEvent;
use links::{Links, Target};
use report::Report;
use schedule::Scheduler;
use waits::Waits;

pub use event::{Backlog, Effect, Event, Load, Pulled};
pub use links::Dial;

/// How often a session is to hear that time has passed.
pub const TICK: Duration = Duration::from_millis(50);

/// After so many failures in a row the log hears that a neighbour cannot be reached; the first ones only mean that it
/// has not heard of this agent yet.
const UNREACHABLE_AFTER: u32 = 5;

/// What a session begins with.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// This machine's key of this boot.
    pub own: PublicKey,
    /// The server's key: who has it alone gives leases, and is never blamed.
    pub seed: PublicKey,
    /// Where the server listens.
    pub seed_addresses: Vec<Multiaddr>,
    /// Where this agent listens, as multiaddrs: neighbours hear it from the server.
    pub listening: Vec<String>,
    /// What the server knows the machine by, in the hello.
    pub job: JobId,
    /// What the server is told that it takes.
    pub image: ImageId,
    /// The image's chunks that have to be fetched: all but zeros and repetitions.
    pub wanted: ChunkSet,
    /// Chunks that may be on their way to here or being checked at once, at least one.
    pub fetch_parallel: usize,
    /// Chunks that are sent to peers at once, as long as the server does not spare this agent.
    pub upload_parallel: usize,
    /// Chunks that may wait for the disk before the fetching pauses, at least one.
    pub write_backlog: usize,
    /// How many processors the machine has.
    pub cores: u32,
    /// Makes the ties and waits of one agent fall differently from another's.
    pub rng_seed: u64,
}

/// One agent's part in the swarm.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    scheduler: Scheduler,
    links: Links,
    /// The dial whose stream the server listens to.
    control: Option<Dial>,
    /// Who may be talked to, by the server's last word.
    neighbours: BTreeMap<PublicKey, Neighbour>,
    /// Who was called useless in the log.
    blamed: BTreeSet<PublicKey>,
    /// Chunks that the server has not been told of.
    news: Vec<ChunkIndex>,
    backlog: Backlog,
    waits: Waits,
    sources: Sources,
    report: Report,
    load: Load,
    welcomed: bool,
    started: bool,
    complete: bool,
    sealed: bool,
    released: bool,
    broken: bool,
    /// Whether its peers ask it only for what no other holds.
    spared: bool,
    /// Whether the log knows that the server is gone.
    server_lost: bool,
    /// Chunks of the server that failed their hash.
    server_wrong: u32,
    /// When the server, or a chunk from anywhere, was last heard of.
    heard: Duration,
    server_heard: Duration,
    uploaded_at: Duration,
    /// When the last tick was.
    ticked: Duration,
    effects: Vec<Effect>,
}

impl Session {
    /// Begins at the time zero: the first tick dials the server.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        let mut links = Links::new(config.rng_seed);
        let server = (config.seed, Protocol::Control);
        links.want(server, config.seed_addresses.clone(), Duration::ZERO);
        Self {
            scheduler: Scheduler::new(config.seed, &config.wanted, config.fetch_parallel, config.rng_seed),
            config,
            links,
            control: None,
            neighbours: BTreeMap::new(),
            blamed: BTreeSet::new(),
            news: Vec::new(),
            backlog: Backlog::default(),
            waits: Waits::default(),
            sources: Sources::default(),
            report: Report::default(),
            load: Load::default(),
            welcomed: false,
            started: false,
            complete: false,
            sealed: false,
            released: false,
            broken: false,
            spared: false,
            server_lost: false,
            server_wrong: 0,
            heard: Duration::ZERO,
            server_heard: Duration::ZERO,
            uploaded_at: Duration::ZERO,
            ticked: Duration::ZERO,
            effects: Vec::new(),
        }
    }

    /// Takes in what happened, and says what is to be done now, in this order.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        match event {
            Event::Opened(dial) => self.opened(dial),
            Event::Failed { dial, cause } => self.failed(dial, &cause, now),
            Event::Pulled { from, dial, word } => self.pulled(from, dial, word, now),
            Event::Server { dial, word } => self.server(dial, word, now),
            Event::NotAsked(dial) => self.hang_up(dial, "it takes no requests", now),
            Event::NotSaid(chunks) => self.not_said(chunks),
            Event::Verified { from, chunk, bytes } => self.verified(from, chunk, bytes, now),
            Event::Wrong { from, chunk, wrong } => self.wrong(from, chunk, &wrong, now),
            Event::Unchecked => self.give_up("the check of a chunk ended without a result".to_owned()),
            Event::OnDisk(chunks) => self.on_disk(&chunks, now),
            Event::Backlog(backlog) => self.backlog = backlog,
            Event::Sealed => {
                self.sealed = true;
                self.uploaded_at = now;
                self.say(ToServer::Sealed);
            }
            Event::BadPuller { key, cause } => self.blame(key, &format!("breaks the protocol: {cause}")),
            Event::Deaf { cause } => {
                self.note(format!("peers cannot reach this machine any more: {cause}"));
            }
            Event::Tick(load) => self.tick(load, now),
        }
        self.ask(now);
        self.finish(now);
        std::mem::take(&mut self.effects)
    }

    /// Whether the stream of `dial` is still wanted, and not open yet.
    #[must_use]
    pub fn awaits(&self, dial: Dial) -> bool {
        self.links.awaited(dial).is_some()
    }

    /// The chunks that can be passed on: verified, or found on the disk.
    #[must_use]
    pub fn held(&self) -> &ChunkSet {
        self.scheduler.held()
    }

    /// Requests that are out, counting a chunk asked for twice as two, and chunks being checked.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.scheduler.in_flight()
    }

    /// What is not written yet, as far as the session knows.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        self.backlog
    }

    /// Where the bytes came from so far, and what was waited for.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    fn note(&mut self, text: String) {
        self.effects.push(Effect::Tell(SwarmEvent::Note(text)));
    }

    /// Says `word` to the server, if it is there.
    fn say(&mut self, word: ToServer) {
        self.effects.extend(self.control.map(|dial| Effect::Say { dial, word }));
    }

    fn name(&self, key: &PublicKey) -> String {
        if *key == self.config.seed {
            return "the server".to_owned();
        }
        self.neighbours.get(key).map_or_else(|| key.short(), |neighbour| neighbour.name.clone())
    }

    /// Tells the log, once, that a neighbour is of no use, and why.
    fn blame(&mut self, key: PublicKey, why: &str) {
        if key != self.config.seed && self.blamed.insert(key) {
            self.note(format!("{} {why}", self.name(&key)));
        }
    }

    /// The swarm cannot go on.
    fn give_up(&mut self, cause: String) {
        if !std::mem::replace(&mut self.broken, true) {
            self.effects.push(Effect::Tell(SwarmEvent::Broken(cause)));
        }
    }

    fn opened(&mut self, dial: Dial) {
        // A pull stream counts from the other end's first word on.
        if self.links.opened(dial).is_none_or(|(_, protocol)| protocol == Protocol::Pull) {
            return;
        }
        self.control = Some(dial);
        // The hello says everything that is held.
        self.news.clear();
        self.say(ToServer::Hello {
            job: self.config.job,
            image: self.config.image,
            addresses: self.config.listening.clone(),
            held: self.scheduler.held().clone(),
            started: self.started,
        });
        // A server that was started again has forgotten who lied.
        let accused: Vec<(PublicKey, ChunkIndex)> = self.scheduler.accused().collect();
        for (neighbour, chunk) in accused {
            self.say(ToServer::Corrupt { neighbour, chunk });
        }
        if self.sealed {
            self.say(ToServer::Sealed);
        }
    }

    /// A connection that this agent dialled has ended or never came to be.
    fn failed(&mut self, dial: Dial, cause: &str, now: Duration) {
        let Some(((key, protocol), failures)) = self.links.failed(dial, now) else {
            return;
        };
        if protocol == Protocol::Control {
            self.control = None;
            if !std::mem::replace(&mut self.server_lost, true) {
                self.note(format!("the server cannot be reached, and is dialled again and again: {cause}"));
            }
            return;
        }
        self.schedule(schedule::Event::Gone { from: key }, now);
        if key != self.config.seed && failures == UNREACHABLE_AFTER {
            self.blame(key, &format!("cannot be reached: {cause}"));
        }
    }

    /// Closes what came of `dial`; its other end is dialled again later.
    fn hang_up(&mut self, dial: Dial, cause: &str, now: Duration) {
        self.effects.push(Effect::Close(dial));
        self.failed(dial, cause, now);
    }

    /// Does not want to talk to `target` any more.
    fn unlink(&mut self, target: Target, now: Duration) {
        let dial = self.links.drop(target);
        self.schedule(schedule::Event::Gone { from: target.0 }, now);
        self.effects.extend(dial.map(Effect::Close));
    }

    fn pull_stream(&self, from: PublicKey) -> Option<Dial> {
        self.links.open((from, Protocol::Pull))
    }

    fn schedule(&mut self, event: schedule::Event, now: Duration) {
        for effect in self.scheduler.handle(event, now) {
            match effect {
                schedule::Effect::Cancel { from, chunk } => {
                    let dial = self.pull_stream(from);
                    self.effects.extend(dial.map(|dial| Effect::Cancel { dial, chunk }));
                }
                schedule::Effect::Reset { from } => {
                    self.blame(from, "moves nothing, and is dialled again");
                    if let Some(dial) = self.pull_stream(from) {
                        self.hang_up(dial, "nothing moved", now);
                    }
                }
                schedule::Effect::Hollow { from } => self.blame(from, "does not send what it says it holds"),
                schedule::Effect::Quarantined { from } => {
                    self.note(format!(
                        "{} sent two wrong chunks and is asked nothing more",
                        self.name(&from)
                    ));
                }
            }
        }
    }

    /// Asks for everything that may be asked for now.
    fn ask(&mut self, now: Duration) {
        // A slow disk pauses the fetching, and never the serving.
        if !self.started || self.scheduler.complete() || self.disk_is_behind() {
            return;
        }
        while let Some(request) = self.scheduler.next_request(now) {
            match self.pull_stream(request.from) {
                Some(dial) => self.effects.push(Effect::Ask { dial, chunk: request.chunk }),
                None => self.schedule(schedule::Event::Gone { from: request.from }, now),
            }
        }
    }

    /// Whether as many chunks wait for the disk as may.
    fn disk_is_behind(&self) -> bool {
        self.backlog.unhanded + self.backlog.queued >= self.config.write_backlog
    }

    /// Says once that everything is here, and ends the chunks after the last was handed over.
    fn finish(&mut self, now: Duration) {
        if self.complete || !self.started || !self.scheduler.complete() || self.backlog.unhanded > 0 {
            return;
        }
        self.complete = true;
        self.held_up();
        self.effects.push(Effect::EndChunks);
        self.effects.push(Effect::Tell(SwarmEvent::Complete));
        for target in self.links.targets() {
            if target.1 == Protocol::Pull {
                self.unlink(target, now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
