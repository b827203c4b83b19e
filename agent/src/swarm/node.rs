//! The agent's node: one task owns the libp2p swarm, the scheduler and all that is known of the
//! neighbours; the tasks of the streams talk to it over bounded channels and end with it. Carries out what
//! the cores decide: `schedule` (which chunk from whom) and `links` (whom to dial when). Chunks are
//! verified off this task.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{ImageId, JobId};
use common::manifest::Manifest;
use common::step::Sources;
use common::swarm::behaviour::{Mesh, MeshEvent, Protocol, build, listen, peer_id, public_key};
use common::swarm::frame::BadStream;
use common::swarm::serve::{Outlet, serve};
use common::swarm::slots::Slots;
use common::trust::PublicKey;
use common::wire::swarm::{Form, FromPuller, Neighbour, ToServer};
use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent as NetworkEvent;
use libp2p::{Multiaddr, PeerId, Swarm};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::client::{Command, SwarmClient, SwarmConfig, SwarmEnds, SwarmError, SwarmEvent};
use super::coming::Coming;
use super::control;
use super::links::{Links, protocol, target};
use super::pull::{self, Holder};
use super::schedule::{Effect, Event, Scheduler};
use super::store::Store;
use super::verify::{NotTheChunk, VerifiedChunk, verify};
use super::waits::Waits;

// What the node makes of what it hears, and what it tells the server of its line.
mod hear;
mod report;

use report::Report;

/// How often the cores hear that time has passed.
const TICK: Duration = Duration::from_millis(50);

/// Without a word from the server, a peer or the disk for this long, there is nothing left to wait for.
const FORSAKEN: Duration = Duration::from_secs(600);

/// When the server is gone for so long and nobody pulled for so long, a sealed agent lets itself go.
const ORPHANED: Duration = Duration::from_secs(60);

/// Events that may wait for a busy step before the oldest is dropped.
const EVENTS_WAITING_MAX: usize = 4096;

/// See [`SwarmClient::start`].
pub(super) async fn start(config: SwarmConfig) -> Result<(SwarmClient, SwarmEnds), SwarmError> {
    let mut swarm = build(&config.keypair, Some(&config.seed.key))?;
    let seed_addresses: Vec<Multiaddr> =
        config.seed.addresses.iter().filter_map(|address| address.parse().ok()).collect();
    if seed_addresses.is_empty() {
        return Err(SwarmError::Seed);
    }
    let listening = listen(&mut swarm, &config.listen).await?;
    let own = config.keypair.public();
    let (commands, commands_out) = mpsc::channel(64);
    let (chunks_in, chunks) = mpsc::channel(config.tuning.write_backlog.max(1) as usize);
    let (events_in, events) = mpsc::channel(64);
    let sources = Arc::new(Mutex::new(Sources::default()));
    let cancel = CancellationToken::new();

    let mut wanted = ChunkSet::new(config.manifest.len());
    config.manifest.places().into_keys().for_each(|chunk| {
        wanted.insert(chunk);
    });
    let rng_seed = own.bytes().iter().fold(0u64, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte));
    let parallel = config.tuning.fetch_parallel.max(1) as usize;
    let uploads = config.tuning.upload_parallel as usize;
    let store =
        Store::new(config.image, config.manifest.len(), config.tuning.cache_bytes, Arc::clone(&config.disk));
    let (pulls_in, pulls_out) = mpsc::channel(256);
    let (control_in, control_out) = mpsc::channel(64);
    let mut node = Node {
        own,
        seed: config.seed.key,
        seed_addresses,
        job: config.job,
        image: config.image,
        manifest: config.manifest,
        listening: listening.iter().map(ToString::to_string).collect(),
        scheduler: Scheduler::new(config.seed.key, &wanted, parallel, rng_seed),
        wanted,
        links: Links::new(rng_seed),
        store: Arc::new(store),
        slots: Slots::new(uploads),
        coming: Arc::default(),
        uploads,
        swarm,
        pulls: BTreeMap::new(),
        pulls_in,
        control: None,
        control_in,
        streams: 0,
        neighbours: BTreeMap::new(),
        blamed: BTreeSet::new(),
        tasks: JoinSet::new(),
        serving: JoinSet::new(),
        pullers: HashMap::new(),
        checks: JoinSet::new(),
        chunks: Some(chunks_in),
        ready: VecDeque::new(),
        events: events_in,
        told: VecDeque::new(),
        news: Vec::new(),
        sources: Arc::clone(&sources),
        standing: Standing::default(),
        waits: Waits::default(),
        began: Instant::now(),
    };
    node.found(config.held.iter().collect());
    let server = target(node.seed, Protocol::Control);
    node.links.want(server, node.seed_addresses.clone(), Duration::ZERO);
    let task = tokio::spawn(node.run(commands_out, pulls_out, control_out, cancel.clone()));
    Ok((SwarmClient { commands, sources, cancel, task }, SwarmEnds { chunks, events }))
}

/// What happened so far, as far as it decides what is said.
#[derive(Debug, Default)]
struct Standing {
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
    reported: Duration,
    report: Report,
    uploaded: u64,
}

struct Puller {
    stream: u64,
    requests: mpsc::Sender<FromPuller>,
}

struct Checked {
    from: PublicKey,
    chunk: ChunkIndex,
    form: Form,
    bytes: Arc<Vec<u8>>,
    result: Result<VerifiedChunk, NotTheChunk>,
}

struct Node {
    own: PublicKey,
    seed: PublicKey,
    seed_addresses: Vec<Multiaddr>,
    job: JobId,
    image: ImageId,
    manifest: Arc<Manifest>,
    wanted: ChunkSet,
    listening: Vec<String>,
    scheduler: Scheduler,
    links: Links,
    store: Arc<Store>,
    slots: Slots,
    /// How many it has when this agent is not spared.
    uploads: usize,
    /// Chunks that are on their way to this agent.
    coming: Arc<Coming>,
    swarm: Swarm<Mesh>,
    pulls: BTreeMap<PublicKey, Puller>,
    pulls_in: mpsc::Sender<pull::Inbound>,
    control: Option<(u64, mpsc::Sender<ToServer>)>,
    control_in: mpsc::Sender<control::Inbound>,
    streams: u64,
    neighbours: BTreeMap<PublicKey, Neighbour>,
    /// Who was called useless in the log.
    blamed: BTreeSet<PublicKey>,
    tasks: JoinSet<()>,
    /// Pull streams that are served; each ends with who broke the protocol and how, if that ended it.
    serving: JoinSet<Option<(PublicKey, BadStream)>>,
    pullers: HashMap<PublicKey, AbortHandle>,
    checks: JoinSet<Checked>,
    /// None when every chunk has been handed over.
    chunks: Option<mpsc::Sender<VerifiedChunk>>,
    ready: VecDeque<VerifiedChunk>,
    events: mpsc::Sender<SwarmEvent>,
    told: VecDeque<SwarmEvent>,
    /// Chunks that the server has not been told of.
    news: Vec<ChunkIndex>,
    sources: Arc<Mutex<Sources>>,
    standing: Standing,
    waits: Waits,
    began: Instant,
}

impl Node {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut pulls: mpsc::Receiver<pull::Inbound>,
        mut control: mpsc::Receiver<control::Inbound>,
        cancel: CancellationToken,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut commanded = true;
        loop {
            let (chunks, events) = (self.chunks.clone(), self.events.clone());
            let room = async {
                match &chunks {
                    Some(chunks) => chunks.reserve().await.ok(),
                    None => None,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                event = self.swarm.select_next_some() => self.network(event),
                Some(inbound) = pulls.recv() => self.pulled(inbound),
                Some(inbound) = control.recv() => self.controlled(inbound),
                Some(checked) = self.checks.join_next() => self.checked(checked),
                Some(_) = self.tasks.join_next() => {}
                Some(served) = self.serving.join_next() => {
                    if let Ok(Some((puller, ended))) = served {
                        self.blame(puller, &format!("breaks the protocol: {ended}"));
                    }
                }
                command = commands.recv(), if commanded => match command {
                    Some(command) => self.command(command),
                    None => commanded = false,
                },
                permit = room, if !self.ready.is_empty() => match (permit, self.ready.pop_front()) {
                    (Some(permit), Some(chunk)) => permit.send(chunk),
                    // Nobody writes any more; the node goes on serving.
                    _ => self.ready.clear(),
                },
                permit = events.reserve(), if !self.told.is_empty() => {
                    match (permit, self.told.pop_front()) {
                        (Ok(permit), Some(event)) => permit.send(event),
                        _ => self.told.clear(),
                    }
                }
                _ = tick.tick() => self.tick(),
            }
            self.ask();
            self.finish();
        }
        self.checks.shutdown().await;
        self.tasks.shutdown().await;
        self.serving.shutdown().await;
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn tell(&mut self, event: SwarmEvent) {
        if self.told.len() >= EVENTS_WAITING_MAX {
            self.told.pop_front();
        }
        self.told.push_back(event);
    }

    fn name(&self, key: &PublicKey) -> String {
        if *key == self.seed {
            return "the server".to_owned();
        }
        self.neighbours.get(key).map_or_else(|| key.short(), |neighbour| neighbour.name.clone())
    }

    fn network(&mut self, event: NetworkEvent<MeshEvent>) {
        let now = self.now();
        match event {
            NetworkEvent::Behaviour(MeshEvent::Opened { peer, connection, protocol, stream }) => {
                let Some(key) = public_key(&peer) else { return };
                if self.links.opened(target(key, protocol), connection) {
                    self.opened(key, protocol, stream);
                } else {
                    self.swarm.behaviour_mut().close(peer, connection);
                }
            }
            NetworkEvent::Behaviour(MeshEvent::Accepted {
                peer, protocol: Protocol::Pull, stream, ..
            }) => {
                let Some(key) = public_key(&peer) else { return };
                let (store, slots) = (Arc::clone(&self.store), self.slots.clone());
                let outlet = Outlet { slots, lines: vec![] };
                let served = self.serving.spawn(async move {
                    let ended = serve(stream, key, store, outlet).await.err()?;
                    tracing::debug!(puller = %key.short(), %ended, "pull stream ended");
                    ended.breaks_the_protocol().then_some((key, ended))
                });
                // One stream each: whoever had many would have as many slots. After a cut line the old one looks alive.
                self.pullers.retain(|_, old| !old.is_finished());
                if let Some(old) = self.pullers.insert(key, served) {
                    old.abort();
                }
            }
            NetworkEvent::Behaviour(MeshEvent::Refused { connection, .. }) => {
                self.failed(connection, "it does not speak this protocol", now);
            }
            NetworkEvent::ConnectionClosed { connection_id, cause, .. } => {
                let cause = cause.map_or_else(|| "it closed the line".to_owned(), |cause| cause.to_string());
                self.failed(connection_id, &cause, now);
            }
            NetworkEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.failed(connection_id, &error.to_string(), now);
            }
            NetworkEvent::ListenerClosed { reason: Err(error), .. } => {
                self.tell(SwarmEvent::Note(format!("peers cannot reach this machine any more: {error}")));
            }
            _ => {}
        }
    }

    fn opened(&mut self, key: PublicKey, protocol: Protocol, stream: libp2p::Stream) {
        self.streams += 1;
        let number = self.streams;
        if protocol == Protocol::Pull {
            let (requests, out) = mpsc::channel(pull::REQUESTS_MAX);
            self.pulls.insert(key, Puller { stream: number, requests });
            let coming = Arc::clone(&self.coming);
            let holder = Holder { key, stream: number, seed: key == self.seed };
            let image = (self.image, self.manifest.len());
            self.tasks.spawn(pull::run(stream, holder, image, out, self.pulls_in.clone(), coming));
            return;
        }
        let (words, out) = mpsc::channel(control::WAITING_MAX);
        self.tasks.spawn(control::run(stream, number, out, self.control_in.clone()));
        let hello = ToServer::Hello {
            job: self.job,
            image: self.image,
            addresses: self.listening.clone(),
            held: self.store.held(),
            started: self.standing.started,
        };
        // The hello says everything that is held.
        self.news.clear();
        let sealed = self.standing.sealed.then_some(ToServer::Sealed);
        // A server that was started again has forgotten who lied.
        let accused = self.scheduler.accused();
        let accused = accused.map(|(neighbour, chunk)| ToServer::Corrupt { neighbour, chunk });
        for word in std::iter::once(hello).chain(accused).chain(sealed) {
            words.try_send(word).ok();
        }
        self.control = Some((number, words));
    }

    /// Says `word` to the server, if it is there. False if it was not said.
    fn say(&self, word: ToServer) -> bool {
        self.control.as_ref().is_some_and(|(_, words)| words.try_send(word).is_ok())
    }

    fn schedule(&mut self, event: Event) {
        let now = self.now();
        for effect in self.scheduler.handle(event, now) {
            match effect {
                Effect::Cancel { from, chunk } => {
                    if let Some(puller) = self.pulls.get(&from) {
                        puller.requests.try_send(FromPuller::Cancel { chunk }).ok();
                    }
                }
                Effect::Reset { from } => {
                    self.blame(from, "moves nothing, and is dialled again");
                    self.hang_up(from, "nothing moved");
                }
                Effect::Hollow { from } => self.blame(from, "does not send what it says it holds"),
                Effect::Quarantined { from } => {
                    let text =
                        format!("{} sent two wrong chunks and is asked nothing more", self.name(&from));
                    self.tell(SwarmEvent::Note(text));
                }
            }
        }
    }

    /// Closes the pull stream to `from`, to be dialled again.
    fn hang_up(&mut self, from: PublicKey, cause: &str) {
        let target = target(from, Protocol::Pull);
        let now = self.now();
        if let (Some(connection), Ok(peer)) = (self.links.connection(target), peer_id(&from)) {
            self.swarm.behaviour_mut().close(peer, connection);
            self.failed(connection, cause, now);
        }
    }

    /// Asks for everything that may be asked for now.
    fn ask(&mut self) {
        if !self.standing.started || self.scheduler.complete() {
            return;
        }
        let now = self.now();
        // A slow disk pauses the fetching, and never the serving.
        if self.disk_is_behind() {
            return;
        }
        while let Some(request) = self.scheduler.next_request(now) {
            let get = FromPuller::Get { chunk: request.chunk };
            let asked =
                self.pulls.get(&request.from).is_some_and(|puller| puller.requests.try_send(get).is_ok());
            if !asked {
                self.hang_up(request.from, "it takes no requests");
            }
        }
    }

    /// Whether as many chunks wait for the disk as may.
    fn disk_is_behind(&self) -> bool {
        let Some(chunks) = &self.chunks else { return false };
        self.ready.len() + chunks.max_capacity() - chunks.capacity() >= chunks.max_capacity()
    }

    /// Says once that everything is here, and ends the stream of chunks after the last.
    fn finish(&mut self) {
        if !self.scheduler.complete() || self.standing.complete || !self.standing.started {
            return;
        }
        if self.ready.is_empty() {
            let passed = self.now().saturating_sub(self.standing.reported);
            self.held_up(passed);
            self.standing.complete = true;
            self.chunks = None;
            self.tell(SwarmEvent::Complete);
            for target in
                self.links.targets().into_iter().filter(|target| protocol(*target) == Protocol::Pull)
            {
                self.unlink(target);
            }
        }
    }

    fn unlink(&mut self, target: super::links::Target) {
        let connection = self.links.drop(target);
        self.pulls.remove(&target.0);
        self.schedule(Event::Gone { from: target.0 });
        if let (Some(connection), Ok(peer)) = (connection, peer_id(&target.0)) {
            self.swarm.behaviour_mut().close(peer, connection);
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        self.schedule(Event::Tick);
        for (target, addresses) in self.links.due(now) {
            if let Ok(peer) = peer_id(&target.0) {
                let connection = self.swarm.behaviour_mut().dial(peer, addresses, protocol(target));
                self.links.dialled(target, connection, now);
            }
        }
        for (target, connection) in self.links.overdue(now) {
            if let Ok(peer) = peer_id(&target.0) {
                self.swarm.behaviour_mut().close(peer, connection);
            }
            self.failed(connection, "it does not answer", now);
        }
        if !self.news.is_empty() {
            let chunks = std::mem::take(&mut self.news);
            if !self.say(ToServer::Have { chunks: chunks.clone() }) && self.control.is_some() {
                self.news = chunks;
            }
        }
        self.count_uploads(now);
        if self.standing.started && !self.standing.complete {
            self.waits.fetching(TICK, self.disk_is_behind());
        }
        self.report(now);
        self.despair(now);
    }

    /// What to do when nobody is there any more.
    fn despair(&mut self, now: Duration) {
        let standing = &self.standing;
        if standing.sealed && !standing.released {
            let quiet = now >= standing.uploaded_at + ORPHANED && now >= standing.server_heard + ORPHANED;
            if quiet && self.control.is_none() {
                self.standing.released = true;
                self.tell(SwarmEvent::Note("the server is gone and nobody pulls: not lingering".to_owned()));
                self.tell(SwarmEvent::Release);
            }
        } else if !standing.complete && !standing.broken && now >= standing.heard + FORSAKEN {
            let minutes = FORSAKEN.as_secs() / 60;
            self.broken(format!("neither the server nor a peer was heard of for {minutes} minutes"));
        }
    }

    fn broken(&mut self, cause: String) {
        if !std::mem::replace(&mut self.standing.broken, true) {
            self.tell(SwarmEvent::Broken(cause));
        }
    }

    fn check(&mut self, from: PublicKey, chunk: ChunkIndex, form: Form, bytes: Vec<u8>) {
        let now = self.now();
        let len = bytes.len() as u64;
        if from == self.seed {
            self.standing.report.from_server += len;
        } else {
            self.standing.report.from_peers += len;
        }
        if !self.scheduler.arrived(from, chunk, now) {
            return;
        }
        let manifest = Arc::clone(&self.manifest);
        self.checks.spawn_blocking(move || {
            let bytes = Arc::new(bytes);
            let result = verify(&manifest, chunk, form, &bytes);
            Checked { from, chunk, form, bytes, result }
        });
    }

    fn allow(&mut self) {
        let list: HashSet<PeerId> = self.neighbours.keys().filter_map(|key| peer_id(key).ok()).collect();
        self.swarm.behaviour_mut().allow(list);
    }
}
