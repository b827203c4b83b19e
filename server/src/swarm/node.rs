//! The server's node: one task owns the libp2p swarm and every image's swarm; the tasks of the streams send to it over
//! bounded channels and end with it. Carries out the effects of `image_swarm` and decides nothing itself.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use common::id::ImageId;
use common::limits::{HELLO_EVERY, HELLOS_BURST};
use common::swarm::behaviour::{Mesh, MeshEvent, Protocol, build, listen, peer_id, public_key};
use common::swarm::manners::Budget;
use common::swarm::serve::{Outlet, serve};
use common::swarm::slots::Slots;
use common::trust::{KeyPair, PublicKey};
use common::wire::swarm::{ToAgent, ToServer};

use super::control::{self, FirstWord, Inbound, Word};
use super::counted::Counted;
use super::handle::{Admission, ChunkSource, Command, SwarmError, SwarmFact, SwarmHandle};
use super::image_swarm::{ImageSwarm, Out, TICK};
use super::inject::SENDING_PER_SITE;
use super::mend::{Mended, Mends, Outcome};
use super::reachable::{SiteNet, reachable};
use super::release::Linger;
use super::seeder::Seeder;
use crate::peers::Peers;
use crate::traffic::{Kind, SiteLine, Traffic};

// What agents are told beside chunks.
mod told;

/// Facts queued for a busy fleet before the oldest is dropped.
const FACTS_WAITING_MAX: usize = 65_536;

/// The interval at which it is looked at how often agents are to report.
const PACE_EVERY: Duration = Duration::from_secs(2);

/// A node that listens on its address and does not run yet.
pub struct Bound {
    handle: SwarmHandle,
    commands: mpsc::Receiver<Command>,
    node: Node,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Listens on `address`, a multiaddr such as `/ip4/0.0.0.0/tcp/4001`. What happens in the swarm is sent to `facts`.
///
/// # Errors
/// When the libp2p node cannot be built, or the address cannot be listened on.
pub async fn bind(
    keypair: &KeyPair,
    address: &str,
    images: Arc<dyn ChunkSource>,
    facts: mpsc::Sender<SwarmFact>,
) -> Result<Bound, SwarmError> {
    let mut swarm = build(keypair, None)?;
    let found = listen(&mut swarm, address).await?;
    let (send, commands) = mpsc::channel(64);
    let (inbox_in, inbox) = mpsc::channel(1024);
    let (mended, mended_out) = mpsc::channel(64);
    let images_again = Arc::clone(&images);
    let addresses = found.iter().map(ToString::to_string).collect();
    let [rng_seed @ .., _, _, _, _, _, _, _, _] = keypair.public().bytes();
    let node = Node {
        swarm,
        seeder: Arc::new(Seeder::new(Arc::clone(&images))),
        images,
        facts,
        waiting: VecDeque::new(),
        inbox_in,
        inbox,
        swarms: BTreeMap::new(),
        mends: Mends::new(images_again, mended),
        mended_out,
        greetings: HashMap::new(),
        pullers: HashMap::new(),
        sites: vec![],
        peers: Peers::default(),
        room_of: HashMap::new(),
        controls: HashMap::new(),
        streams: 0,
        slots: HashMap::new(),
        traffic: Traffic::default(),
        tasks: JoinSet::new(),
        rng_seed: common::swarm::splitmix::seed(&rng_seed),
        paced_at: Duration::ZERO,
        began: Instant::now(),
    };
    Ok(Bound { handle: SwarmHandle { commands: send, addresses }, commands, node })
}

impl Bound {
    /// A handle for requests to the node; they wait until the node runs.
    #[must_use]
    pub fn handle(&self) -> SwarmHandle {
        self.handle.clone()
    }

    /// Counts what is sent there, and obeys the limits that it has now; without this call there are none.
    #[must_use]
    pub fn with_traffic(mut self, traffic: Traffic) -> Self {
        self.node.traffic = traffic;
        self
    }

    /// Sets the subnets of sites: peers are told the addresses that an agent names in a subnet of its own site, besides
    /// the one that it connected from.
    #[must_use]
    pub fn with_sites(mut self, sites: Vec<SiteNet>) -> Self {
        self.node.sites = sites;
        self
    }

    /// Says where agents that give out small files are known; without this call it is known to nobody else.
    #[must_use]
    pub fn with_peers(mut self, peers: Peers) -> Self {
        self.node.peers = peers;
        self
    }

    /// Runs until `cancel`; every task of the swarm has ended when it returns.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { handle, commands, node } = self;
        // This handle would keep the channel open when every other one is gone.
        drop(handle);
        node.run(commands, cancel).await;
    }
}

struct Control {
    stream: u64,
    peer: PeerId,
    connection: ConnectionId,
    remote: Multiaddr,
    /// None until the agent has said hello.
    out: Option<mpsc::Sender<ToAgent>>,
    /// How often the agent was told to report; zero before it was.
    pace: Duration,
}

struct Node {
    swarm: Swarm<Mesh>,
    seeder: Arc<Seeder>,
    images: Arc<dyn ChunkSource>,
    facts: mpsc::Sender<SwarmFact>,
    waiting: VecDeque<SwarmFact>,
    inbox_in: mpsc::Sender<Inbound>,
    inbox: mpsc::Receiver<Inbound>,
    swarms: BTreeMap<ImageId, ImageSwarm>,
    mends: Mends,
    mended_out: mpsc::Receiver<Mended>,
    greetings: HashMap<PublicKey, Budget>,
    pullers: HashMap<PublicKey, AbortHandle>,
    sites: Vec<SiteNet>,
    peers: Peers,
    room_of: HashMap<PublicKey, ImageId>,
    controls: HashMap<PublicKey, Control>,
    streams: u64,
    slots: HashMap<String, Slots>,
    traffic: Traffic,
    tasks: JoinSet<()>,
    rng_seed: u64,
    /// When agents were last told how often to report.
    paced_at: Duration,
    began: Instant,
}

impl Node {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, cancel: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut commanded = true;
        loop {
            let facts = self.facts.clone();
            tokio::select! {
                () = cancel.cancelled() => break,
                event = self.swarm.select_next_some() => self.network(event),
                Some(inbound) = self.inbox.recv() => self.word(inbound),
                Some(mended) = self.mended_out.recv() => self.mended(mended),
                command = commands.recv(), if commanded => match command {
                    Some(command) => self.command(command),
                    None => commanded = false,
                },
                _ = tick.tick() => self.tick(),
                Some(_) = self.tasks.join_next() => {}
                permit = facts.reserve(), if !self.waiting.is_empty() => match permit {
                    Ok(permit) => if let Some(fact) = self.waiting.pop_front() {
                        permit.send(fact);
                    },
                    // The receiver is gone: the fleet has stopped.
                    Err(_) => self.waiting.clear(),
                },
            }
        }
        self.tasks.shutdown().await;
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn network(&mut self, event: SwarmEvent<MeshEvent>) {
        match event {
            SwarmEvent::Behaviour(MeshEvent::Accepted { peer, connection, protocol, remote, stream }) => {
                let Some(agent) = public_key(&peer) else { return };
                match protocol {
                    Protocol::Control => {
                        let now = self.now();
                        let fresh = || Budget::new(HELLOS_BURST, HELLO_EVERY);
                        if !self.greetings.entry(agent).or_insert_with(fresh).allows(now) {
                            tracing::debug!(agent = %agent.short(), "says hello too often");
                            self.swarm.behaviour_mut().close(peer, connection);
                            return;
                        }
                        self.streams += 1;
                        let stream_number = self.streams;
                        let control = Control {
                            stream: stream_number,
                            peer,
                            connection,
                            remote,
                            out: None,
                            pace: Duration::ZERO,
                        };
                        if let Some(old) = self.controls.insert(agent, control) {
                            self.swarm.behaviour_mut().close(old.peer, old.connection);
                        }
                        let (images, inbox) = (Arc::clone(&self.images), self.inbox_in.clone());
                        let stream = Counted::new(stream, self.line_to(&agent));
                        self.tasks.spawn(control::run(stream, agent, stream_number, images, inbox));
                    }
                    Protocol::Pull => {
                        let outlet = self.outlet_to(&agent);
                        let seeder = Arc::clone(&self.seeder);
                        let served = self.tasks.spawn(async move {
                            if let Err(ended) = serve(stream, agent, seeder, outlet).await {
                                tracing::debug!(agent = %agent.short(), %ended, "pull stream ended");
                            }
                        });
                        // One pull stream for each agent: one with many would take as many slots of its site.
                        if let Some(old) = self.pullers.insert(agent, served) {
                            old.abort();
                        }
                    }
                }
            }
            SwarmEvent::Behaviour(MeshEvent::Opened { peer, connection, stream, .. }) => {
                self.dialled(peer, connection, stream);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, .. }
            | SwarmEvent::ConnectionClosed { connection_id, .. } => self.mends.failed(connection_id),
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "the swarm's listener has a fault");
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                tracing::error!(%error, "the swarm no longer listens");
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(%error, from = %send_back_addr, "not let into the swarm");
            }
            _ => {}
        }
    }

    fn dialled(&mut self, peer: PeerId, connection: ConnectionId, stream: libp2p::Stream) {
        if !self.mends.opened(connection, stream, &mut self.tasks) {
            self.swarm.behaviour_mut().close(peer, connection);
        }
    }

    fn site_of(&self, agent: &PublicKey) -> Option<&str> {
        let admission = self.room_of.get(agent).and_then(|image| self.swarms.get(image)?.admission(agent));
        admission.map(|admission| admission.site.as_str())
    }

    fn line_to(&self, agent: &PublicKey) -> SiteLine {
        self.traffic.to_site(self.site_of(agent).unwrap_or_default())
    }

    fn outlet_to(&mut self, agent: &PublicKey) -> Outlet {
        let site = self.site_of(agent).unwrap_or_default().to_owned();
        let lines = self.traffic.to_site(&site).lines();
        let slots = self.slots.entry(site).or_insert_with(|| Slots::new(SENDING_PER_SITE));
        Outlet { slots: slots.clone(), lines }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Admit(admission) => self.admit(*admission),
            Command::Expel { key, reason } => {
                let now = self.now();
                let image = self.room_of.get(&key).copied();
                let swarm = image.and_then(|image| self.swarms.get_mut(&image));
                let out = swarm.map(|swarm| swarm.expel(key, reason, now)).unwrap_or_default();
                if let Some(image) = image {
                    self.carry_out(image, out);
                }
            }
            Command::IsHere(key, reply) => {
                let swarm = self.room_of.get(&key).and_then(|image| self.swarms.get(image));
                // Whoever asked may have stopped waiting.
                reply.send(swarm.is_some_and(|swarm| swarm.is_here(&key))).ok();
            }
            Command::Status(reply) => {
                let active = self.swarms.values().filter(|swarm| swarm.is_active());
                reply.send(active.map(ImageSwarm::status).collect()).ok();
            }
            Command::Detail(image, reply) => {
                reply.send(self.swarms.get(&image).map(ImageSwarm::detail)).ok();
            }
            Command::Maps(image, since, reply) => {
                let now = self.now();
                reply
                    .send(self.swarms.get_mut(&image).and_then(|swarm| swarm.maps(since.as_deref(), now)))
                    .ok();
            }
        }
    }

    fn admit(&mut self, admission: Admission) {
        let (now, key, image) = (self.now(), admission.key, admission.image);
        if let Some(old) = self.room_of.insert(key, image).filter(|old| *old != image)
            && let Some(swarm) = self.swarms.get_mut(&old)
        {
            let out = swarm.expel(key, Some("the machine was given another image".to_owned()), now);
            self.carry_out(old, out);
        }
        let rng_seed = self.rng_seed;
        let swarm =
            self.swarms.entry(image).or_insert_with(|| ImageSwarm::new(image, Linger::default(), rng_seed));
        swarm.admit(admission, now);
        // Added one by one: a list of all, rebuilt for each of 2,000 machines, took minutes when the server was
        // restarted.
        if let Ok(peer) = peer_id(&key) {
            self.swarm.behaviour_mut().let_in(peer);
        }
    }

    fn word(&mut self, inbound: Inbound) {
        let Inbound { agent, stream, word } = inbound;
        // A newer stream of the same agent has replaced this one: ignored.
        if self.controls.get(&agent).is_none_or(|control| control.stream != stream) {
            return;
        }
        let now = self.now();
        let Some(image) = self.room_of.get(&agent).copied() else { return };
        match word {
            Word::Hello(first) => self.hello(agent, image, *first),
            Word::Message(ToServer::Holding { port, objects }) => self.holding(agent, image, port, objects),
            Word::Message(message) => {
                let out = self.swarms.get_mut(&image).map(|swarm| swarm.message(agent, message, now));
                self.carry_out(image, out.unwrap_or_default());
            }
            Word::Ended(cause) => {
                let known = self.hang_up(&agent);
                let swarm = self.swarms.get_mut(&image).filter(|_| known);
                let out = swarm.map(|swarm| swarm.left(agent, cause, now));
                self.carry_out(image, out.unwrap_or_default());
            }
        }
    }

    /// Closes the connection of the agent's control stream. True if the agent had said hello on it.
    fn hang_up(&mut self, agent: &PublicKey) -> bool {
        let Some(control) = self.controls.remove(agent) else {
            return false;
        };
        self.peers.gone(agent);
        self.swarm.behaviour_mut().close(control.peer, control.connection);
        control.out.is_some()
    }

    fn hello(&mut self, agent: PublicKey, image: ImageId, first: FirstWord) {
        let now = self.now();
        let Some(swarm) = self.swarms.get_mut(&image) else { return };
        let member = swarm.admission(&agent).map(Admission::member);
        let Some(control) = self.controls.get_mut(&agent) else { return };
        if member != Some(first.member) || image != first.image {
            let came_as = first.member;
            tracing::warn!(agent = %agent.short(), ?came_as, "came for a job or image that is not its own");
            self.hang_up(&agent);
            return;
        }
        control.out = Some(first.out);
        let mut hello = first.hello;
        let site = swarm.admission(&agent).map(|admission| admission.site.as_str()).unwrap_or_default();
        let nets = self.sites.iter().filter(|net| net.site == site).map(|net| net.subnet);
        hello.addresses = reachable(&control.remote, &hello.addresses, &nets.collect::<Vec<_>>());
        self.seeder.take_in(agent, image, first.wire_image.wanted.len());
        let out = swarm.hello(agent, hello, first.wire_image, now);
        self.carry_out(image, out);
    }

    fn tick(&mut self) {
        let now = self.now();
        self.share();
        if now >= self.paced_at + PACE_EVERY {
            self.paced_at = now;
            self.set_paces();
        }
        let (sent, lost) = self.seeder.take();
        for (agent, bytes) in sent {
            let Some(image) = self.room_of.get(&agent).copied() else { continue };
            self.traffic.sent(self.site_of(&agent).unwrap_or_default(), Kind::Chunks, bytes);
            let out = self.swarms.get_mut(&image).map(|swarm| swarm.sent(agent, bytes, now));
            self.carry_out(image, out.unwrap_or_default());
        }
        for lost in lost {
            tracing::error!(image = %lost.image, chunk = lost.chunk.0, cause = lost.cause, "a chunk cannot be read");
            let swarm = self.swarms.get_mut(&lost.image);
            let out = swarm.map(|swarm| swarm.failed(lost.agent, lost.chunk, lost.cause, now));
            self.carry_out(lost.image, out.unwrap_or_default());
        }
        let ticked: Vec<(ImageId, Vec<Out>)> =
            self.swarms.iter_mut().map(|(image, swarm)| (*image, swarm.tick(now))).collect();
        for (image, out) in ticked {
            self.carry_out(image, out);
        }
        let before = self.swarms.len();
        self.swarms.retain(|_, swarm| !swarm.is_empty());
        if self.swarms.len() < before {
            let sites: HashSet<&str> = self.swarms.values().flat_map(ImageSwarm::sites).collect();
            self.slots.retain(|site, _| sites.contains(site.as_str()));
        }
    }

    fn mended(&mut self, mended: Mended) {
        let Mended { image, chunk, outcome } = mended;
        let now = self.now();
        let out = match outcome {
            Outcome::Whole(from) => self.swarms.get_mut(&image).map(|swarm| swarm.mended(chunk, from, now)),
            Outcome::Ask(holders) => {
                let mesh = self.swarm.behaviour_mut();
                self.mends
                    .ask(image, chunk, holders, |peer, addresses| mesh.dial(peer, addresses, Protocol::Pull));
                None
            }
        };
        self.carry_out(image, out.unwrap_or_default());
    }

    fn carry_out(&mut self, image: ImageId, out: Vec<Out>) {
        for out in out {
            match out {
                Out::Tell(agent, word) => self.tell(agent, word),
                Out::Grant(agent, chunks) => self.seeder.grant(agent, &chunks),
                Out::Withdraw(agent, chunks) => self.seeder.withdraw(&agent, &chunks),
                Out::Fact(fact) => {
                    if self.waiting.len() >= FACTS_WAITING_MAX {
                        self.waiting.pop_front();
                        tracing::warn!("the fleet is too busy: a fact of the swarm was dropped");
                    }
                    self.waiting.push_back(fact);
                }
                Out::Mend(chunk, holders) => self.mends.start(image, chunk, holders, &mut self.tasks),
                Out::Forget(agent) => {
                    self.greetings.remove(&agent);
                    self.pullers.remove(&agent);
                    self.room_of.remove(&agent);
                    self.hang_up(&agent);
                    self.seeder.forget(&agent);
                    if let Ok(peer) = peer_id(&agent) {
                        self.swarm.behaviour_mut().shut_out(peer);
                    }
                }
            }
        }
    }

    fn tell(&mut self, agent: PublicKey, word: ToAgent) {
        let Some(out) = self.controls.get(&agent).and_then(|control| control.out.as_ref()) else {
            return;
        };
        if out.try_send(word).is_err() {
            // It reads nothing, or has just gone. The image's swarm hears of it when the control stream ends.
            tracing::debug!(agent = %agent.short(), "does not read its control stream");
            if let Some(control) = self.controls.get(&agent) {
                let (peer, connection) = (control.peer, control.connection);
                self.swarm.behaviour_mut().close(peer, connection);
            }
        }
    }
}
