//! Core: handling of events: messages of the server and of neighbours, checked chunks, chunks on the disk. Touches
//! only the session's state.

use std::time::Duration;

use common::chunk::ChunkIndex;
use common::swarm::behaviour::Protocol;
use common::swarm::slots::at_once;
use common::trust::PublicKey;
use common::wire::swarm::{Neighbour, ToAgent, ToServer};
use libp2p::Multiaddr;

use super::schedule;
use super::{Effect, Pulled, Session};
use crate::boot_files::Hold;
use crate::swarm::event::SwarmEvent;
use crate::swarm::verify::NotTheChunk;

/// Wrong chunks from the server after which the session gives up: this machine's memory or its NIC is faulty, or the
/// image store.
const SERVER_WRONG_MAX: u32 = 8;

/// The most neighbours taken of one list of the server; the rest are ignored.
const NEIGHBOURS_MAX: usize = 1024;

/// The most addresses taken of one neighbour; the rest are ignored.
const ADDRESSES_MAX: usize = 16;

impl Session {
    pub(super) fn pulled(&mut self, from: PublicKey, dial: super::Dial, word: Pulled, now: Duration) {
        if self.pull_stream(from) != Some(dial) {
            return;
        }
        match word {
            Pulled::Holding(held) => {
                self.links.proved((from, Protocol::Pull));
                self.schedule(schedule::Event::Up { from, held }, now);
            }
            Pulled::Have(chunks) => self.schedule(schedule::Event::Have { from, chunks }, now),
            Pulled::Moved => self.schedule(schedule::Event::Moved { from }, now),
            Pulled::Unavailable(chunk) => self.schedule(schedule::Event::Unavailable { from, chunk }, now),
            Pulled::Arrived { chunk, bytes } => {
                if from == self.config.seed {
                    self.report.from_server += bytes;
                } else {
                    self.report.from_peers += bytes;
                }
                if self.scheduler.arrived(from, chunk, now) {
                    self.effects.push(Effect::Check { from, chunk });
                }
            }
            Pulled::Ended { cause, broken } => {
                if broken {
                    self.blame(from, &format!("breaks the protocol: {cause}"));
                }
                self.hang_up(dial, &cause, now);
            }
        }
    }

    pub(super) fn server(&mut self, dial: super::Dial, word: ToAgent, now: Duration) {
        if self.control != Some(dial) {
            return;
        }
        self.heard = now;
        self.server_heard = now;
        self.links.proved((self.config.seed, Protocol::Control));
        if std::mem::take(&mut self.server_lost) {
            self.note("the server is back".to_owned());
        }
        match word {
            ToAgent::Welcome { personality } => {
                self.say_holding();
                // The server ends pull streams of an agent that it does not know yet.
                if !self.complete {
                    let pull = (self.config.seed, Protocol::Pull);
                    self.links.want(pull, self.config.seed_addresses.clone(), now);
                }
                if !std::mem::replace(&mut self.welcomed, true) {
                    self.effects.push(Effect::Tell(SwarmEvent::Welcome(personality.map(Box::new))));
                }
            }
            ToAgent::Gather { arrived, wanted, seconds } => {
                if !self.started {
                    self.effects.push(Effect::Tell(SwarmEvent::Gather { arrived, wanted, seconds }));
                }
            }
            ToAgent::Start => {
                if !std::mem::replace(&mut self.started, true) {
                    self.effects.push(Effect::Tell(SwarmEvent::Start));
                }
            }
            ToAgent::Neighbours { list, spared } => {
                if std::mem::replace(&mut self.spared, spared) != spared {
                    self.effects.push(Effect::Slots(at_once(self.config.upload_parallel, spared)));
                }
                self.meet(list, now);
            }
            ToAgent::Lease { chunks } => self.schedule(schedule::Event::Leased(chunks), now),
            ToAgent::Revoke { chunks } => self.schedule(schedule::Event::Revoked(chunks), now),
            ToAgent::Hold { objects, peers, nets } => {
                self.effects.push(Effect::Hold(Hold { objects, peers, nets }));
            }
            ToAgent::Heard => {}
            ToAgent::Pace { millis } => self.paced(millis),
            ToAgent::Release => {
                if !std::mem::replace(&mut self.released, true) {
                    self.effects.push(Effect::Tell(SwarmEvent::Release));
                }
            }
            ToAgent::Broken { reason } => self.give_up(reason),
            ToAgent::Cancel { reason } => self.effects.push(Effect::Tell(SwarmEvent::Cancel(reason))),
        }
    }

    /// Replaces the list of neighbours: drops connections to those no longer on it, and dials the new ones.
    fn meet(&mut self, list: Vec<Neighbour>, now: Duration) {
        let (own, seed) = (self.config.own, self.config.seed);
        let fitting = list.into_iter().filter(|neighbour| neighbour.key != own && neighbour.key != seed);
        let new = fitting.take(NEIGHBOURS_MAX).map(|neighbour| (neighbour.key, neighbour)).collect();
        let old = std::mem::replace(&mut self.neighbours, new);
        for key in old.into_keys() {
            if !self.neighbours.contains_key(&key) {
                self.unlink((key, Protocol::Pull), now);
            }
        }
        self.effects.push(Effect::Allow(self.neighbours.keys().copied().collect()));
        let spared = self.neighbours.values().filter(|neighbour| neighbour.spared);
        let spared = spared.map(|neighbour| neighbour.key).collect();
        self.schedule(schedule::Event::Spare(spared), now);
        if self.complete {
            return;
        }
        for neighbour in self.neighbours.values() {
            let believed = neighbour.addresses.iter().take(ADDRESSES_MAX);
            let addresses: Vec<Multiaddr> = believed.filter_map(|address| address.parse().ok()).collect();
            self.links.want((neighbour.key, Protocol::Pull), addresses, now);
        }
    }

    pub(super) fn verified(&mut self, from: PublicKey, chunk: ChunkIndex, bytes: u64, now: Duration) {
        self.heard = now;
        if from == self.config.seed {
            self.sources.server += bytes;
            self.sources.server_chunks += 1;
        } else {
            self.sources.peers += bytes;
            self.sources.peer_chunks += 1;
        }
        if !self.scheduler.held().contains(chunk) {
            self.news.push(chunk);
            self.backlog.unhanded += 1;
            self.effects.push(Effect::Keep(chunk));
        }
        self.schedule(schedule::Event::Verified { chunk }, now);
    }

    pub(super) fn wrong(&mut self, from: PublicKey, chunk: ChunkIndex, wrong: &NotTheChunk, now: Duration) {
        if let NotTheChunk::Undecoded(why) = wrong {
            if !std::mem::replace(&mut self.undecoded, true) {
                self.note(format!("chunks are fetched whole whose deltas cannot be used here: {why}"));
            }
            self.schedule(schedule::Event::Undecoded { from, chunk }, now);
            return;
        }
        let event = SwarmEvent::Corrupt { from: self.name(&from), chunk, cause: wrong.to_string() };
        self.effects.push(Effect::Tell(event));
        self.schedule(schedule::Event::Corrupt { from, chunk }, now);
        if matches!(wrong, NotTheChunk::Image(_)) {
            self.give_up(format!("chunk {}: {wrong}", chunk.0));
        } else if from == self.config.seed {
            self.server_wrong += 1;
            if self.server_wrong >= SERVER_WRONG_MAX {
                self.give_up(format!(
                    "{SERVER_WRONG_MAX} chunks from the server failed their hash: this machine's memory or NIC, \
                     or the server's image store is faulty"
                ));
            }
        } else {
            self.say(ToServer::Corrupt { neighbour: from, chunk });
        }
    }

    pub(super) fn on_disk(&mut self, chunks: &[ChunkIndex], now: Duration) {
        let wanted = &self.config.wanted;
        let own: Vec<ChunkIndex> = chunks.iter().copied().filter(|chunk| wanted.contains(*chunk)).collect();
        let mut held = self.scheduler.held().clone();
        let new: Vec<ChunkIndex> = own.iter().copied().filter(|chunk| held.insert(*chunk)).collect();
        self.news.extend(&new);
        self.effects.push(Effect::Offer(own));
        self.schedule(schedule::Event::Found(new), now);
    }
}
