//! Core: one image's agents, from admission to release: the gates, each agent's list of neighbours, when each is
//! released. Owns that and the image's injection; touches `inject`, `release` and the messages of `common::wire`. Time
//! is an argument. Driven by `node` over libp2p, and by `tests/sim` over simulated lines.

// The gate: machines of a deployment wait for each other before the first chunk.
mod gate;
mod gather;

// Which neighbours each agent is told of.
mod topology;

// What the API shows of it.
mod status;

// The chunks that each member holds, by differences.
mod maps;

// Chunks that cannot be read, and how they are repaired.
mod lost;
mod search;

use std::collections::BTreeMap;
use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::id::{DeploymentId, ImageId};
use common::trust::PublicKey;
use common::wire::swarm::{Bottleneck, Neighbour, ToAgent, ToServer};

use super::handle::{Admission, Part, SwarmFact};
use super::inject::{Effect, Event, Injector};
use super::release::{Linger, Presence, releasable};
use gate::Gate;
use lost::Lost;
use maps::Maps;

/// The interval of [`ImageSwarm::tick`].
pub const TICK: Duration = Duration::from_millis(100);

/// The release of all machines of a swarm is spread over so many ticks: ten seconds.
const RELEASE_TICKS: usize = 100;

/// Reports of corrupt chunks taken from one agent: a bound on what a broken one writes to the log.
const COMPLAINTS_MAX: u32 = 200;

/// How long an expelled agent stays a member and connected, so that the message that ends its part reaches it.
const FAREWELL: Duration = Duration::from_secs(3);

/// An effect that the node carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// Send it on the agent's control stream.
    Tell(PublicKey, ToAgent),
    /// From now on serve these chunks to the agent.
    Grant(PublicKey, Vec<ChunkIndex>),
    /// Stop serving these chunks to the agent.
    Withdraw(PublicKey, Vec<ChunkIndex>),
    /// Report this to the fleet.
    Fact(SwarmFact),
    /// The agent is no member any more: disconnect it, and accept no connection under this key.
    Forget(PublicKey),
    /// Try to read this chunk again: from the store, from the image's source, or else from one of these agents.
    Mend(ChunkIndex, Vec<Holder>),
}

/// An agent that holds a chunk, and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The key that its machine made at this boot.
    pub key: PublicKey,
    /// Multiaddrs, as filtered by `reachable`; the node dials them and expects the holder's key there.
    pub addresses: Vec<String>,
}

/// The content of the first message on a control stream.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Where it listens, as multiaddrs; its neighbours are told these.
    pub addresses: Vec<String>,
    /// The chunks that it can send to others, of those that have to be fetched.
    pub held: ChunkSet,
    /// Whether it passed its gate before this stream: an agent that reconnects does not wait again.
    pub started: bool,
    /// The chunks that it can take as deltas; of length 0 when there are none.
    pub deltas: ChunkSet,
}

/// The part of an image that is transferred: holes are not.
#[derive(Debug, Clone)]
pub struct WireImage {
    /// The chunks that have to be fetched.
    pub wanted: ChunkSet,
    /// Their bytes as sent (compressed), for one copy.
    pub wire_bytes: u64,
}

#[derive(Debug)]
struct Member {
    admission: Admission,
    presence: Presence,
    addresses: Vec<String>,
    told: Option<(Vec<Neighbour>, bool)>,
    started: bool,
    deltas: ChunkSet,
    complaints: u32,
    from_server: u64,
    from_peers: u64,
    sent: u64,
    bottleneck: Option<Bottleneck>,
    /// Since when its admission is over, and the message that its agent gets.
    expelled: Option<(Duration, ToAgent)>,
    /// Whether it was told on this stream that chunks it lacks cannot be read anywhere.
    stranded: bool,
}

/// The swarm of one image.
#[derive(Debug)]
pub struct ImageSwarm {
    image: ImageId,
    wire_image: Option<WireImage>,
    injector: Option<Injector>,
    members: BTreeMap<PublicKey, Member>,
    /// The gate of each deployment, kept as long as one of its machines is a member.
    gates: BTreeMap<DeploymentId, Gate>,
    lost: Lost,
    linger: Linger,
    /// Agents that give out boot files to machines of their site, and how long each stays for that after its seal.
    kept: BTreeMap<PublicKey, Duration>,
    rng_seed: u64,
    injected: u64,
    /// Whether members came, left or were spared since lists of neighbours were last sent.
    stale: bool,
    /// How it looked to those who asked lately.
    maps: Maps,
}

impl ImageSwarm {
    /// A swarm without members. What the image consists of is not known before the first hello.
    #[must_use]
    pub fn new(image: ImageId, linger: Linger, rng_seed: u64) -> Self {
        Self {
            image,
            wire_image: None,
            injector: None,
            members: BTreeMap::new(),
            gates: BTreeMap::new(),
            lost: Lost::default(),
            linger,
            kept: BTreeMap::new(),
            rng_seed,
            injected: 0,
            stale: false,
            maps: Maps::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a machine takes part, or a relay that lacks chunks: relays that have everything stay for good, and are no
    /// news.
    pub(super) fn is_active(&self) -> bool {
        let wanted = self.wire_image.as_ref().map_or(u32::MAX, |wire_image| wire_image.wanted.count());
        let takes_part =
            |presence: &Presence| !presence.is_relay || presence.connected && presence.held.count() < wanted;
        self.members.values().any(|member| takes_part(&member.presence))
    }

    pub(super) fn admission(&self, key: &PublicKey) -> Option<&Admission> {
        self.members.get(key).map(|member| &member.admission)
    }

    /// Whether the agent's control stream is open.
    pub(super) fn is_here(&self, key: &PublicKey) -> bool {
        self.members.get(key).is_some_and(|member| member.presence.connected)
    }

    /// Admits a machine, or replaces the admission of one that is a member.
    pub fn admit(&mut self, admission: Admission, now: Duration) {
        let presence = match &admission.part {
            Part::Machine(_) => Presence::new(admission.site.clone(), now),
            Part::Relay => Presence::of_relay(admission.site.clone(), now),
        };
        let key = admission.key;
        if let Some(member) = self.members.get_mut(&key) {
            member.expelled = None;
            member.admission = admission;
            return;
        }
        let member = Member {
            admission,
            presence,
            addresses: vec![],
            told: None,
            started: false,
            deltas: ChunkSet::new(0),
            complaints: 0,
            from_server: 0,
            from_peers: 0,
            sent: 0,
            bottleneck: None,
            expelled: None,
            stranded: false,
        };
        self.members.insert(key, member);
    }

    /// Ends a machine's admission. Without a reason, one whose disk is sealed is released: its part is done.
    pub(super) fn expel(&mut self, key: PublicKey, reason: Option<String>, now: Duration) -> Vec<Out> {
        let Some(member) = self.members.get_mut(&key) else {
            return vec![];
        };
        let word = match reason {
            None if member.presence.sealed.is_some() => ToAgent::Release,
            None => ToAgent::Cancel { reason: "its job is over".to_owned() },
            Some(reason) => ToAgent::Cancel { reason },
        };
        member.expelled = Some((now, word.clone()));
        let mut out = vec![Out::Tell(key, word)];
        out.extend(self.inject(Event::Left { agent: key }, now));
        self.stale = true;
        out
    }

    /// The first message of a control stream has arrived.
    pub fn hello(&mut self, key: PublicKey, hello: Hello, wire_image: WireImage, now: Duration) -> Vec<Out> {
        let rng_seed = self.rng_seed;
        let (wanted, wire_bytes) = (wire_image.wanted.clone(), wire_image.wire_bytes);
        self.injector.get_or_insert_with(|| Injector::new(wanted, wire_bytes, rng_seed));
        self.wire_image.get_or_insert(wire_image);
        let Some(member) = self.members.get_mut(&key) else {
            return vec![];
        };
        if let Some((_, word)) = &member.expelled {
            return vec![Out::Tell(key, word.clone())];
        }
        member.addresses = hello.addresses;
        member.told = None;
        member.stranded = false;
        member.presence.join(now);
        member.started |= hello.started;
        member.deltas = hello.deltas;
        let personality = member.admission.machine().map(|machine| machine.personality.clone());
        let mut out = vec![Out::Tell(key, ToAgent::Welcome { personality })];
        out.extend(member.admission.job().map(|job| Out::Fact(SwarmFact::Joined { job })));
        self.stale = true;
        out.extend(self.knock(key, hello.held, now));
        out
    }

    fn start(&mut self, key: PublicKey, now: Duration) -> Vec<Out> {
        let Some(member) = self.members.get_mut(&key) else {
            return vec![];
        };
        member.started = true;
        member.presence.gain(now);
        let (site, held) = (member.admission.site.clone(), member.presence.held.clone());
        let (deltas, is_relay) = (member.deltas.clone(), member.presence.is_relay);
        let mut out = vec![Out::Tell(key, ToAgent::Start)];
        out.extend(self.inject(Event::Joined { agent: key, site, held, deltas, is_relay }, now));
        out
    }

    /// The agent's control stream has ended.
    pub fn left(&mut self, key: PublicKey, cause: String, now: Duration) -> Vec<Out> {
        let Some(member) = self.members.get_mut(&key) else {
            return vec![];
        };
        member.presence.leave(now);
        let job = member.admission.job();
        let mut out: Vec<Out> =
            job.map(|job| Out::Fact(SwarmFact::Left { job, cause })).into_iter().collect();
        self.stale = true;
        out.extend(self.inject(Event::Left { agent: key }, now));
        out
    }

    /// Takes any message but the first of a control stream.
    pub fn message(&mut self, key: PublicKey, message: ToServer, now: Duration) -> Vec<Out> {
        let Some(member) = self.members.get_mut(&key) else {
            return vec![];
        };
        let (job, party) = (member.admission.job(), member.admission.party());
        match message {
            // A second hello on one stream says nothing new; files are the node's.
            ToServer::Hello { .. } | ToServer::Holding { .. } => vec![],
            ToServer::Have { chunks } => {
                let news = chunks.iter().filter(|chunk| member.presence.held.insert(**chunk)).count();
                if news > 0 {
                    member.presence.gain(now);
                }
                self.inject(Event::Have { agent: key, chunks }, now)
            }
            ToServer::Speed { sent, sending_millis, from_peers, bottleneck, .. } => {
                member.sent = member.sent.saturating_add(sent);
                member.bottleneck = bottleneck;
                member.from_peers = member.from_peers.saturating_add(from_peers);
                let sending = Duration::from_millis(sending_millis);
                let mut out = vec![Out::Tell(key, ToAgent::Heard)];
                out.extend(self.inject(Event::Speed { agent: key, sent, sending, from_peers }, now));
                out
            }
            ToServer::Sealed => {
                // A relay has no disk to seal: what it says of one is nothing.
                let news = job.filter(|_| member.presence.seal(now));
                news.map(|job| Out::Fact(SwarmFact::Sealed { job })).into_iter().collect()
            }
            ToServer::Corrupt { neighbour, chunk } => {
                if !complain(member) {
                    return vec![];
                }
                let from = self.admission(&neighbour).map(Admission::party);
                let mut out = vec![Out::Fact(SwarmFact::Corrupt { by: party, from, chunk })];
                out.extend(self.inject(Event::Corrupt { by: key, from: neighbour }, now));
                out
            }
        }
    }

    /// The server has sent so many bytes of chunks to the agent.
    pub fn sent(&mut self, key: PublicKey, bytes: u64, now: Duration) -> Vec<Out> {
        self.injected += bytes;
        if let Some(member) = self.members.get_mut(&key) {
            member.from_server += bytes;
        }
        self.inject(Event::Sent { agent: key, bytes }, now)
    }

    /// Does what depends on time: gates, neighbours, leases, releases. To be called every [`TICK`].
    pub fn tick(&mut self, now: Duration) -> Vec<Out> {
        let mut out = self.open_gates(now);
        if std::mem::take(&mut self.stale) {
            out.extend(self.tell_neighbours());
        }
        out.extend(self.inject(Event::Tick, now));
        out.extend(self.look_for_lost(now));
        out.extend(self.release(now));
        self.maps.forget(now);
        let linger = self.linger;
        let over = |member: &Member| {
            member.expelled.as_ref().is_some_and(|(at, _)| now >= *at + FAREWELL)
                || member.presence.is_gone(linger, now)
        };
        let over: Vec<PublicKey> =
            self.members.iter().filter(|(_, member)| over(member)).map(|(key, _)| *key).collect();
        if !over.is_empty() {
            for key in over {
                self.members.remove(&key);
                out.extend(self.inject(Event::Forgotten { agent: key }, now));
                out.push(Out::Forget(key));
            }
            self.forget_gates();
        }
        out
    }

    /// The sites that its agents are at.
    pub(super) fn sites(&self) -> impl Iterator<Item = &str> {
        self.members.values().map(|member| member.admission.site.as_str())
    }

    /// The agents that give out boot files to machines of their site, and how long each stays for that at the most after
    /// its disk was sealed; replaces those of the last call.
    pub(super) fn keep(&mut self, needed: &BTreeMap<PublicKey, Duration>) {
        if self.kept != *needed {
            self.kept.clone_from(needed);
        }
    }

    /// Whether the agent stays for its boot files alone. Its machine waits for its new OS, so not for long.
    fn is_kept(&self, key: &PublicKey, presence: &Presence, now: Duration) -> bool {
        let stays = self.kept.get(key).zip(presence.sealed);
        stays.is_some_and(|(longest, sealed)| now < sealed + *longest)
    }

    fn release(&mut self, now: Duration) -> Vec<Out> {
        let wanted = self.wire_image.as_ref().map_or(u32::MAX, |wire_image| wire_image.wanted.count());
        let seats: BTreeMap<PublicKey, &Presence> = self
            .members
            .iter()
            .filter(|(_, member)| member.expelled.is_none())
            .map(|(key, member)| (*key, &member.presence))
            .collect();
        let mut out = Vec::new();
        // Not all at once: each that restarts asks for an address and boot programs, and draws power.
        let most = seats.len().div_ceil(RELEASE_TICKS);
        let mut free = releasable(&seats, wanted, self.linger, now);
        free.retain(|key| !seats.get(key).is_some_and(|presence| self.is_kept(key, presence, now)));
        for key in free.into_iter().take(most) {
            if let Some(member) = self.members.get_mut(&key) {
                member.presence.released = true;
                out.push(Out::Tell(key, ToAgent::Release));
                out.extend(member.admission.job().map(|job| Out::Fact(SwarmFact::Released { job })));
            }
        }
        out
    }

    /// Passes `event` to the injection, and turns its effects into the node's.
    fn inject(&mut self, event: Event, now: Duration) -> Vec<Out> {
        let Some(injector) = &mut self.injector else {
            return vec![];
        };
        let mut out = Vec::new();
        for effect in injector.handle(event, now) {
            match effect {
                // Granted before the agent is told, or its request could come before the grant.
                Effect::Lease { agent, chunks } => {
                    out.push(Out::Grant(agent, chunks.clone()));
                    out.push(Out::Tell(agent, ToAgent::Lease { chunks }));
                }
                Effect::Revoke { agent, chunks } => {
                    out.push(Out::Withdraw(agent, chunks.clone()));
                    out.push(Out::Tell(agent, ToAgent::Revoke { chunks }));
                }
                Effect::Spare { .. } => self.stale = true,
                Effect::CutOff { agent } => {
                    let job = self.members.get(&agent).and_then(|member| member.admission.job());
                    out.extend(job.map(|job| Out::Fact(SwarmFact::Starving { job })));
                }
            }
        }
        out
    }
}

fn complain(member: &mut Member) -> bool {
    member.complaints += 1;
    member.complaints <= COMPLAINTS_MAX
}

#[cfg(test)]
mod tests;
