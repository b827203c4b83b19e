//! Core, part of a job: it is cancelled, and what its machine still says after that. Touches `api`, `common`.

use common::step::{Step, What};

use super::super::boot_policy::IdleBoot;
use super::{Effect, Job};
use crate::api::shapes::JobState;

impl Job {
    pub(super) fn cancel(&mut self, reason: String) -> Vec<Effect> {
        let at = self.step.clone().unwrap_or(Step::Decide);
        // A machine that was not told to write keeps what it had. One that began may have written anything up to
        // its whole disk; an order that was retried says nothing of what an earlier attempt left.
        let touched = self.has_touched();
        let disk = match (touched, self.sealed, &at) {
            (false, ..) => "",
            (true, true, _) => ": its disk is whole, and boots what was ordered",
            (true, false, Step::Seal) => {
                ": its disk is just being made bootable, and may boot what was ordered or nothing"
            }
            (true, false, _) => ": its disk may be overwritten in part, and boots nothing then",
        };
        self.state = JobState::Cancelled;
        self.deadline = None;
        self.cause = Some(format!("{reason}{disk}"));
        let text = format!("cancelled: {reason}{disk}");
        let mut effects = vec![Effect::Restore { touched }, Effect::Log(at, What::Note { text })];
        if touched {
            let (os, idle_boot) = if self.sealed {
                (Effect::OsThere, IdleBoot::BootDisk)
            } else {
                (Effect::OsGone, IdleBoot::Load)
            };
            effects.extend([os, Effect::IdleBoot(idle_boot)]);
        }
        effects.extend(self.key.map(|key| Effect::Dismiss(key, Some(reason.clone()))));
        effects
    }

    /// The agent had begun to write when the cancel came, and its word of that comes after it.
    pub(super) fn clear_cancelled(&mut self, step: Step) -> Vec<Effect> {
        let text = "the cancel came while the disk was being cleared: it may boot nothing".to_owned();
        self.step = Some(step.clone());
        vec![Effect::OsGone, Effect::IdleBoot(IdleBoot::Load), Effect::Log(step, What::Note { text })]
    }

    /// The agent was past the point where it can stop.
    pub(super) fn seal_cancelled(&mut self) -> Vec<Effect> {
        self.sealed = true;
        let text = "the cancel came too late to stop it: the disk is whole, and boots what was ordered";
        self.cause = Some(text.to_owned());
        vec![
            Effect::OsThere,
            Effect::IdleBoot(IdleBoot::BootDisk),
            Effect::Log(Step::Seal, What::Note { text: text.to_owned() }),
        ]
    }

    pub(super) fn come_home_cancelled(&mut self) -> Vec<Effect> {
        let text = "the OS of the cancelled order called home: it is on the disk, and runs";
        if self.cause.as_deref() == Some(text) {
            return vec![];
        }
        self.cause = Some(text.to_owned());
        vec![
            Effect::OsThere,
            Effect::IdleBoot(IdleBoot::BootDisk),
            Effect::Log(Step::Confirm, What::Note { text: text.to_owned() }),
        ]
    }
}
