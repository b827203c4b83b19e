//! Core: what follows from the passing of time: dials, `Have` and `Speed` messages to the server, and giving up after
//! long silence. Touches only the session's state.

use std::time::Duration;

use common::chunk::ChunkIndex;
use common::wire::swarm::{Bottleneck, ToServer};

use super::report::{self, Report};
use super::schedule;
use super::{Effect, Load, Session, TICK};
use crate::swarm::event::SwarmEvent;

/// The longest interval of speed reports, whatever the server asks for: they also show that this agent is alive and
/// gets something from its peers, which the server wants to know within six seconds (`STARVING` of its injection).
const SPEED_SLOWEST: Duration = Duration::from_secs(3);

/// The longest interval of any report that the server may ask for.
const SLOWEST: Duration = Duration::from_secs(60);

/// The session gives up after this long without a message of the server or a verified chunk.
const FORSAKEN: Duration = Duration::from_secs(600);

/// A sealed agent stops serving when for this long the server was gone and nobody pulled.
const ORPHANED: Duration = Duration::from_secs(60);

impl Session {
    pub(super) fn tick(&mut self, load: Load, now: Duration) {
        self.schedule(schedule::Event::Tick, now);
        for (dial, (to, protocol), addresses) in self.links.dial(now) {
            self.effects.push(Effect::Dial { dial, to, protocol, addresses });
        }
        for dial in self.links.overdue(now) {
            self.hang_up(dial, "it does not answer", now);
        }
        if !self.news.is_empty() {
            // Without a control stream they are dropped: the next hello lists all chunks that are held.
            let chunks = std::mem::take(&mut self.news);
            self.say(ToServer::Have { chunks });
        }
        self.count_uploads(load, now);
        if self.started && !self.complete {
            self.waits.fetching(TICK, self.disk_is_behind());
        }
        (self.ticked, self.load) = (now, load);
        if now >= self.report.since + self.pace.min(SPEED_SLOWEST) {
            self.report();
        }
        self.despair(now);
    }

    /// Keeps news that did not fit into the control stream's queue for the next tick.
    pub(super) fn not_said(&mut self, chunks: Vec<ChunkIndex>) {
        if self.control.is_some() {
            self.news.splice(0..0, chunks);
        }
    }

    /// The server says how often to report.
    pub(super) fn paced(&mut self, millis: u32) {
        let pace = Duration::from_millis(millis.into()).clamp(report::EVERY, SLOWEST);
        if std::mem::replace(&mut self.pace, pace) != pace {
            self.effects.push(Effect::Tell(SwarmEvent::Pace(pace)));
        }
    }

    fn count_uploads(&mut self, load: Load, now: Duration) {
        // The kernel may buffer what a chunk's task has written: the time counts until that task can send the next one.
        if load.sending {
            self.report.sending += TICK;
        }
        let more = load.uploaded.saturating_sub(self.sources.uploaded);
        if more > 0 {
            self.sources.uploaded = load.uploaded;
            self.uploaded_at = now;
            self.report.sent += more;
        }
    }

    fn report(&mut self) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let passed = self.ticked.saturating_sub(self.report.since);
        let bottleneck = self.held_up();
        let report = std::mem::replace(&mut self.report, Report { since: self.ticked, ..Report::default() });
        self.say(ToServer::Speed {
            sent: report.sent,
            sending_millis: millis(report.sending),
            from_peers: report.from_peers,
            from_server: report.from_server,
            millis: millis(passed),
            bottleneck,
        });
    }

    /// Tells the server which small files this machine gives out; again after each hello.
    pub(super) fn say_holding(&mut self) {
        if let Some((port, objects)) = self.holding.clone() {
            self.say(ToServer::Holding { port, objects });
        }
    }

    /// What fetching waited for most, from the last report to the last tick.
    pub(super) fn held_up(&mut self) -> Option<Bottleneck> {
        let passed = self.ticked.saturating_sub(self.report.since);
        self.waits.report(passed, self.load.cpu, self.config.cores, &mut self.sources)
    }

    /// Gives up fetching, or stops serving, when nobody was heard of for too long.
    fn despair(&mut self, now: Duration) {
        if self.sealed && !self.released {
            let quiet = now >= self.uploaded_at + ORPHANED && now >= self.server_heard + ORPHANED;
            if quiet && self.control.is_none() {
                self.released = true;
                self.note("the server is gone and nobody pulls: not lingering".to_owned());
                self.effects.push(Effect::Tell(SwarmEvent::Release));
            }
        } else if !self.complete && !self.broken && now >= self.heard + FORSAKEN {
            let minutes = FORSAKEN.as_secs() / 60;
            self.give_up(format!("neither the server nor a peer was heard of for {minutes} minutes"));
        }
    }
}
