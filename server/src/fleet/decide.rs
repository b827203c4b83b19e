//! Core: the fleet's state machine. Every sighting, report, event and command comes here with its time, changes the
//! state, and leaves behind the changes to commit and the keys to dismiss from the swarm. Orders (`orders`), hardware
//! reports (`reports`), what DHCP, TFTP and HTTP saw (`sightings`) and the settings for the whole fleet (`settings`)
//! are further parts of it. Touches `api`, `common` and the other cores of the fleet.

// Why a machine gets no plan.
mod bars;

// Which machine, job or deployment an event of the log belongs to.
mod whose;

// Writes events to the log, with limits for machines that nobody let in.
mod log;

// Rate limits on what machines that nobody let in may add to the records.
mod budget;

// The boots of machines, by their keys.
mod boots;

// Whether an agent is at work and must not be interrupted.
mod at_work;

// Machines whose identity is in doubt, and how an admin settles that.
mod doubts;

// Removes the secrets of orders that no job needs any more.
mod secrets;

// Settings for the whole fleet.
mod settings;

// Machines that nobody let in, and how much of them is kept.
mod strangers;

// The call home of an installed OS.
mod homecoming;

// What DHCP, TFTP and HTTP saw.
mod sightings;

// The last sightings of each machine, from which silences are explained.
mod trails;

// What is concluded when a machine falls silent.
mod silences;

// Machines that wait for an order with an open request: what they were told.
mod waiters;

// Who of them is woken.
mod wake;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use common::id::{JobId, MachineId};
use common::limits::{BEFORE_REPORT, cut};
use common::step::{EventBatch, Owner, Step, StepEvent, What};
use common::trust::PublicKey;
use jiff::{SignedDuration, Timestamp};

use super::job::{Effect, Job, JobEvent};
use super::machine::{Machine, restored};
use super::presence::Relays;
use super::silence::Seen;
use super::state::{Change, State};
use super::touched::Touched;
use crate::api::shapes::{Caller, JobState, MachineState};

use boots::{Boots, SILENT};
use budget::Budgets;
use trails::Trails;
use waiters::Waiters;
use whose::Said;

pub(super) use bars::Bar;
pub use boots::{AtWork, REPORT_LIFE};
pub use settings::{Settings, WaiterBounds};
pub use waiters::{Heard, Wake};
pub(super) use whose::Whose;

/// What the actor has to do after a decision: commit the changes first, then the rest.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be committed to the records, in this order.
    pub changes: Vec<Change>,
    /// Keys whose admission to the swarm ends, each with the reason that its agent is told, if any.
    pub dismissed: Vec<(PublicKey, Option<String>)>,
    /// Machines that wait and are to report now, in this order.
    pub woken: Vec<Wake>,
}

/// The state of the fleet and the effects that are still to be carried out ([`Effects`]). One thread owns it.
#[derive(Debug)]
pub struct Fleet {
    /// Machines, deployments and jobs, as they are on record or will be once `after` is committed.
    pub state: State,
    /// Settings for the whole fleet, from the configuration.
    pub settings: Settings,
    pub(super) after: Effects,
    /// Who asked for what is being done; `None` where nobody did.
    pub(super) caller: Option<Arc<Caller>>,
    /// The machine that last used an IP address; not recorded, so learnt again after a restart.
    pub(super) by_address: HashMap<IpAddr, MachineId>,
    trails: Trails,
    /// The last text logged for each speaker, step and subject, and when: repetitions are left out.
    said: HashMap<(String, Step, String), (String, Timestamp)>,
    /// Jobs whose silence was logged, each with the time at which its machine was last heard of.
    silent: HashMap<JobId, Timestamp>,
    pub(super) boots: Boots,
    /// How many events were dropped: late, repeated, of an older attempt, or of steps that are not a machine's.
    pub dropped: u64,
    budgets: Budgets,
    looked_for_secrets: Option<Timestamp>,
    waiters: Waiters,
    /// How many events and reports of machines that nobody let in were over their limits and left out.
    pub left_out: u64,
    pub(super) relays: Relays,
    /// Whether the disk of the records is nearly full: machines that nobody let in are not recorded then.
    pub is_tight: bool,
    /// What changed since the live stream looked last; `None` while nobody looks.
    pub(super) touched: Option<Touched>,
}

/// The reply to a batch of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The highest event number of this boot that was taken: the agent need not send it again.
    pub through: u64,
    /// Why the batch's job was cancelled; `None` if it was not.
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
    /// A fleet with the state from the records.
    #[must_use]
    pub fn new(state: State, settings: Settings) -> Self {
        Self {
            state,
            settings,
            after: Effects::default(),
            caller: None,
            by_address: HashMap::new(),
            trails: Trails::default(),
            said: HashMap::new(),
            silent: HashMap::new(),
            boots: Boots::default(),
            dropped: 0,
            budgets: Budgets::default(),
            looked_for_secrets: None,
            waiters: Waiters::default(),
            left_out: 0,
            relays: Relays::default(),
            is_tight: false,
            touched: None,
        }
    }

    /// All sites: those of the settings, and those of machines on record.
    #[must_use]
    pub fn sites(&self) -> BTreeSet<String> {
        let named = self.settings.sites.rules().iter().map(|rule| &rule.site);
        named.chain(self.state.machines.values().map(|machine| &machine.site)).cloned().collect()
    }

    /// Warnings for admins, each in one sentence.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.reach().is_everything() {
            // They are about the whole server, and name machines of all sites.
            return warnings;
        }
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

    /// Takes the effects since the last call.
    pub fn take_effects(&mut self) -> Effects {
        self.wake_waiters();
        std::mem::take(&mut self.after)
    }

    pub(super) fn put(&mut self, change: Change) {
        if let Some(touched) = &mut self.touched {
            touched.note(&change, &self.state);
        }
        self.state.adopt(&change);
        self.after.changes.push(change);
    }

    pub(super) fn put_machine(&mut self, machine: Machine) {
        self.put(Change::Machine(Box::new(machine)));
    }

    /// Applies `event` to a job, and follows its effects.
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
                // What an admin decided stands: a job does not change the state of a rejected machine.
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
            // The machine was forgotten, so there is nothing to change.
            (_, None) | (Effect::Dropped, _) => {}
        }
    }

    /// Takes a batch of events about a machine's steps; its signature by the key in it has been checked.
    ///
    /// # Errors
    /// When no machine's present boot has that key.
    pub fn events(&mut self, batch: EventBatch, now: Timestamp) -> Result<Taken, EventsRefused> {
        let refused = || EventsRefused::UnknownKey(batch.key);
        let mut machine = self.state.by_key(&batch.key).cloned().ok_or_else(refused)?;
        let mut boot = machine.boot.ok_or_else(refused)?;
        // Undelivered events of an older attempt of the same boot are dropped: its end would end this attempt.
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
            // Events about the server's own steps are accepted from nobody.
            self.dropped += 1;
            return;
        }
        // The machine's clock may be wrong, so only the time between event and sending is used, and the result is kept
        // within its boot.
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

    /// Logs something about a job that another part of the server observed, such as the swarm.
    pub fn remark(&mut self, job: JobId, step: Step, what: What, now: Timestamp) {
        if let Some(job) = self.state.jobs.get(&job).cloned() {
            self.log_once(now, Whose::Job(&job), step, what);
        }
    }

    /// Does what depends on time: jobs whose call home is overdue fail, orders expire, and conclusions about silent
    /// machines and agents are logged. How often it is called decides only how soon that happens.
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
        self.miss_relays(now);
        self.notice_silence(now);
        if self.looked_for_secrets.is_none_or(|at| now.duration_since(at) >= SignedDuration::from_mins(1)) {
            self.looked_for_secrets = Some(now);
            self.remove_secrets(now);
        }
    }

    /// Gives a job that is about to fail for lack of a call home the cause that sightings suggest.
    fn explain(&mut self, job: JobId) {
        let Some(mut job) = self.state.jobs.get(&job).cloned() else { return };
        let note = self.state.notes.get(&job.machine).map(ToString::to_string);
        if job.state == JobState::Written && job.cause.is_none() && note.is_some() {
            job.cause = note;
            self.put(Change::Job(Box::new(job)));
        }
    }

    /// Logs once for each silence of an agent that it is silent. Nothing else follows: when the machine is switched on
    /// again, its next attempt resumes with what is on the disk.
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

/// Whether a job took an event or dropped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    Taken,
    Dropped,
}

/// Whether a machine may send events about `step`. The other steps are the server's and the OS's: a machine that could
/// send events about them could write "an admin: approved" into the log, or that an OS called home.
fn is_machines_step(step: &Step) -> bool {
    match step.owner() {
        Some(Owner::Loader | Owner::Agent) => true,
        Some(Owner::Server | Owner::Os) => false,
        // A name that is one of the known steps but for dashes and case is not taken for a step of a later version.
        None => step.name().trim_matches('-').to_ascii_lowercase().parse::<Step>().is_err(),
    }
}

/// Shortens the name of a step that this version does not know, and replaces other characters than letters and digits.
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
