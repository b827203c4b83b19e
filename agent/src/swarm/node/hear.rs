//! What the node makes of what it hears: from the server, from neighbours, from the check of a chunk, from
//! the steps. Touches the node's state alone.

use std::sync::Arc;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::task::JoinError;

use common::chunk::ChunkIndex;
use common::swarm::behaviour::Protocol;
use common::swarm::serve::Frame;
use common::trust::PublicKey;
use common::wire::swarm::{Neighbour, ToAgent, ToServer};

use super::{Checked, Node};
use crate::swarm::client::{Command, SwarmEvent};
use crate::swarm::links::target;
use crate::swarm::schedule::Event;
use crate::swarm::verify::NotTheChunk;
use crate::swarm::{control, pull};

/// After so many failures in a row the server hears that a neighbour cannot be reached; the first ones
/// only mean that it has not heard of this agent yet.
const UNREACHABLE_AFTER: u32 = 5;

/// Wrong chunks from the server until something is broken for good: this machine's memory, its NIC, or the
/// image store.
const SERVER_WRONG_MAX: u32 = 8;

/// Neighbours that are believed.
const NEIGHBOURS_MAX: usize = 1024;

/// Addresses of one neighbour that are believed.
const ADDRESSES_MAX: usize = 16;

impl Node {
    pub(super) fn pulled(&mut self, inbound: pull::Inbound) {
        let pull::Inbound { from, stream, word } = inbound;
        // What an older stream says is of no more use, but for a chunk.
        if self.pulls.get(&from).is_none_or(|puller| puller.stream != stream) {
            return;
        }
        match word {
            pull::Word::Up(held) => {
                self.links.proved(target(from, Protocol::Pull));
                let same_site = self.neighbours.get(&from).is_none_or(|neighbour| neighbour.same_site);
                self.schedule(Event::Up { from, held, same_site });
            }
            pull::Word::Have(chunks) => self.schedule(Event::Have { from, chunks }),
            pull::Word::Moved => self.schedule(Event::Moved { from }),
            pull::Word::Unavailable(chunk) => self.schedule(Event::Unavailable { from, chunk }),
            pull::Word::Chunk { chunk, form, bytes } => self.check(from, chunk, form, bytes),
            pull::Word::Ended { cause, broken } => {
                if broken {
                    self.blame(from, &format!("breaks the protocol: {cause}"));
                }
                self.hang_up(from, &cause);
            }
        }
    }

    pub(super) fn controlled(&mut self, inbound: control::Inbound) {
        if self.control.as_ref().is_none_or(|(number, _)| *number != inbound.stream) {
            return;
        }
        let now = self.now();
        match inbound.word {
            control::Word::Message(message) => {
                self.standing.heard = now;
                self.standing.server_heard = now;
                self.links.proved(target(self.seed, Protocol::Control));
                if std::mem::take(&mut self.standing.server_lost) {
                    self.tell(SwarmEvent::Note("the server is back".to_owned()));
                }
                self.message(message);
            }
            control::Word::Ended(cause) => {
                if let Some(connection) = self.links.connection(target(self.seed, Protocol::Control)) {
                    self.failed(connection, &cause, now);
                }
            }
        }
    }

    fn message(&mut self, message: ToAgent) {
        match message {
            ToAgent::Welcome { personality } => {
                // Before it knows this agent, the server would end a pull stream at once.
                let pull = target(self.seed, Protocol::Pull);
                if !self.standing.complete {
                    self.links.want(pull, self.seed_addresses.clone(), self.now());
                }
                if !std::mem::replace(&mut self.standing.welcomed, true) {
                    self.tell(SwarmEvent::Welcome(Box::new(personality)));
                }
            }
            ToAgent::Gather { arrived, wanted, seconds } => {
                if !self.standing.started {
                    self.tell(SwarmEvent::Gather { arrived, wanted, seconds });
                }
            }
            ToAgent::Start => {
                if !std::mem::replace(&mut self.standing.started, true) {
                    self.tell(SwarmEvent::Start);
                }
            }
            ToAgent::Neighbours { list, spared } => {
                self.standing.spared = spared;
                self.meet(list);
            }
            ToAgent::Lease { chunks } => self.schedule(Event::Leased(chunks)),
            ToAgent::Revoke { chunks } => self.schedule(Event::Revoked(chunks)),
            ToAgent::Heard => {}
            ToAgent::Release => {
                if !std::mem::replace(&mut self.standing.released, true) {
                    self.tell(SwarmEvent::Release);
                }
            }
            ToAgent::Broken { reason } => self.broken(reason),
            ToAgent::Cancel { reason } => self.tell(SwarmEvent::Cancel(reason)),
        }
    }

    /// The list of who may be talked to, which replaces the one before.
    fn meet(&mut self, list: Vec<Neighbour>) {
        let now = self.now();
        let fitting =
            list.into_iter().filter(|neighbour| neighbour.key != self.own && neighbour.key != self.seed);
        let new = fitting.take(NEIGHBOURS_MAX).map(|neighbour| (neighbour.key, neighbour)).collect();
        let old = std::mem::replace(&mut self.neighbours, new);
        let gone: Vec<PublicKey> = old.into_keys().filter(|key| !self.neighbours.contains_key(key)).collect();
        for key in gone {
            self.unlink(target(key, Protocol::Pull));
        }
        self.allow();
        let spared = self.neighbours.values().filter(|neighbour| neighbour.spared);
        self.schedule(Event::Spare(spared.map(|neighbour| neighbour.key).collect()));
        if self.standing.complete {
            return;
        }
        for neighbour in self.neighbours.values() {
            let addresses: Vec<Multiaddr> = neighbour
                .addresses
                .iter()
                .take(ADDRESSES_MAX)
                .filter_map(|address| address.parse().ok())
                .collect();
            self.links.want(target(neighbour.key, Protocol::Pull), addresses, now);
        }
    }

    /// A connection that this agent dialled has ended or never came to be.
    pub(super) fn failed(&mut self, connection: ConnectionId, cause: &str, now: Duration) {
        let Some((target, failures)) = self.links.failed(connection, now) else {
            return;
        };
        let key = target.0;
        if super::protocol(target) == Protocol::Control {
            self.control = None;
            if !std::mem::replace(&mut self.standing.server_lost, true) {
                let text = format!("the server cannot be reached, and is dialled again and again: {cause}");
                self.tell(SwarmEvent::Note(text));
            }
            return;
        }
        self.pulls.remove(&key);
        self.schedule(Event::Gone { from: key });
        if key != self.seed && failures == UNREACHABLE_AFTER {
            self.blame(key, &format!("cannot be reached: {cause}"));
        }
    }

    /// Tells the log, once, that a neighbour is of no use, and why.
    pub(super) fn blame(&mut self, key: PublicKey, why: &str) {
        if key != self.seed && self.blamed.insert(key) {
            let text = format!("{} {why}", self.name(&key));
            self.tell(SwarmEvent::Note(text));
        }
    }

    pub(super) fn checked(&mut self, checked: Result<Checked, JoinError>) {
        let Ok(Checked { from, chunk, form, bytes, result }) = checked else {
            self.broken("the check of a chunk ended without a result".to_owned());
            return;
        };
        let now = self.now();
        match result {
            Ok(verified) => {
                self.standing.heard = now;
                self.count(from, bytes.len() as u64);
                if self.store.put(chunk, Frame { form, bytes }) {
                    self.news.push(chunk);
                    self.ready.push_back(verified);
                }
                self.schedule(Event::Verified { chunk });
            }
            Err(wrong) => self.wrong(from, chunk, &wrong),
        }
    }

    fn count(&self, from: PublicKey, bytes: u64) {
        let mut sources = self.sources.lock();
        if from == self.seed {
            sources.server += bytes;
            sources.server_chunks += 1;
        } else {
            sources.peers += bytes;
            sources.peer_chunks += 1;
        }
    }

    fn wrong(&mut self, from: PublicKey, chunk: ChunkIndex, wrong: &NotTheChunk) {
        let event = SwarmEvent::Corrupt { from: self.name(&from), chunk, cause: wrong.to_string() };
        self.tell(event);
        self.schedule(Event::Corrupt { from, chunk });
        if matches!(wrong, NotTheChunk::Image(_)) {
            self.broken(format!("chunk {}: {wrong}", chunk.0));
        } else if from == self.seed {
            self.standing.server_wrong += 1;
            if self.standing.server_wrong >= SERVER_WRONG_MAX {
                self.broken(format!(
                    "{SERVER_WRONG_MAX} chunks from the server failed their hash: this machine's memory or NIC, \
                     or the server's image store is faulty"
                ));
            }
        } else {
            self.say(ToServer::Corrupt { neighbour: from, chunk });
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Held(chunks) => self.found(chunks),
            Command::Sealed => {
                self.standing.sealed = true;
                let now = self.now();
                self.standing.uploaded_at = now;
                self.say(ToServer::Sealed);
            }
        }
    }

    /// These are on the disk.
    pub(super) fn found(&mut self, chunks: Vec<ChunkIndex>) {
        let own: Vec<ChunkIndex> = chunks.into_iter().filter(|chunk| self.wanted.contains(*chunk)).collect();
        let store = Arc::clone(&self.store);
        let new: Vec<ChunkIndex> = own.into_iter().filter(|chunk| store.on_disk(*chunk)).collect();
        self.news.extend(&new);
        self.schedule(Event::Found(new));
    }
}
