//! Core, part of a job: cancelling it, and events that its machine sends after that. Touches `api`, `common`.

use common::step::{Step, What};

use super::super::boot_policy::IdleBoot;
use super::{Effect, Job};
use crate::api::shapes::JobState;

impl Job {
    pub(super) fn cancel(&mut self, reason: String) -> Vec<Effect> {
        let at = self.step.clone().unwrap_or(Step::Decide);
        // Before it begins to write, the machine's disk is unchanged. After that, anything up to the whole disk may be
        // written. For a job that waits after a retry, the text says nothing about what earlier attempts left.
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

    /// The agent had begun to write before the cancel reached it, and its event about that arrived afterwards.
    pub(super) fn clear_cancelled(&mut self, step: Step) -> Vec<Effect> {
        let text = "the cancel came while the disk was being cleared: it may boot nothing".to_owned();
        self.step = Some(step.clone());
        vec![Effect::OsGone, Effect::IdleBoot(IdleBoot::Load), Effect::Log(step, What::Note { text })]
    }

    /// The agent sealed the disk, because the cancel reached it too late.
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
