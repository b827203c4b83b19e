//! Core: the life of a job, one machine's part of a deployment. Touches `api`, `common`.
//!
//! [`Job::apply`] is total: every event has an answer in every state, if only "dropped". Machines lose power
//! and protocols repeat, so a machine that reports again just begins the next attempt, and what an older
//! attempt says is dropped and counted.
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
//! What a machine was refused for may be gone when it asks again, and what is written then need not be what
//! anybody was shown: so a refused job is over, until an admin has looked and retries it.
//!
//! "Called home" stands for a call that proves the order ([`Call`]). One of an OS on another disk, or with an older
//! order's CIDATA, fails a job that is running (once sealed) or written; one that proves nothing is noted.
//!
//! Once the disk is sealed it boots, so the machine is sent there whatever happens next: no failure after
//! that point may start an installation again.

// What a cancel means for the machine, and what comes after it.
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

/// How a job goes on after the disk is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Confirm {
    /// The installed OS calls home within this time.
    Within(SignedDuration),
    /// It calls home whenever somebody switches the machine on.
    #[default]
    Whenever,
    /// It does not call home: written is deployed.
    Never,
}

/// One machine's part of a deployment: how far it is, and what it is bound to.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Given once, and never to another job.
    pub id: JobId,
    /// The deployment it is part of.
    pub deployment: DeploymentId,
    /// The machine that it is for; when that is forgotten, so is the job.
    pub machine: MachineId,
    /// How far it is; what it may become is in the table above.
    pub state: JobState,
    /// How often it was started.
    pub attempt: u32,
    /// The machine's key in the running attempt.
    pub key: Option<PublicKey>,
    /// The last step of the running attempt's plan.
    pub last_step: Option<Step>,
    /// Whether the installed OS is waited for.
    pub confirm: Confirm,
    /// Until when it is waited for.
    pub deadline: Option<Timestamp>,
    /// The disk that is written, in words.
    pub target: Option<String>,
    /// The machine and the disk that were shown when it was ordered.
    pub bound: Bound,
    /// The machine's state before the order, which it gets back when that is cancelled.
    pub before: Option<MachineState>,
    /// The step it is at.
    pub step: Option<Step>,
    /// Units of that step done.
    pub done: u64,
    /// Units of that step in all.
    pub total: u64,
    /// Where the bytes came from in the running attempt.
    pub sources: Sources,
    /// Whether the disk is whole and would boot.
    pub sealed: bool,
    /// Why it failed, was refused or cancelled; or what went wrong last.
    pub cause: Option<String>,
    /// When it last changed.
    pub changed: Timestamp,
}

/// Whether something may have been written once this step has begun: clearing the disk begins the transfer.
fn writes(step: &Step) -> bool {
    !matches!(step, Step::Tailor | Step::Agent | Step::Join | Step::Gather)
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// The machine reported and its plan is ready: a new attempt.
    PlanGiven {
        /// The machine's key of this boot.
        key: PublicKey,
        /// The last step of the plan.
        last_step: Option<Step>,
        /// The disk, in words.
        target: String,
        /// The disk, by what it is known by after a restart.
        disk: DiskIdentity,
        /// The machine's marks.
        marks: Marks,
        /// Whether the installed OS is waited for.
        confirm: Confirm,
    },
    /// The tailor refused the machine as it is.
    TailorRefused(String),
    /// The agent told of a step.
    Told {
        /// The key that signed it; dropped unless it is the running attempt's.
        key: PublicKey,
        /// The event, as it was sent.
        event: StepEvent,
    },
    /// An OS called home with the job's token, or with that of an older order of the machine.
    CalledHome(Call),
    /// An admin cancelled it.
    Cancelled(String),
    /// An admin has looked at what it would do now, and orders it again.
    Retried {
        /// The machine and the disk that were shown, in the place of those of the earlier order.
        bound: Bound,
        /// The machine's state at that time.
        before: MachineState,
    },
    /// Nobody has come for it, or its agent has been gone, for as long as an order lives.
    Abandoned(String),
    /// Time passed.
    Tick,
}

/// What follows for the rest of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The machine's state is now this.
    Machine(MachineState),
    /// The machine's state is what it was before the order; `touched` when its disk is not.
    Restore {
        /// Whether something was written.
        touched: bool,
    },
    /// The OS on the machine's disk is this order's, though the order was cancelled.
    OsThere,
    /// Nothing that the machine had on its disk is there any more.
    OsGone,
    /// What the machine gets from now on when no job is open.
    IdleBoot(IdleBoot),
    /// The key is no longer let into the swarm; with a reason the agent is told to stop.
    Dismiss(PublicKey, Option<String>),
    /// The server itself has something for the log.
    Log(Step, What),
    /// The image is on the machine, and its OS is up.
    Deployed,
    /// The event is of no use: late, or of another attempt.
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

    /// Whether the machine is busy with it. A refused job is not: a better order may take its place.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, JobState::Ordered | JobState::Running | JobState::Written)
    }

    /// Whether it may still become a running attempt.
    #[must_use]
    pub fn wants_plan(&self) -> bool {
        matches!(self.state, JobState::Ordered | JobState::Running)
    }

    /// The attempt that a plan for the boot with this key belongs to.
    #[must_use]
    pub fn attempt_for(&self, key: &PublicKey) -> u32 {
        let same = self.state == JobState::Running && self.key.as_ref() == Some(key);
        if same { self.attempt } else { self.attempt.saturating_add(1) }
    }

    /// Whether the present or an earlier attempt may have written to the disk: clearing it begins the transfer. Of a
    /// job that waits, no: what an earlier attempt left was said when that ended.
    fn has_touched(&self) -> bool {
        match self.state {
            JobState::Written => true,
            JobState::Running => self.attempt > 1 || self.step.as_ref().is_some_and(writes),
            _ => false,
        }
    }

    /// Whether what was installed is not there any more, and nothing whole in its place.
    fn has_lost_os(&self) -> bool {
        self.has_touched() && !self.sealed
    }

    /// What `event` does to the job at `now`, and what follows from it.
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
            // The answer was lost on the way and the machine asked again: the same power-on, the same attempt.
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
        // Of an order that never began, cancelling still gives back what was there before the first of it; and whom an
        // admin approved meanwhile stays so.
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

    /// An OS called home. Only one on the disk that was written ends the job well.
    fn called(&mut self, call: &Call) -> Vec<Effect> {
        let text = call.to_string();
        let note = |text| vec![Effect::Log(Step::Confirm, What::Note { text })];
        match call {
            Call::Proven { .. } | Call::OnlyDisk => self.come_home(Some(text)),
            // The machine was seen on the right disk, and was started from another since; or its own calls repeat.
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
        // Its agent is gone, or has nothing more to do: a key that stays let in keeps a place in the swarm.
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

    /// The disk is whole, and the installed OS is not what came up, or nothing did.
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
