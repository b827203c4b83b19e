//! Core: when machines of one site ask for boot files that nobody there has, whether one goes first and the others
//! wait for it. The first that asks is the scout: it boots over the line, its agent fetches the files once more and
//! gives them to the others. Touches `common`; time is an argument.
//!
//! How long others wait at the most for a scout that dies, at any stage: [`QUIET`] after its last sign of life, and ten
//! seconds until they ask again, so 85 s. A second scout is tried then; when that dies too, all go over the line. No
//! machine waits longer than [`WAIT_MAX`] in all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::words::Who;

/// Seconds after which a waiting script asks again once an agent of the site fetches its files, which takes seconds.
const AGAIN_WITH_AGENT: u32 = 5;

/// ...and before that: a scout needs half a minute at least. A request with its answer is about 2 KB, so that fifty
/// machines that wait for a minute cost their line half a MiB; at five seconds it was more than their DHCP and scripts.
const AGAIN: u32 = 10;

/// How long a scout may show no sign of life. The longest silence of a healthy one is from its last boot file to its
/// report: its kernel unpacks, controllers are searched for up to 40 s, a port of a switch blocks for up to 30 s.
const QUIET: Duration = Duration::from_secs(75);

/// How long one machine waits at the most, over all scouts.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// How long a machine waits to see how many others come: machines of a rack ask within some seconds of each other.
const SETTLE: Duration = Duration::from_secs(6);

/// How long a machine waits for the rate of a line that has carried nothing yet: the scout's own download shows it.
const MEASURE: Duration = Duration::from_secs(15);

/// What waiting has to save before it pays: what all of them would take over the line. A scout takes about a minute to
/// come up as an agent.
const PAYS: Duration = Duration::from_secs(60);

/// What fetching by an agent that is there has to save before it pays: below it, asking again costs more.
const PAYS_WITH_AGENT: Duration = Duration::from_secs(3);

/// Scouts that die before all machines go over the line.
const SCOUTS_MAX: u32 = 2;

/// How long all machines of a site go over the line after its scouts have died, or its agents did not fetch.
const GIVEN_UP: Duration = Duration::from_secs(10 * 60);

/// How long a machine is remembered as waiting after it last asked.
const FORGET: Duration = Duration::from_secs(60);

/// Machines that are remembered as waiting; a site has a few hundred at the most.
const WAITING_MAX: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Scout {
    who: Who,
    /// When it last showed that it is alive.
    sign: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Duration,
    last: Duration,
}

/// What the gate knows of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) who: Who,
    /// Whether it will be an agent that can serve others.
    pub(super) ordered: bool,
    pub(super) expected: usize,
    /// Bytes of its files, of which `missing` are at no agent of the site.
    pub(super) bytes: u64,
    pub(super) missing: u64,
    /// Bytes a second of the line.
    pub(super) rate: Option<u64>,
    /// Whether an agent of the site can fetch the files.
    pub(super) agent: bool,
}

/// Whether a machine waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Goes,
    Waits,
}

/// The gate of one site.
#[derive(Debug, Default)]
pub(super) struct Scouts {
    scout: Option<Scout>,
    waiting: BTreeMap<Who, Waiting>,
    /// Scouts that died one after the other.
    died: u32,
    given_up: Option<Duration>,
    /// Since when an agent is there and machines still wait for it to fetch their files.
    fetching: Option<Duration>,
}

impl Scouts {
    /// Whether `request`, for files that no agent of the site has all of, goes over the line now.
    pub(super) fn ask(&mut self, request: &Request, now: Duration) -> Gate {
        self.waiting.retain(|_, waiting| now < waiting.last + FORGET);
        if self.given_up.is_some_and(|until| now >= until) {
            (self.given_up, self.died) = (None, 0);
        }
        let gate = self.decide(request, now);
        match gate {
            Gate::Goes => {
                self.waiting.remove(&request.who);
            }
            Gate::Waits if self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&request.who) => {
                self.waiting.entry(request.who).or_insert(Waiting { since: now, last: now }).last = now;
            }
            Gate::Waits => return Gate::Goes,
        }
        gate
    }

    fn decide(&mut self, request: &Request, now: Duration) -> Gate {
        let since = self.waiting.get(&request.who).map_or(now, |waiting| waiting.since);
        if self.given_up.is_some() || now >= since + WAIT_MAX {
            return Gate::Goes;
        }
        if request.agent {
            return self.with_agent(request, now);
        }
        self.fetching = None;
        if !request.ordered {
            return Gate::Goes;
        }
        match self.scout {
            Some(scout) if scout.who.is(&request.who) => Gate::Goes,
            Some(scout) if now < scout.sign + QUIET => self.behind_scout(request, since, now),
            gone => {
                // A scout behind which nobody waited has cost nobody anything.
                self.died = if self.waiting.is_empty() { 0 } else { self.died + u32::from(gone.is_some()) };
                if self.died >= SCOUTS_MAX {
                    self.give_up(now);
                } else {
                    self.scout = Some(Scout { who: request.who, sign: now });
                }
                Gate::Goes
            }
        }
    }

    /// An agent is there: it fetches what it lacks in the time that this machine would take itself.
    fn with_agent(&mut self, request: &Request, now: Duration) -> Gate {
        let began = *self.fetching.get_or_insert(now);
        // The files of others may come first: all of them in four times the time that they need alone.
        let needs = request.rate.map(|rate| Duration::from_secs(request.missing / rate.max(1)));
        match needs {
            Some(needs) if now >= began + QUIET + needs * 4 => {
                self.give_up(now);
                Gate::Goes
            }
            Some(_) if self.saved(1, request) >= PAYS_WITH_AGENT => Gate::Waits,
            _ => Gate::Goes,
        }
    }

    fn behind_scout(&self, request: &Request, since: Duration, now: Duration) -> Gate {
        if request.rate.is_none() {
            return if now < since + MEASURE { Gate::Waits } else { Gate::Goes };
        }
        let others = self.waiting.keys().filter(|who| !who.is(&request.who)).count();
        // The scout is one of those with an order, and has what it needs.
        let machines = (others + 1).max(request.expected.saturating_sub(1));
        let waits = self.saved(machines, request) > PAYS || now < since + SETTLE;
        if waits { Gate::Waits } else { Gate::Goes }
    }

    /// What `machines` would take over the line to fetch these files.
    fn saved(&self, machines: usize, request: &Request) -> Duration {
        let bytes = u64::try_from(machines).unwrap_or(u64::MAX).saturating_mul(request.bytes);
        request.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(bytes / rate.max(1)))
    }

    fn give_up(&mut self, now: Duration) {
        (self.scout, self.fetching) = (None, None);
        self.given_up = Some(now + GIVEN_UP);
    }

    /// After how many seconds one that waits asks again; `agent` as in [`Request`].
    pub(super) const fn again(agent: bool) -> u32 {
        if agent { AGAIN_WITH_AGENT } else { AGAIN }
    }

    /// Something came from `address`, or was sent to it whole. Only the scout's signs count.
    pub(super) fn sign(&mut self, address: IpAddr, now: Duration) {
        if let Some(scout) = self.scout.as_mut().filter(|scout| scout.who.address == address) {
            scout.sign = now;
        }
    }

    /// An agent of the site can give out files: the scout has done its part.
    pub(super) fn arrived(&mut self) {
        self.scout = None;
    }

    /// An agent of the site holds files that machines waited for.
    pub(super) fn served(&mut self) {
        (self.died, self.fetching) = (0, None);
    }

    /// The last agent of the site left before anybody was served by it: as bad as a scout that died.
    pub(super) fn deserted(&mut self, now: Duration) {
        if self.fetching.take().is_some() {
            self.died += 1;
            if self.died >= SCOUTS_MAX {
                self.give_up(now);
            }
        }
    }

    /// Machines that wait now.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.given_up.is_none_or(|until| now >= until)
            && self.scout.is_none_or(|scout| now >= scout.sign + GIVEN_UP)
            && self.waiting.values().all(|waiting| now >= waiting.last + FORGET)
    }
}
