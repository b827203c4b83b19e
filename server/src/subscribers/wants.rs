//! Core: which events a subscriber wants: by level, by step, by the labels of the machine. Touches `fleet::selectors`,
//! `api`, `common`.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::id::MachineId;
use common::step::{Step, UnknownStep, What};

use crate::api::shapes::LogEvent;
use crate::fleet::selectors::{BadSelector, Selectors};

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A step began or is done.
    Info,
    /// Something that belongs in the log and is no failure.
    Note,
    /// A try failed, and another one follows.
    Warning,
    /// A step failed for good.
    Error,
}

impl Level {
    /// All of them, with their names in the configuration.
    const NAMED: [(&str, Self); 4] =
        [("info", Self::Info), ("note", Self::Note), ("warning", Self::Warning), ("error", Self::Error)];

    /// The level of an event.
    #[must_use]
    pub fn of(what: &What) -> Self {
        match what {
            What::Started | What::Progress { .. } | What::Done { .. } => Self::Info,
            What::Note { .. } => Self::Note,
            What::Failed { last: false, .. } => Self::Warning,
            What::Failed { last: true, .. } => Self::Error,
        }
    }

    /// The level's number in syslog and in the journal.
    #[must_use]
    pub fn severity(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Note => 5,
            Self::Warning => 4,
            Self::Error => 3,
        }
    }
}

/// Why a choice of events is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadWants {
    /// There is no such level.
    #[error("`{}` is no level; the levels are info, note, warning, error", .0.escape_debug())]
    Level(String),
    /// There is no such step.
    #[error(transparent)]
    Step(#[from] UnknownStep),
    /// The selector cannot be read.
    #[error(transparent)]
    Labels(#[from] BadSelector),
}

/// Which events are wanted. What is empty holds for every event. Progress is never wanted: of a step only the newest is
/// kept, so nobody could be told of it in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    levels: BTreeSet<Level>,
    steps: Vec<Step>,
    labels: Arc<Selectors>,
}

impl Wants {
    /// The events of these `levels` and `steps`, by their names, of machines that the selector `labels` fits.
    ///
    /// # Errors
    /// When there is no such level or step, or the selector cannot be read.
    pub fn new(levels: &[String], steps: &[String], labels: Option<&str>) -> Result<Self, BadWants> {
        let level = |name: &String| {
            let known = Level::NAMED.iter().find(|(known, _)| known == name);
            known.map(|(_, level)| *level).ok_or_else(|| BadWants::Level(name.clone()))
        };
        let labels: Vec<String> = labels.map(str::to_owned).into_iter().collect();
        Ok(Self {
            levels: levels.iter().map(level).collect::<Result<_, _>>()?,
            steps: steps.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
            labels: Arc::new(Selectors::parse(&labels)?),
        })
    }

    /// The selector that machines must fit; empty when events of all are wanted, and those of no machine.
    #[must_use]
    pub fn labels(&self) -> &Arc<Selectors> {
        &self.labels
    }

    /// Whether `event` is wanted; `fitting` are the machines that fit the labels.
    #[must_use]
    pub fn want(&self, event: &LogEvent, fitting: &BTreeSet<MachineId>) -> bool {
        !matches!(event.what, What::Progress { .. })
            && (self.levels.is_empty() || self.levels.contains(&Level::of(&event.what)))
            && (self.steps.is_empty() || self.steps.contains(&event.step))
            && (self.labels.is_empty() || event.machine.is_some_and(|machine| fitting.contains(&machine)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;

    fn wants(levels: &[&str], steps: &[&str], labels: Option<&str>) -> Result<Wants, BadWants> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Wants::new(&owned(levels), &owned(steps), labels)
    }

    #[test]
    fn every_condition_must_hold() {
        let failed = |last| What::Failed { cause: "x".to_owned(), last };
        let fitting = BTreeSet::from([MachineId(1)]);
        let table = [
            (wants(&[], &[], None), failed(true), Some(9), true),
            (wants(&[], &[], None), What::Progress { done: 1, total: 2 }, Some(1), false),
            (wants(&["error"], &[], None), failed(true), Some(1), true),
            (wants(&["error"], &[], None), failed(false), Some(1), false),
            (wants(&["error", "warning"], &[], None), failed(false), Some(1), true),
            (wants(&[], &["transfer"], None), What::Started, Some(1), true),
            (wants(&[], &["verify"], None), What::Started, Some(1), false),
            (wants(&[], &[], Some("role=web")), What::Started, Some(1), true),
            (wants(&[], &[], Some("role=web")), What::Started, Some(2), false),
            (wants(&[], &[], Some("role=web")), What::Started, None, false),
        ];
        for (wants, what, machine, wanted) in table {
            let mut event = event(1, what);
            event.machine = machine.map(MachineId);
            let wants = wants.unwrap();
            assert_eq!(wants.want(&event, &fitting), wanted, "{wants:?} {event:?}");
        }
    }

    #[test]
    fn a_choice_that_is_none_is_said() {
        for (wrong, part) in [
            (wants(&["loud"], &[], None), "`loud` is no level"),
            (wants(&[], &["transfre"], None), "`transfre` is no step"),
            (wants(&[], &[], Some("a in (")), "a in ("),
        ] {
            let said = wrong.unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}
