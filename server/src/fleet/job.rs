//! Core: the life of a job, one machine's part of a deployment. Touches `api`, `common`.
//!
//! [`Job::apply`] is total: every event has an answer in every state, if only "dropped". Machines lose power
//! and protocols repeat, so a machine that reports again just begins the next attempt, and events of an older attempt
//! are dropped and counted.
//!
//! | state | plan given | tailor refused | told by the running attempt | called home | cancelled | retried | abandoned | time |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | ordered | running, attempt + 1 | refused | dropped | dropped | cancelled | dropped | cancelled | – |
//! | running | running, attempt + 1 | refused | running, written or failed | deployed, once sealed | cancelled | dropped | failed | – |
//! | written | dropped | dropped | written | deployed | cancelled | dropped | dropped | failed: no call home |
//! | deployed | dropped | dropped | deployed | deployed | dropped | dropped | dropped | – |
//! | failed | dropped | dropped | dropped | deployed, once sealed | dropped | ordered | dropped | – |
//! | refused | dropped | dropped | dropped | dropped | cancelled | ordered | dropped | – |
//! | cancelled | dropped | dropped | cancelled, sealed or not | cancelled, once sealed | dropped | dropped | dropped | – |
//!
//! The reason for a refusal may be gone when the machine asks again, but the disk that would then be written need not
//! be the one that an admin was shown: so a refused job is over until an admin has looked at it and retries it.
//!
//! "Called home" stands for a call that proves the order ([`Call`]). A call of an OS on another disk, or with an older
//! order's CIDATA, fails a job that is running (once sealed) or written; a call that proves nothing is noted.
//!
//! Once the disk is sealed it boots, so the machine is sent to it whatever happens next: no failure after that point
//! may start an installation again.

// Cancelling, and events that arrive after it.
mod cancel;

use common::id::{DeploymentId, JobId, MachineId};
use common::step::{Sources, Step, StepEvent, What};
use common::trust::PublicKey;
use jiff::{SignedDuration, Timestamp};

use common::plan::DiskIdentity;

use super::boot_policy::IdleBoot;
use super::bound::{Bound, Marks};
use super::proof::Call;
use crate::api::shapes::{JobState, MachineState};

/// Whether and how long a job waits for a call home after the disk is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Confirm {
    /// The installed OS must call home within this time, or the job fails.
    Within(SignedDuration),
    /// It calls home some time, when somebody switches the machine on: there is no deadline.
    #[default]
    Whenever,
    /// It does not call home: the job is deployed as soon as it is written.
    Never,
}

/// One machine's part of a deployment: its progress, and what it is bound to.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Given once, and never to another job.
    pub id: JobId,
    /// The deployment it is part of.
    pub deployment: DeploymentId,
    /// The machine that it is for; when that is forgotten, so is the job.
    pub machine: MachineId,
    /// Its state; the transitions are in the table above.
    pub state: JobState,
    /// The number of attempts that were started; zero before the first plan.
    pub attempt: u32,
    /// The machine's key of the boot that the last attempt runs in; `None` before the first plan and after a refusal.
    pub key: Option<PublicKey>,
    /// The last step of the attempt's plan: when that is done, the disk is written.
    pub last_step: Option<Step>,
    /// Whether the installed OS is waited for.
    pub confirm: Confirm,
    /// When a written job fails without a call home; `None` when it does not wait, or without limit.
    pub deadline: Option<Timestamp>,
    /// A description of the disk that is written; `None` before the first plan.
    pub target: Option<String>,
    /// The machine and the disk that an admin was shown when it was ordered.
    pub bound: Bound,
    /// The machine's state before the order, which it gets back when that is cancelled; `None` for jobs of an earlier
    /// version.
    pub before: Option<MachineState>,
    /// The step that the agent last reported; `None` before that.
    pub step: Option<Step>,
    /// Units of that step that are done, such as bytes.
    pub done: u64,
    /// Units of that step in all; zero before its first progress event.
    pub total: u64,
    /// How many bytes of the attempt came from the server and from peers.
    pub sources: Sources,
    /// Whether the attempt has sealed the disk, so that it would boot.
    pub sealed: bool,
    /// Why it failed, was refused or cancelled; while it runs, what last went wrong in the attempt.
    pub cause: Option<String>,
    /// When an event was last applied to it.
    pub changed: Timestamp,
}

/// Whether the disk may have been written to once this step has begun: the transfer begins by clearing it.
fn writes(step: &Step) -> bool {
    !matches!(step, Step::Tailor | Step::Agent | Step::Join | Step::Gather)
}

/// An event for a job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// The machine reported and its plan is ready: a new attempt.
    PlanGiven {
        /// The key that the machine made at this boot.
        key: PublicKey,
        /// The last step of the plan but `confirm`; `None` if it has none.
        last_step: Option<Step>,
        /// A description of the disk to be written.
        target: String,
        /// The marks of that disk.
        disk: DiskIdentity,
        /// The machine's marks, as on record.
        marks: Marks,
        /// Whether the installed OS is waited for.
        confirm: Confirm,
    },
    /// The tailor refused to make a plan, with its reason.
    TailorRefused(String),
    /// The agent sent an event about a step.
    Told {
        /// The key that signed it; dropped unless it is the running attempt's.
        key: PublicKey,
        /// The event, with its texts made harmless.
        event: StepEvent,
    },
    /// An OS called home with the job's token, or with that of an older order of the machine.
    CalledHome(Call),
    /// It was cancelled, with the reason.
    Cancelled(String),
    /// An admin was shown what it would do now, and orders it again.
    Retried {
        /// The machine and the disk that were shown; they replace those of the earlier order.
        bound: Bound,
        /// The machine's state at that time.
        before: MachineState,
    },
    /// It expired: its machine did not report, or its agent was silent, for the lifetime of the order.
    Abandoned(String),
    /// Time has passed: ends the wait for a call home that is overdue.
    Tick,
}

/// An effect on the rest of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Sets the machine's state, unless an admin has rejected it.
    Machine(MachineState),
    /// Gives the machine the state back that it had before the order.
    Restore {
        /// Whether its disk may have been written to.
        touched: bool,
    },
    /// The OS on the machine's disk is this order's, although the order was cancelled.
    OsThere,
    /// The OS that was on the machine's disk has been overwritten.
    OsGone,
    /// Sets what the machine gets from now on when it network-boots and no job is open.
    IdleBoot(IdleBoot),
    /// Ends the admission of the key to the swarm; with a reason the agent is told to cancel.
    Dismiss(PublicKey, Option<String>),
    /// Logs an event of the server's own.
    Log(Step, What),
    /// The image is on the machine, and its OS has called home or need not.
    Deployed,
    /// The event was dropped: it came too late, or is of another attempt.
    Dropped,
}

impl Job {
    /// A job that has just been ordered.
    #[must_use]
    pub fn new(id: JobId, deployment: DeploymentId, machine: MachineId, now: Timestamp) -> Self {
        Self {
            id,
            deployment,
            machine,
            state: JobState::Ordered,
            attempt: 0,
            key: None,
            last_step: None,
            confirm: Confirm::Whenever,
            deadline: None,
            target: None,
            bound: Bound::default(),
            before: None,
            step: None,
            done: 0,
            total: 0,
            sources: Sources::default(),
            sealed: false,
            cause: None,
            changed: now,
        }
    }

    /// Whether the machine is busy with it. A refused job does not count: another order may take its place.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, JobState::Ordered | JobState::Running | JobState::Written)
    }

    /// Whether its machine is to get a plan when it reports.
    #[must_use]
    pub fn wants_plan(&self) -> bool {
        matches!(self.state, JobState::Ordered | JobState::Running)
    }

    /// The attempt number for a plan that is given to the boot with this key.
    #[must_use]
    pub fn attempt_for(&self, key: &PublicKey) -> u32 {
        let same = self.state == JobState::Running && self.key.as_ref() == Some(key);
        if same { self.attempt } else { self.attempt.saturating_add(1) }
    }

    /// Whether this or an earlier attempt may have written to the disk: the transfer begins by clearing it. Not for a
    /// waiting job: the effects of its earlier attempts followed when those ended.
    fn has_touched(&self) -> bool {
        match self.state {
            JobState::Written => true,
            JobState::Running => self.attempt > 1 || self.step.as_ref().is_some_and(writes),
            _ => false,
        }
    }

    /// Whether the OS that was installed may be overwritten, with no sealed image in its place.
    fn has_lost_os(&self) -> bool {
        self.has_touched() && !self.sealed
    }

    /// Applies `event` at `now`, and returns the effects on the rest of the fleet.
    pub fn apply(&mut self, event: JobEvent, now: Timestamp) -> Vec<Effect> {
        use JobState::{Cancelled, Deployed, Failed, Ordered, Refused, Running, Written};
        let effects = match (self.state, event) {
            (Ordered | Running, JobEvent::PlanGiven { key, last_step, target, disk, marks, confirm }) => {
                self.bound.bind(&marks, &disk);
                self.begin(key, last_step, target, confirm)
            }
            (Ordered | Running, JobEvent::TailorRefused(reason)) => self.refuse(reason),
            (Running | Written | Deployed, JobEvent::Told { key, event }) if self.key == Some(key) => {
                self.hear(event, now)
            }
            (Written | Deployed, JobEvent::CalledHome(call)) => self.called(&call),
            (Running | Failed, JobEvent::CalledHome(call)) if self.sealed => self.called(&call),
            (Cancelled, JobEvent::CalledHome(Call::Proven { .. } | Call::OnlyDisk)) if self.sealed => {
                self.come_home_cancelled()
            }
            (Cancelled, JobEvent::Told { key, event }) if self.key == Some(key) => match event.what {
                What::Done { .. } if event.step == Step::Seal && !self.sealed => self.seal_cancelled(),
                What::Started if writes(&event.step) && !self.step.as_ref().is_some_and(writes) => {
                    self.clear_cancelled(event.step)
                }
                _ => return vec![Effect::Dropped],
            },
            (Refused | Failed, JobEvent::Retried { bound, before }) => self.retry(bound, before),
            (Ordered, JobEvent::Abandoned(reason)) => self.cancel(reason),
            (Running, JobEvent::Abandoned(reason)) => self.lose(reason),
            (Ordered | Running | Written | Refused, JobEvent::Cancelled(reason)) => self.cancel(reason),
            (Written, JobEvent::Tick) if self.deadline.is_some_and(|at| now >= at) => self.miss_call(),
            (_, JobEvent::Tick) => return vec![],
            (Cancelled | Ordered | Refused | Failed | Running | Written | Deployed, _) => {
                return vec![Effect::Dropped];
            }
        };
        self.changed = now;
        effects
    }

    fn begin(
        &mut self,
        key: PublicKey,
        last_step: Option<Step>,
        target: String,
        confirm: Confirm,
    ) -> Vec<Effect> {
        if self.state == JobState::Running && self.key == Some(key) {
            // The machine asked again because the answer was lost: the same boot, so the same attempt.
            return vec![];
        }
        let before = self.key.replace(key).filter(|before| *before != key);
        self.state = JobState::Running;
        self.attempt = self.attempt.saturating_add(1);
        self.last_step = last_step;
        self.target = Some(target);
        self.confirm = confirm;
        (self.step, self.done, self.total) = (None, 0, 0);
        self.sources = Sources::default();
        self.sealed = false;
        self.cause = None;
        let dismissed = before.map(|before| Effect::Dismiss(before, None));
        dismissed.into_iter().chain([Effect::Machine(MachineState::Deploying)]).collect()
    }

    fn refuse(&mut self, reason: String) -> Vec<Effect> {
        // An earlier attempt may have cleared the disk.
        let gone = self.has_lost_os();
        self.state = JobState::Refused;
        self.cause = Some(reason.clone());
        let mut effects = vec![Effect::Machine(MachineState::Failed)];
        if gone {
            effects.extend([Effect::OsGone, Effect::IdleBoot(IdleBoot::Load)]);
        }
        effects.extend(self.key.take().map(|key| Effect::Dismiss(key, None)));
        effects.push(Effect::Log(Step::Tailor, What::Failed { cause: reason, last: true }));
        effects
    }

    fn retry(&mut self, bound: Bound, before: MachineState) -> Vec<Effect> {
        // If no attempt ever began, cancelling still restores the state before the first order; but a machine that an
        // admin approved meanwhile stays approved.
        if self.attempt > 0 || self.before.is_none() || before == MachineState::Approved {
            self.before = Some(before);
        }
        self.state = JobState::Ordered;
        self.bound = bound;
        (self.key, self.target, self.cause, self.step) = (None, None, None, None);
        (self.done, self.total) = (0, 0);
        (self.sealed, self.deadline) = (false, None);
        let text = "an admin ordered it again".to_owned();
        vec![Effect::Machine(MachineState::Approved), Effect::Log(Step::Decide, What::Note { text })]
    }

    fn lose(&mut self, reason: String) -> Vec<Effect> {
        let step = self.step.clone().unwrap_or(Step::Agent);
        self.cause = Some(reason.clone());
        let mut effects = self.fail();
        effects.push(Effect::Log(step, What::Failed { cause: reason, last: true }));
        effects
    }

    fn hear(&mut self, told: StepEvent, now: Timestamp) -> Vec<Effect> {
        if let Some(sources) = told.sources {
            self.sources = sources;
        }
        if self.state != JobState::Running {
            return vec![];
        }
        let step = told.step;
        if self.step.as_ref() != Some(&step) {
            (self.done, self.total) = (0, 0);
        }
        let mut effects = Vec::new();
        match told.what {
            What::Started => {
                self.cause = None;
                if self.sealed && step == Step::Reboot {
                    effects = self.write(now);
                }
            }
            What::Progress { done, total } => (self.done, self.total) = (done, total),
            What::Note { .. } => {}
            What::Done { .. } => {
                self.done = self.total;
                self.sealed |= step == Step::Seal;
                if self.sealed && (step == Step::Reboot || self.last_step.as_ref() == Some(&step)) {
                    effects = self.write(now);
                }
            }
            What::Failed { cause, last } => {
                self.cause = Some(format!("{step}: {cause}"));
                if last {
                    effects = self.fail();
                }
            }
        }
        self.step = Some(step);
        effects
    }

    fn write(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = vec![Effect::IdleBoot(IdleBoot::BootDisk)];
        if self.confirm == Confirm::Never {
            effects.extend(self.come_home(None));
            return effects;
        }
        self.state = JobState::Written;
        if let Confirm::Within(time) = self.confirm {
            self.deadline = now.checked_add(time).ok();
        }
        effects.push(Effect::Log(Step::Confirm, What::Started));
        effects
    }

    fn fail(&mut self) -> Vec<Effect> {
        let gone = self.has_lost_os();
        self.state = JobState::Failed;
        let idle_boot = if self.sealed { IdleBoot::BootDisk } else { IdleBoot::Load };
        let mut effects = vec![Effect::Machine(MachineState::Failed), Effect::IdleBoot(idle_boot)];
        effects.extend(gone.then_some(Effect::OsGone));
        effects.extend(self.key.map(|key| Effect::Dismiss(key, None)));
        effects
    }

    /// Takes a call home. Only an OS on the disk that was written completes the job.
    fn called(&mut self, call: &Call) -> Vec<Effect> {
        let text = call.to_string();
        let note = |text| vec![Effect::Log(Step::Confirm, What::Note { text })];
        match call {
            Call::Proven { .. } | Call::OnlyDisk => self.come_home(Some(text)),
            // The job was completed by a call from the right disk before this one, so the call is only noted.
            Call::OtherDisk { .. } | Call::OlderSeed { .. } if self.state == JobState::Deployed => note(text),
            Call::Unproven(_) if self.state == JobState::Deployed => vec![],
            _ if self.cause.as_ref() == Some(&text) => vec![],
            Call::Unproven(_) => {
                self.cause = Some(text.clone());
                note(text)
            }
            Call::OtherDisk { .. } | Call::OlderSeed { .. } => self.miss(text),
        }
    }

    fn come_home(&mut self, said: Option<String>) -> Vec<Effect> {
        if self.state == JobState::Deployed {
            return vec![];
        }
        self.state = JobState::Deployed;
        self.deadline = None;
        self.cause = None;
        let mut effects = vec![
            Effect::Deployed,
            Effect::Machine(MachineState::Deployed),
            Effect::IdleBoot(IdleBoot::BootDisk),
        ];
        // Its agent is gone, or has nothing more to do: while its key is admitted, it keeps a place in the swarm.
        effects.extend(self.key.map(|key| Effect::Dismiss(key, None)));
        if let Some(text) = said {
            self.step = Some(Step::Confirm);
            effects.push(Effect::Log(Step::Confirm, What::Done { text }));
        }
        effects
    }

    fn miss_call(&mut self) -> Vec<Effect> {
        let mut cause =
            "no call home: the image is on the disk, but the installed OS was not heard of in time"
                .to_owned();
        if let Some(seen) = &self.cause {
            cause = format!("{cause}; {seen}");
        }
        self.miss(cause)
    }

    /// The job fails although the disk is sealed: no OS called home, or another one than the installed one.
    fn miss(&mut self, cause: String) -> Vec<Effect> {
        self.state = JobState::Failed;
        self.deadline = None;
        self.step = Some(Step::Confirm);
        self.cause = Some(cause.clone());
        vec![
            Effect::Machine(MachineState::Failed),
            Effect::IdleBoot(IdleBoot::BootDisk),
            Effect::Log(Step::Confirm, What::Failed { cause, last: true }),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests;
