//! Core: what the fleet does with what it is told. Every word from a door, a machine or an admin comes here
//! with the time it came at, changes the state, and leaves behind what must be written down and what the
//! swarm must know. Orders (`orders`), machines that report (`reports`), what DHCP and TFTP saw (`sightings`)
//! and what an admin decided for all (`settings`) are further parts of it. Touches `api`, `common` and the
//! other cores of the fleet.

// Why a machine is given nothing.
mod bars;

// Whose an event of the log is.
mod whose;

// The log: what is said of whom, and who may say it.
mod log;

// How much may be asked of the records by whom nobody let in.
mod budget;

// The boots that keys are of.
mod boots;

// Whether an agent is at work that may not be disturbed.
mod at_work;

// Machines whose identity is in doubt, and what an admin says about them.
mod doubts;

// Secrets of orders that nobody needs any more.
mod secrets;

// What an admin decided for the whole fleet.
mod settings;

// Machines that nobody let in, and what is kept of them.
mod strangers;

// An installed OS calls home.
mod homecoming;

// What the doors saw.
mod sightings;

// What the doors saw of each machine.
mod trails;

// What is concluded of machines that say nothing.
mod silences;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use common::id::{JobId, MachineId};
use common::limits::{BEFORE_REPORT, cut};
use common::step::{EventBatch, Owner, Step, StepEvent, What};
use common::trust::PublicKey;
use jiff::{SignedDuration, Timestamp};

use super::job::{Effect, Job, JobEvent};
use super::machine::{Machine, restored};
use super::silence::Seen;
use super::state::{Change, State};
use crate::api::shapes::{JobState, MachineState};

use boots::{Boots, SILENT};
use budget::Budgets;
use trails::Trails;
use whose::Said;

pub use boots::{AtWork, REPORT_LIFE};
pub use settings::{Settings, SiteRule};
pub(super) use whose::Whose;

/// What has to be done outside for what was decided in here: first the changes, then the rest.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be written down.
    pub changes: Vec<Change>,
    /// Keys that are let into the swarm no more, each with what its agent is told.
    pub dismissed: Vec<(PublicKey, Option<String>)>,
}

/// All that is known and decided, and what of it is still to be done outside ([`Effects`]). One thread owns it.
#[derive(Debug)]
pub struct Fleet {
    /// Machines, deployments and jobs, as they are on record or will be once `after` is written.
    pub state: State,
    /// What was decided for the whole fleet.
    pub settings: Settings,
    pub(super) after: Effects,
    /// Who was last seen under an IP address; learnt again after a restart.
    pub(super) by_address: HashMap<IpAddr, MachineId>,
    trails: Trails,
    /// What was said last, by speaker, step and subject.
    said: HashMap<(String, Step, String), (String, Timestamp)>,
    /// Jobs of which it was said that they are silent, each with the last word of its machine.
    silent: HashMap<JobId, Timestamp>,
    pub(super) boots: Boots,
    /// Events that were of no use: late, twice, or of an older attempt.
    pub dropped: u64,
    budgets: Budgets,
    looked_for_secrets: Option<Timestamp>,
    /// Lines that were left out of the log, because their speaker had said too much.
    pub left_out: u64,
    /// Whether the records' disk is nearly full: nothing is recorded then that nobody asked for.
    pub is_tight: bool,
}

/// What became of a batch of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The highest number that is in the log.
    pub through: u64,
    /// Why the job was cancelled, if it was.
    pub cancelled: Option<String>,
}

/// Why a batch of events was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventsRefused {
    /// No machine's present boot has this key.
    #[error("no machine has reported under the key {0}")]
    UnknownKey(PublicKey),
}

impl Fleet {
    /// A fleet over what is known.
    #[must_use]
    pub fn new(state: State, settings: Settings) -> Self {
        Self {
            state,
            settings,
            after: Effects::default(),
            by_address: HashMap::new(),
            trails: Trails::default(),
            said: HashMap::new(),
            silent: HashMap::new(),
            boots: Boots::default(),
            dropped: 0,
            budgets: Budgets::default(),
            looked_for_secrets: None,
            left_out: 0,
            is_tight: false,
        }
    }

    /// The sites that are known: those that an admin named, and where machines are.
    #[must_use]
    pub fn sites(&self) -> BTreeSet<String> {
        let named = self.settings.sites.iter().map(|rule| &rule.site);
        named.chain(self.state.machines.values().map(|machine| &machine.site)).cloned().collect()
    }

    /// What an admin should look at, each in one sentence.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_tight {
            warnings.push(format!(
                "less than {} MiB are free on the disk of the state folder: machines that nobody let in are not \
                 recorded until there are",
                self.settings.reserve_bytes >> 20
            ));
        }
        let aside = &self.state.set_aside;
        warnings.extend(
            aside
                .iter()
                .take(5)
                .map(|row| format!("a record cannot be read and is set aside: {}", row.words)),
        );
        if aside.len() > 5 {
            warnings.push(format!(
                "{} more records cannot be read: the server's own log names them",
                aside.len() - 5
            ));
        }
        if self.left_out > 0 {
            warnings.push(format!(
                "{} events or reports of machines that nobody let in were left out since the start: somebody sends a lot",
                self.left_out
            ));
        }
        warnings
    }

    /// What has to be done outside since this was asked last.
    pub fn take_aftermath(&mut self) -> Effects {
        std::mem::take(&mut self.after)
    }

    pub(super) fn put(&mut self, change: Change) {
        self.state.adopt(&change);
        self.after.changes.push(change);
    }

    pub(super) fn put_machine(&mut self, machine: Machine) {
        self.put(Change::Machine(Box::new(machine)));
    }

    /// Lets `event` happen to a job, with all that follows.
    pub(super) fn happen(&mut self, job: JobId, event: JobEvent, now: Timestamp) -> Happened {
        let Some(mut job) = self.state.jobs.get(&job).cloned() else { return Happened::Dropped };
        let before = job.clone();
        let effects = job.apply(event, now);
        if effects.contains(&Effect::Dropped) {
            self.dropped += 1;
            return Happened::Dropped;
        }
        if job != before {
            self.put(Change::Job(Box::new(job.clone())));
        }
        for effect in effects {
            self.follow(&job, effect, now);
        }
        Happened::Taken
    }

    fn follow(&mut self, job: &Job, effect: Effect, now: Timestamp) {
        let machine = self.state.machines.get(&job.machine).cloned();
        match (effect, machine) {
            (Effect::Machine(state), Some(mut machine)) => {
                // An admin's word stands above what a job makes of the machine.
                if !matches!(machine.state, MachineState::Rejected | MachineState::Retired) {
                    machine.state = state;
                    self.put_machine(machine);
                }
            }
            (Effect::Restore { touched }, Some(mut machine)) => {
                machine.state = restored(&machine, job.before, touched);
                self.put_machine(machine);
            }
            (Effect::OsGone, Some(mut machine)) => {
                machine.deployed_image = None;
                if machine.state == MachineState::Deployed {
                    machine.state = MachineState::Inspected;
                }
                self.put_machine(machine);
            }
            (Effect::IdleBoot(idle_boot), Some(mut machine)) => {
                machine.idle_boot = idle_boot;
                self.put_machine(machine);
            }
            (Effect::Deployed | Effect::OsThere, Some(mut machine)) => {
                let image = self.state.deployments.get(&job.deployment).map(|order| order.image_name.clone());
                machine.deployed_image = image;
                self.put_machine(machine);
            }
            (Effect::Dismiss(key, reason), _) => self.after.dismissed.push((key, reason)),
            (Effect::Log(step, what), _) => self.log(now, Whose::Job(job), step, what),
            // The machine was forgotten.
            (_, None) | (Effect::Dropped, _) => {}
        }
    }

    /// A machine told of its steps; the batch was signed by the key in it.
    ///
    /// # Errors
    /// When no machine's present boot has that key.
    pub fn events(&mut self, batch: EventBatch, now: Timestamp) -> Result<Taken, EventsRefused> {
        let refused = || EventsRefused::UnknownKey(batch.key);
        let mut machine = self.state.by_key(&batch.key).cloned().ok_or_else(refused)?;
        let mut boot = machine.boot.ok_or_else(refused)?;
        // What an older attempt of the same boot left undelivered is dropped: its end would end this attempt.
        let of_this_attempt = |job: &Job| {
            job.machine == machine.id
                && job.key == Some(batch.key)
                && batch.attempt.is_none_or(|attempt| attempt == job.attempt)
        };
        let job = batch.job.filter(|job| self.state.jobs.get(job).is_some_and(of_this_attempt));
        let mut fresh = Vec::new();
        for event in batch.events {
            if event.number <= boot.through || (batch.job.is_some() && job.is_none()) {
                self.dropped += 1;
            } else {
                fresh.push(event.clone());
            }
            boot.through = boot.through.max(event.number);
        }
        machine.boot = Some(boot);
        machine.last_seen = now;
        self.boots.hear(batch.key, now);
        let id = machine.id;
        self.put_machine(machine);
        self.trace(id, Seen::Reported, now);
        for event in fresh {
            self.told(id, job, batch.key, event, batch.sent_at_ms, now);
        }
        let cancelled = batch.job.and_then(|job| self.state.jobs.get(&job)).and_then(|job| {
            let ended = job.state == JobState::Cancelled && job.machine == id;
            ended.then(|| job.cause.clone().unwrap_or_else(|| "cancelled".to_owned()))
        });
        Ok(Taken { through: boot.through, cancelled })
    }

    fn told(
        &mut self,
        machine: MachineId,
        job: Option<JobId>,
        key: PublicKey,
        event: StepEvent,
        sent_at_ms: u64,
        now: Timestamp,
    ) {
        let event = StepEvent { step: tidy_step(event.step), what: event.what.tidied(), ..event };
        if !is_machines_step(&event.step) {
            // What the server decides, only the server says.
            self.dropped += 1;
            return;
        }
        // The machine's clock may be wrong, so an event is dated by its distance to the sending, within its boot.
        let age = i64::try_from(sent_at_ms.saturating_sub(event.at_ms)).unwrap_or(i64::MAX);
        let booted =
            self.state.machines.get(&machine).and_then(|machine| machine.boot).map(|boot| boot.since);
        let earliest = booted.and_then(|since| since.checked_sub(BEFORE_REPORT).ok()).unwrap_or(now);
        let at = now.checked_sub(SignedDuration::from_millis(age)).unwrap_or(earliest).max(earliest).min(now);
        let job = job.and_then(|job| self.state.jobs.get(&job)).cloned();
        let whose = job.as_ref().map_or(Whose::Machine(machine), Whose::Job);
        if self.may_say(&whose, now) {
            let said = Said { sources: event.sources, by_machine: true };
            self.log_with(at, whose, event.step.clone(), event.what.clone(), said);
        }
        if let Some(job) = job {
            self.happen(job.id, JobEvent::Told { key, event }, now);
        }
    }

    /// The swarm or another room has something to say of a job.
    pub fn remark(&mut self, job: JobId, step: Step, what: What, now: Timestamp) {
        if let Some(job) = self.state.jobs.get(&job).cloned() {
            self.log_once(now, Whose::Job(&job), step, what);
        }
    }

    /// Time passed: jobs whose call home is due fail, orders that nobody came for end, and what is to be concluded of
    /// silent machines and agents is said. Nothing depends on how often this comes but how soon it is noticed.
    pub fn tick(&mut self, now: Timestamp) {
        let due: Vec<JobId> = self
            .state
            .jobs
            .values()
            .filter(|job| job.deadline.is_some_and(|at| now >= at))
            .map(|job| job.id)
            .collect();
        self.notice(now);
        for job in due {
            self.explain(job);
            self.happen(job, JobEvent::Tick, now);
        }
        self.expire(now);
        self.notice_silence(now);
        if self.looked_for_secrets.is_none_or(|at| now.duration_since(at) >= SignedDuration::from_mins(1)) {
            self.looked_for_secrets = Some(now);
            self.remove_secrets(now);
        }
    }

    /// Gives a job that is about to be given up the reason that was seen.
    fn explain(&mut self, job: JobId) {
        let Some(mut job) = self.state.jobs.get(&job).cloned() else { return };
        let note = self.state.notes.get(&job.machine).map(ToString::to_string);
        if job.state == JobState::Written && job.cause.is_none() && note.is_some() {
            job.cause = note;
            self.put(Change::Job(Box::new(job)));
        }
    }

    /// Says once of each silent agent that it is silent. Nothing else follows: when the machine is switched on
    /// again, its next attempt takes up what is on the disk.
    fn notice_silence(&mut self, now: Timestamp) {
        let running = self.state.jobs.values().filter(|job| job.state == JobState::Running);
        let heard = running.filter_map(|job| Some((job, self.state.machines.get(&job.machine)?.last_seen)));
        let silent = heard.filter(|(_, last)| now.duration_since(*last) >= SILENT);
        let new: Vec<(Job, Timestamp)> = silent
            .filter(|(job, last)| self.silent.get(&job.id) != Some(last))
            .map(|(job, last)| (job.clone(), last))
            .collect();
        for (job, last) in new {
            self.silent.insert(job.id, last);
            let text = format!("nothing was heard of the agent since {last:.0}");
            let step = job.step.clone().unwrap_or(Step::Agent);
            self.log(now, Whose::Job(&job), step, What::Note { text });
        }
        let jobs = &self.state.jobs;
        self.silent.retain(|id, _| jobs.get(id).is_some_and(|job| job.state == JobState::Running));
    }
}

/// Whether an event was of use to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    Taken,
    Dropped,
}

/// Whether a machine may speak of `step`. Of the others only the server knows anything: a machine that could say
/// them could write "an admin: approved" into the log, or that an OS called home.
fn is_machines_step(step: &Step) -> bool {
    match step.owner() {
        Some(Owner::Loader | Owner::Agent) => true,
        Some(Owner::Server | Owner::Os) => false,
        // A name that only looks like one of ours is no step of a later version either.
        None => step.name().trim_matches('-').to_ascii_lowercase().parse::<Step>().is_err(),
    }
}

/// A step that this version does not know keeps its name, as far as it is one.
fn tidy_step(step: Step) -> Step {
    match step {
        Step::Other(name) => {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
            Step::Other(cut(&name, 40).chars().map(plain).collect())
        }
        step => step,
    }
}

#[cfg(test)]
mod tests;
