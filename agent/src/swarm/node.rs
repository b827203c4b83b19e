//! The agent's node: one task owns the libp2p swarm, the streams and the chunks' bytes; the tasks of the streams talk
//! to it over bounded channels and end with it. Carries out what `session` decides, and tells the session what became
//! of that. Chunks are verified on blocking threads.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use common::chunk::ChunkIndex;
use common::id::{Hash, ImageId};
use common::manifest::Manifest;
use common::step::Sources;
use common::swarm::behaviour::{Mesh, MeshEvent, Protocol, build, listen, peer_id, public_key};
use common::swarm::frame::BadStream;
use common::swarm::serve::{Frame, Outlet, serve};
use common::swarm::slots::Slots;
use common::trust::PublicKey;
use common::wire::swarm::{Form, FromPuller, ToServer};
use futures::StreamExt as _;
use libp2p::swarm::{ConnectionId, SwarmEvent as NetworkEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::client::{Command, SwarmClient, SwarmConfig, SwarmEnds, SwarmError};
use super::coming::Coming;
use super::control;
use super::deltas::{DeltaBases, request_for};
use super::event::SwarmEvent;
use super::processor::processor_time;
use super::pull::{self, Holder};
use super::session::{Backlog, Dial, Effect, Event, Load, Pulled, Session, TICK};
use super::store::Store;
use super::verify::{NotTheChunk, VerifiedChunk, verify};
use crate::boot_files::{BootFiles, changed};

/// Events that may wait for a busy step before the oldest is dropped.
const EVENTS_WAITING_MAX: usize = 4096;

impl SwarmClient {
    /// Listens, dials the server, and starts a task that fetches every missing chunk once the server opens the gate.
    ///
    /// # Errors
    /// When the address cannot be listened on or the plan's seed cannot be used. A server that does not
    /// answer is no error: it is dialled again and again.
    pub async fn start(config: SwarmConfig) -> Result<(Self, SwarmEnds), SwarmError> {
        let mut swarm = build(&config.keypair, Some(&config.seed.key))?;
        let seed_addresses: Vec<Multiaddr> =
            config.seed.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        if seed_addresses.is_empty() {
            return Err(SwarmError::Seed);
        }
        let admitted = config.admitted.iter().filter_map(|key| peer_id(key).ok()).collect();
        swarm.behaviour_mut().allow(admitted);
        let listening = listen(&mut swarm, &config.listen).await?;
        let (commands, commands_out) = mpsc::channel(64);
        let (chunks_in, chunks) = mpsc::channel(config.tuning.write_backlog.max(1) as usize);
        let (events_in, events) = mpsc::channel(64);
        let sources = Arc::new(Mutex::new(Sources::default()));
        let cancel = CancellationToken::new();

        let session = Session::new(config.session(seed_addresses, &listening, chunks_in.max_capacity()));
        let store = Store::new(
            config.image,
            config.manifest.len(),
            config.tuning.cache_bytes,
            Arc::clone(&config.disk),
        );
        let (pulls_in, pulls_out) = mpsc::channel(256);
        let (control_in, control_out) = mpsc::channel(64);
        let mut node = Node {
            session,
            seed: config.seed.key,
            image: config.image,
            manifest: config.manifest,
            deltas: config.deltas,
            store: Arc::new(store),
            keep_wire: config.keep_wire,
            slots: Slots::new(config.tuning.upload_parallel as usize),
            coming: Arc::default(),
            swarm,
            dials: HashMap::new(),
            connections: BTreeMap::new(),
            streams: BTreeMap::new(),
            pulls_in,
            control_in,
            tasks: JoinSet::new(),
            serving: JoinSet::new(),
            pullers: HashMap::new(),
            checks: JoinSet::new(),
            chunks: Some(chunks_in),
            ready: VecDeque::new(),
            events: events_in,
            told: VecDeque::new(),
            sources: Arc::clone(&sources),
            boot_files: config.boot_files,
            began: Instant::now(),
        };
        node.decide(Event::OnDisk(config.held.iter().collect()));
        let task = tokio::spawn(node.run(commands_out, pulls_out, control_out, cancel.clone()));
        Ok((Self { commands, sources, cancel, task }, SwarmEnds { chunks, events }))
    }
}

/// The sender of messages to the task of a stream that this agent dialled.
enum Stream {
    Pull(mpsc::Sender<FromPuller>),
    Control(mpsc::Sender<ToServer>),
}

/// The result of checking one chunk.
struct Checked {
    from: PublicKey,
    chunk: ChunkIndex,
    frame: Frame,
    result: Result<VerifiedChunk, NotTheChunk>,
}

/// The bytes of the chunk that an event is about: the session itself is given only its number.
enum InHand {
    Arrived(Form, Vec<u8>),
    Verified(Frame, VerifiedChunk),
}

struct Node {
    session: Session,
    seed: PublicKey,
    image: ImageId,
    manifest: Arc<Manifest>,
    deltas: Option<Arc<dyn DeltaBases>>,
    store: Arc<Store>,
    /// Whether chunks are handed over with the wire form that they came in.
    keep_wire: bool,
    slots: Slots,
    /// Counts chunks that are arriving, over all pull streams.
    coming: Arc<Coming>,
    swarm: Swarm<Mesh>,
    /// The dial of each connection that this agent dialled; `connections` has them the other way round.
    dials: HashMap<ConnectionId, Dial>,
    connections: BTreeMap<Dial, (PeerId, ConnectionId)>,
    streams: BTreeMap<Dial, Stream>,
    pulls_in: mpsc::Sender<pull::Inbound>,
    control_in: mpsc::Sender<control::Inbound>,
    tasks: JoinSet<()>,
    /// Tasks that serve a puller. Each ends with the puller's key and the fault, if the puller broke the protocol.
    serving: JoinSet<Option<(PublicKey, BadStream)>>,
    pullers: HashMap<PublicKey, AbortHandle>,
    checks: JoinSet<Checked>,
    /// Where verified chunks go to be written; none once every chunk has been handed over.
    chunks: Option<mpsc::Sender<VerifiedChunk>>,
    ready: VecDeque<VerifiedChunk>,
    events: mpsc::Sender<SwarmEvent>,
    told: VecDeque<SwarmEvent>,
    sources: Arc<Mutex<Sources>>,
    boot_files: Option<BootFiles>,
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
        let mut small = self.boot_files.as_ref().map(BootFiles::held);
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
                    if let Ok(Some((key, ended))) = served {
                        self.decide(Event::BadPuller { key, cause: ended.to_string() });
                    }
                }
                command = commands.recv(), if commanded => match command {
                    Some(command) => self.command(command),
                    None => commanded = false,
                },
                permit = room, if !self.ready.is_empty() => match (permit, self.ready.pop_front()) {
                    (Some(permit), Some(chunk)) => permit.send(chunk),
                    // The receiver is dropped: no chunk is written any more, but the node goes on serving.
                    _ => self.ready.clear(),
                },
                permit = events.reserve(), if !self.told.is_empty() => {
                    match (permit, self.told.pop_front()) {
                        (Ok(permit), Some(event)) => permit.send(event),
                        _ => self.told.clear(),
                    }
                }
                Some(objects) = changed(&mut small) => self.holding(objects),
                _ = tick.tick() => self.tick(),
            }
            self.look_at_backlog();
        }
        self.checks.shutdown().await;
        self.tasks.shutdown().await;
        self.serving.shutdown().await;
    }

    fn tell(&mut self, event: SwarmEvent) {
        if self.told.len() >= EVENTS_WAITING_MAX {
            self.told.pop_front();
        }
        self.told.push_back(event);
    }

    fn decide(&mut self, event: Event) {
        self.decide_on(event, None);
    }

    /// Gives the session an event, carries out its effects, and gives it the events that failed effects make.
    fn decide_on(&mut self, event: Event, mut chunk: Option<InHand>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.session.handle(event, self.began.elapsed()) {
                events.extend(self.carry_out(effect, &mut chunk));
            }
        }
        *self.sources.lock() = *self.session.sources();
    }

    /// Carries out one effect. The event that follows from it at once, if any: a failed dial, or a full queue.
    fn carry_out(&mut self, effect: Effect, in_hand: &mut Option<InHand>) -> Option<Event> {
        match effect {
            Effect::Dial { dial, to, protocol, addresses } => {
                return self.dial(dial, to, protocol, addresses);
            }
            Effect::Close(dial) => {
                self.streams.remove(&dial);
                if let Some((peer, connection)) = self.connections.remove(&dial) {
                    self.dials.remove(&connection);
                    self.swarm.behaviour_mut().close(peer, connection);
                }
            }
            Effect::Ask { dial, chunk } => {
                let request = request_for(chunk, self.deltas.as_deref());
                if !self.ask(dial, request) {
                    return Some(Event::NotAsked(dial));
                }
            }
            Effect::Cancel { dial, chunk } => {
                self.ask(dial, FromPuller::Cancel { chunk });
            }
            Effect::Say { dial, word } => return self.say(dial, word),
            Effect::Allow(list) => {
                let list: HashSet<PeerId> = list.iter().filter_map(|key| peer_id(key).ok()).collect();
                self.swarm.behaviour_mut().allow(list);
            }
            Effect::Slots(most) => self.slots.allow(most),
            Effect::Check { from, chunk } => {
                if let Some(InHand::Arrived(form, bytes)) = in_hand.take() {
                    self.check(from, chunk, form, bytes);
                }
            }
            Effect::Keep(chunk) => {
                if let Some(InHand::Verified(frame, verified)) = in_hand.take() {
                    let verified = if self.keep_wire { verified.with(frame.clone()) } else { verified };
                    self.store.put(chunk, frame, verified.weak());
                    self.ready.push_back(verified);
                }
            }
            Effect::Offer(chunks) => {
                for chunk in chunks {
                    self.store.on_disk(chunk);
                }
            }
            Effect::Hold(hold) => {
                if let Some(boot_files) = &self.boot_files {
                    boot_files.order(hold);
                }
            }
            Effect::EndChunks => self.chunks = None,
            Effect::Tell(event) => self.tell(event),
        }
        None
    }

    fn dial(
        &mut self,
        dial: Dial,
        to: PublicKey,
        protocol: Protocol,
        addresses: Vec<Multiaddr>,
    ) -> Option<Event> {
        let Ok(peer) = peer_id(&to) else {
            return Some(Event::Failed { dial, cause: "its key is none of libp2p's".to_owned() });
        };
        let connection = self.swarm.behaviour_mut().dial(peer, addresses, protocol);
        self.dials.insert(connection, dial);
        self.connections.insert(dial, (peer, connection));
        None
    }

    /// False if the stream's queue is full or the stream is gone.
    fn ask(&self, dial: Dial, word: FromPuller) -> bool {
        matches!(self.streams.get(&dial), Some(Stream::Pull(requests)) if requests.try_send(word).is_ok())
    }

    fn say(&self, dial: Dial, word: ToServer) -> Option<Event> {
        let Some(Stream::Control(words)) = self.streams.get(&dial) else { return None };
        match words.try_send(word).map_err(mpsc::error::TrySendError::into_inner) {
            Err(ToServer::Have { chunks }) => Some(Event::NotSaid(chunks)),
            _ => None,
        }
    }

    fn network(&mut self, event: NetworkEvent<MeshEvent>) {
        match event {
            NetworkEvent::Behaviour(MeshEvent::Opened { peer, connection, protocol, stream }) => {
                match self.dials.get(&connection).copied().filter(|dial| self.session.awaits(*dial)) {
                    Some(dial) => self.opened(dial, &peer, protocol, stream),
                    None => self.swarm.behaviour_mut().close(peer, connection),
                }
            }
            NetworkEvent::Behaviour(MeshEvent::Accepted {
                peer, protocol: Protocol::Pull, stream, ..
            }) => self.serve(&peer, stream),
            NetworkEvent::Behaviour(MeshEvent::Refused { connection, .. }) => {
                self.failed(connection, "it does not speak this protocol".to_owned());
            }
            NetworkEvent::ConnectionClosed { connection_id, cause, .. } => {
                let cause = cause.map_or_else(|| "it closed the line".to_owned(), |cause| cause.to_string());
                self.failed(connection_id, cause);
            }
            NetworkEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.failed(connection_id, error.to_string());
            }
            NetworkEvent::ListenerClosed { reason: Err(error), .. } => {
                self.decide(Event::Deaf { cause: error.to_string() });
            }
            _ => {}
        }
    }

    fn failed(&mut self, connection: ConnectionId, cause: String) {
        if let Some(dial) = self.dials.remove(&connection) {
            self.connections.remove(&dial);
            self.streams.remove(&dial);
            self.decide(Event::Failed { dial, cause });
        }
    }

    /// Serves a peer that opened a pull stream to this agent.
    fn serve(&mut self, peer: &PeerId, stream: libp2p::Stream) {
        let Some(key) = public_key(peer) else { return };
        let (store, slots) = (Arc::clone(&self.store), self.slots.clone());
        let outlet = Outlet { slots, lines: vec![] };
        let served = self.serving.spawn(async move {
            let ended = serve(stream, key, store, outlet).await.err()?;
            tracing::debug!(puller = %key.short(), %ended, "pull stream ended");
            ended.breaks_the_protocol().then_some((key, ended))
        });
        // One stream for each puller: several would get several slots. A broken connection's old one looks alive.
        self.pullers.retain(|_, old| !old.is_finished());
        if let Some(old) = self.pullers.insert(key, served) {
            old.abort();
        }
    }

    fn opened(&mut self, dial: Dial, peer: &PeerId, protocol: Protocol, stream: libp2p::Stream) {
        let Some(key) = public_key(peer) else { return };
        if protocol == Protocol::Pull {
            let (requests, out) = mpsc::channel(pull::REQUESTS_MAX);
            let coming = Arc::clone(&self.coming);
            let holder = Holder { key, dial, seed: key == self.seed };
            let image = (self.image, self.manifest.len());
            self.tasks.spawn(pull::run(stream, holder, image, out, self.pulls_in.clone(), coming));
            self.streams.insert(dial, Stream::Pull(requests));
        } else {
            let (words, out) = mpsc::channel(control::WAITING_MAX);
            self.tasks.spawn(control::run(stream, dial, out, self.control_in.clone()));
            self.streams.insert(dial, Stream::Control(words));
        }
        self.decide(Event::Opened(dial));
    }

    fn pulled(&mut self, inbound: pull::Inbound) {
        let pull::Inbound { from, dial, word } = inbound;
        let (word, chunk) = match word {
            pull::Word::Up(held) => (Pulled::Holding(held), None),
            pull::Word::Have(chunks) => (Pulled::Have(chunks), None),
            pull::Word::Moved => (Pulled::Moved, None),
            pull::Word::Unavailable(chunk) => (Pulled::Unavailable(chunk), None),
            pull::Word::Chunk { chunk, form, bytes } => {
                let word = Pulled::Arrived { chunk, bytes: bytes.len() as u64 };
                (word, Some(InHand::Arrived(form, bytes)))
            }
            pull::Word::Ended { cause, broken } => (Pulled::Ended { cause, broken }, None),
        };
        self.decide_on(Event::Pulled { from, dial, word }, chunk);
    }

    fn controlled(&mut self, inbound: control::Inbound) {
        let control::Inbound { dial, word } = inbound;
        match word {
            control::Word::Message(word) => self.decide(Event::Server { dial, word }),
            control::Word::Ended(cause) => {
                self.streams.remove(&dial);
                self.decide(Event::Failed { dial, cause });
            }
        }
    }

    fn check(&mut self, from: PublicKey, chunk: ChunkIndex, form: Form, bytes: Vec<u8>) {
        let (manifest, deltas) = (Arc::clone(&self.manifest), self.deltas.clone());
        self.checks.spawn_blocking(move || {
            let bytes = Arc::new(bytes);
            let result = verify(&manifest, chunk, form, &bytes, deltas.as_deref());
            Checked { from, chunk, frame: Frame { form, bytes }, result }
        });
    }

    fn checked(&mut self, checked: Result<Checked, JoinError>) {
        match checked {
            Ok(Checked { from, chunk, frame, result: Ok(verified) }) => {
                let event = Event::Verified { from, chunk, bytes: frame.bytes.len() as u64 };
                self.decide_on(event, Some(InHand::Verified(frame, verified)));
            }
            Ok(Checked { from, chunk, frame: _, result: Err(wrong) }) => {
                self.decide(Event::Wrong { from, chunk, wrong });
            }
            Err(_) => self.decide(Event::Unchecked),
        }
    }

    fn holding(&mut self, objects: Vec<Hash>) {
        if let Some(port) = self.boot_files.as_ref().map(BootFiles::port) {
            self.decide(Event::Holding { port, objects });
        }
    }

    fn command(&mut self, command: Command) {
        self.decide(match command {
            Command::Held(chunks) => Event::OnDisk(chunks),
            Command::Sealed => Event::Sealed,
        });
    }

    fn tick(&mut self) {
        let (uploaded, sending) = (self.store.uploaded(), self.slots.busy());
        self.look_at_backlog();
        self.decide(Event::Tick(Load { uploaded, sending, cpu: processor_time() }));
    }

    /// The writer takes chunks out of the channel without telling this task, so its length is compared.
    fn look_at_backlog(&mut self) {
        let queued = self.chunks.as_ref().map_or(0, |chunks| chunks.max_capacity() - chunks.capacity());
        let backlog = Backlog { unhanded: self.ready.len(), queued };
        if backlog != self.session.backlog() {
            self.decide(Event::Backlog(backlog));
        }
    }
}
