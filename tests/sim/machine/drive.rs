//! Drives the machines' sessions in the world: gives them events, carries out effects. Touches lines and messages.

use std::collections::VecDeque;
use std::time::Duration;

use agent::swarm::SwarmEvent;
use agent::swarm::session::{Backlog, Dial, Effect, Event, Pulled};
use agent::swarm::verify::NotTheChunk;
use common::chunk::{ChunkIndex, ChunkSet};
use common::limits::CHUNK_BYTES;
use common::swarm::behaviour::Protocol;
use common::swarm::slots;
use common::swarm::splitmix::SplitMix64;
use common::wire::swarm::ToAgent;

use super::Life;
use crate::lines::Holder;
use crate::names::full;
use crate::post::Message;
use crate::spec::{Fate, Spec};
use crate::world::World;

impl World {
    /// Lets machines join and leave, and gives each that is there a tick.
    pub(crate) fn tick_machines(&mut self) {
        for at in 0..self.machines.len() {
            self.fate(at);
        }
        for at in 0..self.machines.len() {
            if self.machines[at].here {
                let load = self.machines[at].load();
                self.tell(at, Event::Tick(load));
            }
        }
    }

    /// Tells the machines that receive a flow that bytes have come.
    pub(crate) fn tell_of_flows(&mut self) {
        let moving = self.lines.flows().iter().filter(|flow| flow.rate > 0.0);
        let moving: Vec<(usize, Holder)> = moving.map(|flow| (flow.to, flow.from)).collect();
        for (to, from) in moving {
            self.pulled(to, from, Pulled::Moved);
        }
    }

    /// Tells machines with requests in a queue that the holder is alive.
    pub(crate) fn tell_of_queues(&mut self) {
        let mut waiting: Vec<(usize, Holder)> = Vec::new();
        for (number, machine) in self.machines.iter().enumerate() {
            if machine.here && !machine.stalled {
                waiting.extend(machine.life.queue.iter().map(|(to, _)| (*to, Holder::Machine(number))));
            }
        }
        waiting.extend(self.server.waiting().map(|to| (to, Holder::Server)));
        for (to, from) in waiting {
            self.pulled(to, from, Pulled::Moved);
        }
    }

    fn fate(&mut self, at: usize) {
        let machine = &self.machines[at];
        let Spec { site: _, up, down, joins, fate } = machine.spec;
        let now = self.now;
        let here = now >= joins
            && !machine.released
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

    fn join(&mut self, at: usize) {
        let (now, chunks) = (self.now, self.chunks);
        let machine = &mut self.machines[at];
        machine.start_again(now);
        if machine.lies() {
            // It claims every chunk from the start.
            machine.held = full(chunks);
        }
        let held = machine.held.iter().collect();
        self.tell(at, Event::OnDisk(held));
    }

    fn leave(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        machine.here = false;
        let Life { dials, pullers, .. } = std::mem::take(&mut machine.life);
        self.post.lose(|message| message.concerns(at));
        for flow in self.lines.stop(|flow| flow.to == at || flow.from == Holder::Machine(at)) {
            self.free(flow.from, flow.to);
        }
        for (holder, _) in dials.into_values() {
            self.pulls_no_more(at, holder);
        }
        self.server_loses(at);
        for other in pullers {
            self.cut_off(other, Holder::Machine(at), "it is gone");
        }
    }

    /// Gives a machine's session an event, and carries out its effects.
    pub(crate) fn tell(&mut self, at: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = Duration::from_secs_f64(self.now - self.machines[at].life.began);
            for effect in self.machines[at].session.handle(event, now) {
                events.extend(self.carry_out(at, effect));
            }
        }
    }

    /// Gives `at` a message of `holder` on its pull stream, if there is one.
    pub(crate) fn pulled(&mut self, at: usize, holder: Holder, word: Pulled) {
        if let Some(dial) = self.machines[at].dial(holder, Protocol::Pull) {
            let from = self.key_of(holder);
            self.tell(at, Event::Pulled { from, dial, word });
        }
    }

    /// Carries out one effect; the event that follows from it at once, if any.
    fn carry_out(&mut self, at: usize, effect: Effect) -> Option<Event> {
        let machine = &mut self.machines[at];
        match effect {
            Effect::Dial { dial, to, protocol, .. } => {
                let holder = self.holder(&to);
                self.machines[at].life.dials.insert(dial, (holder, protocol));
                self.post.send(self.now + self.delay(holder), Message::Reached { at, dial });
            }
            Effect::Close(dial) => self.close(at, dial),
            Effect::Ask { dial, chunk } => self.ask(at, dial, chunk),
            Effect::Cancel { dial, chunk } => {
                if let Some(&(holder, _)) = machine.life.dials.get(&dial) {
                    let cancel = Message::Cancel { holder, by: at, chunk };
                    self.post.send(self.now + self.delay(holder), cancel);
                }
            }
            Effect::Say { word, .. } => {
                let arrives = self.now + self.delay(Holder::Server);
                self.post.send(arrives, Message::ToServer { from: at, word });
            }
            Effect::Allow(list) => {
                machine.life.allowed = list.into_iter().collect();
                let shut_out =
                    |other: &usize| !self.machines[at].life.allowed.contains(&self.machines[*other].key);
                let out: Vec<usize> =
                    self.machines[at].life.pullers.iter().copied().filter(shut_out).collect();
                for other in out {
                    self.cut_off(other, Holder::Machine(at), "it does not let us in");
                }
            }
            Effect::Slots(most) => machine.life.slots = most,
            Effect::Check { from, chunk } => {
                self.duplicates -= u64::from(CHUNK_BYTES);
                if matches!(self.holder(&from), Holder::Machine(from) if self.machines[from].lies()) {
                    let wrong = NotTheChunk::Length { wanted: CHUNK_BYTES, got: 0 };
                    return Some(Event::Wrong { from, chunk, wrong });
                }
                self.machines[at].right.insert(chunk);
                return Some(Event::Verified { from, chunk, bytes: u64::from(CHUNK_BYTES) });
            }
            Effect::Keep(chunk) => {
                machine.held.insert(chunk);
                if machine.life.news.is_empty() {
                    self.post.send(self.now.max(machine.life.next_news), Message::Gather { of: at });
                }
                machine.life.news.push(chunk);
                // The disk takes every chunk at once.
                return Some(Event::Backlog(Backlog::default()));
            }
            Effect::Offer(_) | Effect::EndChunks => {}
            Effect::Tell(event) => return self.step(at, event),
            // Machines here give out no boot files: `power_on` has those.
            Effect::Hold(_) => {}
        }
        None
    }

    /// The reaction of the steps of `at` to a swarm event.
    fn step(&mut self, at: usize, event: SwarmEvent) -> Option<Event> {
        let machine = &mut self.machines[at];
        match event {
            SwarmEvent::Complete => {
                machine.done.get_or_insert(self.now);
                // A liar stays for as long as it can.
                (!machine.lies()).then_some(Event::Sealed)
            }
            SwarmEvent::Release => {
                machine.released = true;
                None
            }
            SwarmEvent::Broken(cause) | SwarmEvent::Cancel(cause) => {
                panic!("machine {at} gives up after {:.1} s: {cause}", self.now)
            }
            _ => None,
        }
    }

    /// A dial of `at` has reached its other end.
    pub(crate) fn reached(&mut self, at: usize, dial: Dial) {
        let Some(&(holder, protocol)) = self.machines[at].life.dials.get(&dial) else { return };
        let isolated = |number: usize| self.machines[number].spec.fate == Fate::Isolated;
        let refused = match holder {
            Holder::Server if self.server.lives() => None,
            Holder::Machine(other) if isolated(at) || isolated(other) || !self.machines[other].here => {
                Some("no route")
            }
            Holder::Machine(other) if !self.machines[other].life.allowed.contains(&self.machines[at].key) => {
                Some("it does not let us in")
            }
            Holder::Machine(_) => None,
            Holder::Server => Some("nobody listens"),
        };
        if let Some(cause) = refused {
            self.machines[at].life.dials.remove(&dial);
            self.tell(at, Event::Failed { dial, cause: cause.to_owned() });
            return;
        }
        self.tell(at, Event::Opened(dial));
        if protocol == Protocol::Pull {
            let mut held = ChunkSet::new(self.chunks);
            if let Holder::Machine(other) = holder {
                self.machines[other].life.pullers.insert(at);
                held.clone_from(&self.machines[other].held);
            }
            self.pulled(at, holder, Pulled::Holding(held));
        }
    }

    /// A message of the server arrives at `to`.
    pub(crate) fn agent_hears(&mut self, to: usize, word: ToAgent) {
        if let Some(dial) = self.machines[to].dial(Holder::Server, Protocol::Control) {
            self.tell(to, Event::Server { dial, word });
        }
    }

    /// Machine `at` closes a connection.
    fn close(&mut self, at: usize, dial: Dial) {
        if let Some((holder, Protocol::Pull)) = self.machines[at].life.dials.remove(&dial) {
            self.pulls_no_more(at, holder);
        }
    }

    /// The pull stream of `at` to `holder` is closed: its requests there are dropped.
    fn pulls_no_more(&mut self, at: usize, holder: Holder) {
        if let Holder::Machine(other) = holder {
            self.machines[other].life.pullers.remove(&at);
        }
        self.drop_request(holder, at, None);
        for flow in self.lines.stop(|flow| flow.to == at && flow.from == holder) {
            self.free(flow.from, flow.to);
        }
        self.post.lose(|message| message.between(at, holder));
    }

    /// Ends every dial of `at` to `holder`, and tells `at`.
    pub(crate) fn cut_off(&mut self, at: usize, holder: Holder, cause: &str) {
        let ended = |(dial, (other, _)): (&Dial, &(Holder, Protocol))| (*other == holder).then_some(*dial);
        let ended: Vec<Dial> = self.machines[at].life.dials.iter().filter_map(ended).collect();
        for dial in ended {
            self.close(at, dial);
            self.tell(at, Event::Failed { dial, cause: cause.to_owned() });
        }
    }

    fn ask(&mut self, at: usize, dial: Dial, chunk: ChunkIndex) {
        let machine = &self.machines[at];
        assert!(machine.session.in_flight() <= machine.config.fetch_parallel);
        let Some(&(holder, _)) = machine.life.dials.get(&dial) else { return };
        let number = if let Holder::Machine(number) = holder { number } else { 0xFFFF };
        let mark = (at as u64) << 48 | (number as u64) << 32 | u64::from(chunk.0);
        self.trace = SplitMix64::new(self.trace ^ mark).next_u64();
        self.post.send(self.now + self.delay(holder), Message::Ask { holder, by: at, chunk });
    }

    pub(crate) fn asked(&mut self, holder: Holder, by: usize, chunk: ChunkIndex) {
        match holder {
            Holder::Server => self.server.asked(self.machines[by].spec.site, by, chunk),
            Holder::Machine(holder) => {
                self.machines[holder].life.queue.push_back((by, chunk));
                self.sending.insert(holder);
            }
        }
    }

    /// Drops the requests of `by` at `holder`: for one chunk or all.
    pub(crate) fn drop_request(&mut self, holder: Holder, by: usize, chunk: Option<ChunkIndex>) {
        let other =
            |entry: &(usize, ChunkIndex)| entry.0 != by || chunk.is_some_and(|chunk| chunk != entry.1);
        match holder {
            Holder::Server => self.server.retain(self.machines[by].spec.site, other),
            Holder::Machine(holder) => self.machines[holder].life.queue.retain(other),
        }
    }

    /// Starts flows while there is a free slot.
    pub(crate) fn serve_peers(&mut self, from: usize) {
        let holder = Holder::Machine(from);
        while self.machines[from].life.uploading.len() < self.machines[from].life.slots {
            let Some((to, chunk)) = self.next_turn(from) else { break };
            let machine = &mut self.machines[from];
            if machine.held.contains(chunk) {
                machine.life.uploading.push(to);
                self.lines.begin(holder, to, chunk);
                self.coming_changes(to);
            } else {
                let answer = Message::Unavailable { holder, to, chunk };
                self.post.send(self.now + self.delay(holder), answer);
            }
        }
    }

    /// The next request at `from`, taken off its queue.
    fn next_turn(&mut self, from: usize) -> Option<(usize, ChunkIndex)> {
        let machine = &self.machines[from];
        // A puller's stream carries one chunk at a time.
        let waits = |(_, (to, _)): &(usize, &(usize, ChunkIndex))| !machine.life.uploading.contains(to);
        let waiting: Vec<(usize, usize)> = machine
            .life
            .queue
            .iter()
            .enumerate()
            .filter(waits)
            .map(|(place, (to, _))| (place, *to))
            .collect();
        let turn = slots::next(waiting.iter().map(|(_, to)| self.machines[*to].life.coming))?;
        self.machines[from].life.queue.remove(waiting[turn].0)
    }

    pub(crate) fn landed(&mut self, from: Holder, to: usize, chunk: ChunkIndex) {
        // Counted until its check begins: it may have been requested twice, or of a neighbour now quarantined.
        self.duplicates += u64::from(CHUNK_BYTES);
        self.pulled(to, from, Pulled::Arrived { chunk, bytes: u64::from(CHUNK_BYTES) });
    }

    /// Announces these chunks to the machines that pull from `from`.
    pub(crate) fn have(&mut self, from: usize, chunks: &[ChunkIndex]) {
        for to in self.machines[from].life.pullers.clone() {
            self.pulled(to, Holder::Machine(from), Pulled::Have(chunks.to_vec()));
        }
    }
}
