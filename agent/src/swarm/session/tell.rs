//! Core: what is said and done as time passes: dials, news and the report of the line for the server, and the end of
//! all waiting. Touches the session's state alone.

use std::time::Duration;

use common::chunk::ChunkIndex;
use common::wire::swarm::{Bottleneck, ToServer};

use super::report::Report;
use super::schedule;
use super::{Effect, Load, Session, TICK};
use crate::swarm::event::SwarmEvent;

/// How often the server hears how fast this agent's line is, which is also the sign of life.
const REPORT: Duration = Duration::from_secs(1);

/// Without a word from the server, a peer or the disk for this long, there is nothing left to wait for.
const FORSAKEN: Duration = Duration::from_secs(600);

/// When the server is gone for so long and nobody pulled for so long, a sealed agent lets itself go.
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
            // Without a server they may be forgotten: the next hello says everything.
            let chunks = std::mem::take(&mut self.news);
            self.say(ToServer::Have { chunks });
        }
        self.count_uploads(load, now);
        if self.started && !self.complete {
            self.waits.fetching(TICK, self.disk_is_behind());
        }
        (self.ticked, self.load) = (now, load);
        if now >= self.report.since + REPORT {
            self.report();
        }
        self.despair(now);
    }

    /// News were too much for the server's stream: they are said at the next tick.
    pub(super) fn not_said(&mut self, chunks: Vec<ChunkIndex>) {
        if self.control.is_some() {
            self.news.splice(0..0, chunks);
        }
    }

    fn count_uploads(&mut self, load: Load, now: Duration) {
        // What the kernel takes at once can wait there for long: the time counts until the next chunk may go.
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

    /// What fetching waited for from the last report to the last tick.
    pub(super) fn held_up(&mut self) -> Option<Bottleneck> {
        let passed = self.ticked.saturating_sub(self.report.since);
        self.waits.report(passed, self.load.cpu, self.config.cores, &mut self.sources)
    }

    /// What to do when nobody is there any more.
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
