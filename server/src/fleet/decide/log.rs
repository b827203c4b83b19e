//! Core, part of the fleet: writes events to the log, for a machine, a job or another owner, and limits those that
//! machines cause, above all machines that nobody let in. Touches `api`, `common` and the other cores of the fleet.

use common::limits::BARE_SIGHTINGS_MAX;
use common::step::{Step, What};
use jiff::{SignedDuration, Timestamp};

use super::super::machine::Machine;
use super::super::state::Change;
use super::Fleet;
use super::budget::Speaker;
use super::whose::{Said, Whose};
use crate::api::shapes::LogEvent;

/// Firmware repeats its requests: an event that is the same as the last one within this time is not logged again.
const REPEATED: SignedDuration = SignedDuration::from_secs(60);

impl Fleet {
    /// Whether an event of `whose` is within its rate limit; counts it against that.
    pub(super) fn may_say(&mut self, whose: &Whose<'_>, now: Timestamp) -> bool {
        let speaker = match whose {
            Whose::Job(job) => Speaker::Job(job.id),
            Whose::Machine(id) if self.is_let_in(*id) => Speaker::Machine(*id),
            Whose::Machine(id) => Speaker::Stranger(*id),
            Whose::Stranger(name) => Speaker::Somebody((*name).to_owned()),
            // Caused by an admin, so not limited.
            // What relays cause is logged once for each change, and there are few of them.
            // So is what a subscriber causes: a change needs half a minute.
            Whose::Order(_) | Whose::Server | Whose::Relay(_) | Whose::Site(_) | Whose::Subscriber(_) => {
                return true;
            }
        };
        let may = match speaker {
            Speaker::Job(_) | Speaker::Machine(_) => true,
            Speaker::Stranger(_) | Speaker::Somebody(_) => !self.is_tight,
        } && self.budgets.event(speaker, now);
        self.left_out += u64::from(!may);
        may
    }

    /// Who asked for what is being done, for texts.
    #[must_use]
    pub fn caller_name(&self) -> String {
        self.caller.as_ref().map_or_else(|| "an admin".to_owned(), |caller| caller.who.clone())
    }

    /// As [`Fleet::log`], within the rate limit of `whose`: for events that machines cause.
    pub(in crate::fleet) fn log_within(&mut self, at: Timestamp, whose: Whose<'_>, step: Step, what: What) {
        if self.may_say(&whose, at) {
            self.log(at, whose, step, what);
        }
    }

    /// Adds an event of the server's own to the log, without a limit.
    pub(in crate::fleet) fn log(&mut self, at: Timestamp, whose: Whose<'_>, step: Step, what: What) {
        self.log_with(at, whose, step, what, Said::default());
    }

    pub(super) fn log_with(&mut self, at: Timestamp, whose: Whose<'_>, step: Step, what: What, said: Said) {
        let (machine, job, name) = match whose {
            Whose::Machine(id) => (Some(id), None, None),
            Whose::Job(job) => (Some(job.machine), Some((job.id, job.deployment, job.attempt)), None),
            Whose::Stranger(name) => (None, None, Some(name.to_owned())),
            Whose::Order(id) => (None, None, Some(id.to_string())),
            Whose::Server => (None, None, Some("server".to_owned())),
            Whose::Relay(name) => (None, None, Some(format!("relay {name}"))),
            Whose::Site(name) => (None, None, Some(format!("site {name}"))),
            Whose::Subscriber(name) => (None, None, Some(name.to_owned())),
        };
        let deployment = match whose {
            Whose::Order(id) => Some(id),
            _ => job.map(|(_, deployment, _)| deployment),
        };
        let known = machine.and_then(|id| self.state.machines.get(&id)).map(Machine::shown_name);
        let event = LogEvent {
            id: self.state.last_event + 1,
            at,
            machine,
            name: name.or(known).or(machine.map(|id| id.to_string())).unwrap_or_default(),
            deployment,
            job: job.map(|(id, _, _)| id),
            attempt: job.map(|(_, _, attempt)| attempt),
            step,
            what: what.tidied(),
            sources: said.sources,
            by: self.caller.as_ref().map(|caller| caller.who.clone()),
            by_machine: said.by_machine,
        };
        self.put(Change::Event(Box::new(event)));
    }

    /// As [`Fleet::log_within`], but not when the same was logged for the same step a moment ago.
    pub(in crate::fleet) fn log_once(&mut self, at: Timestamp, whose: Whose<'_>, step: Step, what: What) {
        let words = format!("{what:?}");
        self.log_news(at, whose, step, ("", words), what);
    }

    /// As [`Fleet::log_once`], but compares `words` for each `subject` and logs `what`: a file that is fetched in a
    /// thousand parts has other byte counts each time, and is one event.
    pub(in crate::fleet) fn log_news(
        &mut self,
        at: Timestamp,
        whose: Whose<'_>,
        step: Step,
        (subject, words): (&str, String),
        what: What,
    ) {
        let who = match &whose {
            Whose::Machine(id) => id.to_string(),
            Whose::Job(job) => job.id.to_string(),
            Whose::Stranger(name) => (*name).to_owned(),
            Whose::Order(id) => id.to_string(),
            Whose::Server => "server".to_owned(),
            Whose::Relay(name) => format!("relay {name}"),
            Whose::Site(name) => format!("site {name}"),
            Whose::Subscriber(name) => (*name).to_owned(),
        };
        let key = (who, step.clone(), subject.to_owned());
        if let Some((before, then)) = self.said.get_mut(&key)
            && *before == words
            && at.duration_since(*then) < REPEATED
        {
            // The interval begins again: a machine that waits repeats this every few seconds for days.
            *then = at;
            return;
        }
        if self.said.len() >= 2 * BARE_SIGHTINGS_MAX {
            self.said.clear();
        }
        self.said.insert(key, (words, at));
        self.log_within(at, whose, step, what);
    }
}
