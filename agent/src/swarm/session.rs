//! Core: one agent's part in the swarm of its image. Owns what it knows of the server and of its neighbours, and
//! decides whom to dial and when to retry, which chunk to request from whom, which neighbour to blame, what to tell the
//! server, the steps and the log, and when to give up or to stop serving. Touches `common`, `event` and `verify`. Time
//! is an argument (since the session began), random numbers come from a seed, and the bytes of chunks stay with the
//! caller: `node` over libp2p, `tests/sim` over simulated links.

// Events that it is given, and effects that it asks for.
mod event;

// Connections: whom to dial, and the back-off after a failure.
mod links;

// The next chunk to request, and from whom.
mod schedule;

// What fetching waits for, and the counts of the next speed report.
mod report;
mod waits;

// Handling of events, and what follows from the passing of time.
mod hear;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::Multiaddr;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{Hash, ImageId};
use common::step::Sources;
use common::swarm::behaviour::Protocol;
use common::trust::PublicKey;
use common::wire::swarm::{Member, Neighbour, ToServer};

use super::event::SwarmEvent;
use links::{Links, Target};
use report::Report;
use schedule::Scheduler;
use waits::Waits;

pub use event::{Backlog, Effect, Event, Load, Pulled};
pub use links::Dial;

/// How often a session is given [`Event::Tick`].
pub const TICK: Duration = Duration::from_millis(50);

/// Failed dials in a row after which the log says that a neighbour cannot be reached; the first ones only mean that
/// the neighbour has not been told of this agent yet.
const UNREACHABLE_AFTER: u32 = 5;

/// The machine, its image and its bounds, fixed for the life of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The machine's boot key, made anew at each boot.
    pub own: PublicKey,
    /// The server's key: only the server gives leases, and it is never blamed.
    pub seed: PublicKey,
    /// The server's listen addresses, from the plan.
    pub seed_addresses: Vec<Multiaddr>,
    /// This agent's listen addresses, as multiaddrs: the server passes them on to neighbours.
    pub listening: Vec<String>,
    /// The job, by which the server knows the machine, or that this is a relay; sent in the hello.
    pub member: Member,
    /// The image that this agent fetches; sent in the hello.
    pub image: ImageId,
    /// The image's chunks that have to be fetched: all but zeros and repetitions of an earlier chunk.
    pub wanted: ChunkSet,
    /// Those that it can take as deltas; sent in the hello. Of length 0 when there are none.
    pub deltas: ChunkSet,
    /// The most chunks requested or being checked at once, at least one.
    pub fetch_parallel: usize,
    /// The most chunks sent to peers at once; one while this agent is spared.
    pub upload_parallel: usize,
    /// Chunks that may wait for the disk before fetching pauses, at least one.
    pub write_backlog: usize,
    /// How many processors the machine has.
    pub cores: u32,
    /// Seed of the random choices, so that two agents choose and wait differently.
    pub rng_seed: u64,
}

/// One agent's part in the swarm: its state, driven by [`Session::handle`].
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    scheduler: Scheduler,
    links: Links,
    /// The dial of the open control stream; none while the server is not connected.
    control: Option<Dial>,
    /// The peers that this agent may connect to, by the server's last list.
    neighbours: BTreeMap<PublicKey, Neighbour>,
    /// Neighbours about which the log has a complaint already.
    blamed: BTreeSet<PublicKey>,
    /// Chunks held since the last `Have` or hello to the server.
    news: Vec<ChunkIndex>,
    backlog: Backlog,
    waits: Waits,
    sources: Sources,
    report: Report,
    load: Load,
    /// The port at which this machine gives out small files, and which; none if it does not.
    holding: Option<(u16, Vec<Hash>)>,
    welcomed: bool,
    started: bool,
    complete: bool,
    sealed: bool,
    released: bool,
    broken: bool,
    /// Whether the server spares this agent: its peers request only chunks from it that no other holds.
    spared: bool,
    /// Whether the log has been told that a delta could not be decoded.
    undecoded: bool,
    /// Whether the log has been told that the server is gone.
    server_lost: bool,
    /// How many chunks from the server failed their hash.
    server_wrong: u32,
    /// How often the server wants to hear of progress.
    pace: Duration,
    /// When a message of the server or a verified chunk from anywhere last came.
    heard: Duration,
    server_heard: Duration,
    uploaded_at: Duration,
    /// The time of the last tick.
    ticked: Duration,
    effects: Vec<Effect>,
}

impl Session {
    /// A session at the time zero; its first tick dials the server.
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
            holding: None,
            welcomed: false,
            started: false,
            complete: false,
            sealed: false,
            released: false,
            broken: false,
            spared: false,
            undecoded: false,
            server_lost: false,
            server_wrong: 0,
            pace: report::EVERY,
            heard: Duration::ZERO,
            server_heard: Duration::ZERO,
            uploaded_at: Duration::ZERO,
            ticked: Duration::ZERO,
            effects: Vec::new(),
        }
    }

    /// Takes in what happened, and returns what is to be done, in this order.
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
            Event::Holding { port, objects } => {
                self.holding = Some((port, objects));
                self.say_holding();
            }
            Event::Tick(load) => self.tick(load, now),
        }
        self.ask(now);
        self.finish(now);
        std::mem::take(&mut self.effects)
    }

    /// Whether a stream for `dial` is still wanted and not open yet.
    #[must_use]
    pub fn awaits(&self, dial: Dial) -> bool {
        self.links.awaited(dial).is_some()
    }

    /// The chunks that can be served to peers: verified, or found on the disk.
    #[must_use]
    pub fn held(&self) -> &ChunkSet {
        self.scheduler.held()
    }

    /// Open requests, counting a chunk requested twice as two, and chunks being checked.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.scheduler.in_flight()
    }

    /// Verified chunks that are not written yet, as last told by [`Event::Backlog`].
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        self.backlog
    }

    /// Where the bytes came from so far, and the time spent waiting for network, disk and processor.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    fn note(&mut self, text: String) {
        self.effects.push(Effect::Tell(SwarmEvent::Note(text)));
    }

    /// Sends `word` to the server, if its control stream is open; drops it otherwise.
    fn say(&mut self, word: ToServer) {
        self.effects.extend(self.control.map(|dial| Effect::Say { dial, word }));
    }

    fn name(&self, key: &PublicKey) -> String {
        if *key == self.config.seed {
            return "the server".to_owned();
        }
        self.neighbours.get(key).map_or_else(|| key.short(), |neighbour| neighbour.name.clone())
    }

    /// Tells the log, once for each neighbour, what is wrong with it. Never blames the server.
    fn blame(&mut self, key: PublicKey, why: &str) {
        if key != self.config.seed && self.blamed.insert(key) {
            self.note(format!("{} {why}", self.name(&key)));
        }
    }

    /// Ends the fetching for good: tells the steps the cause, once.
    fn give_up(&mut self, cause: String) {
        if !std::mem::replace(&mut self.broken, true) {
            self.effects.push(Effect::Tell(SwarmEvent::Broken(cause)));
        }
    }

    fn opened(&mut self, dial: Dial) {
        // A pull stream is used only from the holder's first message on.
        if self.links.opened(dial).is_none_or(|(_, protocol)| protocol == Protocol::Pull) {
            return;
        }
        self.control = Some(dial);
        // The hello lists all chunks that are held.
        self.news.clear();
        self.say(ToServer::Hello {
            member: self.config.member,
            image: self.config.image,
            addresses: self.config.listening.clone(),
            held: self.scheduler.held().clone(),
            started: self.started,
            deltas: self.config.deltas.clone(),
        });
        // A server that was restarted has forgotten who sent wrong chunks.
        let accused: Vec<(PublicKey, ChunkIndex)> = self.scheduler.accused().collect();
        for (neighbour, chunk) in accused {
            self.say(ToServer::Corrupt { neighbour, chunk });
        }
        if self.sealed {
            self.say(ToServer::Sealed);
        }
    }

    /// A connection that this agent dialled has ended, or the dial failed.
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

    /// Closes the connection of `dial`; its target is dialled again later.
    fn hang_up(&mut self, dial: Dial, cause: &str, now: Duration) {
        self.effects.push(Effect::Close(dial));
        self.failed(dial, cause, now);
    }

    /// Forgets `target` and closes its connection: it is not dialled again.
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

    /// Sends every request that the scheduler allows now.
    fn ask(&mut self, now: Duration) {
        // A slow disk pauses fetching, and never serving.
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

    /// Whether as many chunks wait for the disk as `write_backlog` allows.
    fn disk_is_behind(&self) -> bool {
        self.backlog.unhanded + self.backlog.queued >= self.config.write_backlog
    }

    /// Once every chunk is here and handed over: says so, ends the channel of chunks, and closes the pull connections.
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
