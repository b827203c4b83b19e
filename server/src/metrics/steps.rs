//! Core: steps by outcome, and how long they took, from the events of the log. Touches `common` and the shape of events.

use std::collections::HashMap;

use common::id::{JobId, MachineId};
use common::step::{Step, What};
use jiff::Timestamp;

use crate::api::shapes::LogEvent;

/// Steps that are under way at once, at the most: two for each of 2,000 machines and room for what never ends. When
/// there are more, the durations of all of them are lost, and no memory is.
const UNDER_WAY_MAX: usize = 8192;

/// The step's label where this version does not know it: its name is a machine's word, and not bounded.
const OTHER: &str = "other";

/// What an event means for the counters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Noted<'a> {
    pub(super) step: &'a str,
    pub(super) outcome: &'static str,
    /// How long the step took, where it is done and its beginning was seen.
    pub(super) seconds: Option<f64>,
}

/// When the steps that are under way began.
#[derive(Debug, Default)]
pub(super) struct StepClock {
    began: HashMap<(Option<MachineId>, Option<JobId>, Step), Timestamp>,
}

impl StepClock {
    /// What `event` means; `None` for one that is no beginning and no end.
    pub(super) fn note<'a>(&mut self, event: &'a LogEvent) -> Option<Noted<'a>> {
        let (step, is_known) = match &event.step {
            Step::Other(_) => (OTHER, false),
            step => (step.name(), true),
        };
        let key = (event.machine, event.job, event.step.clone());
        let (outcome, seconds) = match &event.what {
            What::Started => {
                if self.began.len() >= UNDER_WAY_MAX {
                    self.began.clear();
                }
                if is_known {
                    self.began.insert(key, event.at);
                }
                ("started", None)
            }
            What::Done { .. } => {
                let began = self.began.remove(&key);
                let took = |began| event.at.duration_since(began).as_secs_f64().max(0.0);
                ("done", began.map(took))
            }
            What::Failed { last, .. } => {
                // How long it took to fail says nothing about how long the step takes.
                self.began.remove(&key);
                (if *last { "failed" } else { "retried" }, None)
            }
            What::Progress { .. } | What::Note { .. } => return None,
        };
        Some(Noted { step, outcome, seconds })
    }
}
