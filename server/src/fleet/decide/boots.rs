//! Core: the boots that keys are of. Owns when each agent was heard of last, whose boot is over, and after how long an
//! agent counts as silent. Nothing of it is kept over a restart: then every agent is taken as just heard of, and has the
//! usual time to speak again. Touches `common`; whether an agent is at work is asked of the fleet (`at_work`).

use std::collections::HashMap;

use common::id::MachineId;
use common::plan::Instruction;
use common::trust::PublicKey;
use jiff::{SignedDuration, Timestamp};

/// A running agent asks every 15 s whether its job was cancelled, even when it has nothing to tell; after so
/// long without a word it has lost power or its network.
pub(super) const SILENT: SignedDuration = SignedDuration::from_secs(120);

/// How long a report may take from the moment when its machine was given a nonce: the largest on a line of 1 Mbit/s
/// takes half a minute, and may wait for its turn.
pub const REPORT_LIFE: SignedDuration = SignedDuration::from_secs(120);

/// How long the end of a boot is remembered: longer than a report can be on its way.
const OVER: SignedDuration = SignedDuration::from_secs(600);

/// The longest until a machine that waits for a silent agent asks again.
const ASK_AGAIN: u32 = 10;

/// Keys that are remembered; a key costs a liar one report.
const KEYS_MAX: usize = 20_000;

/// What is known of keys.
#[derive(Debug, Default)]
pub(in super::super) struct Boots {
    /// When each was heard of last.
    heard: HashMap<PublicKey, Timestamp>,
    /// Boots that another boot of the machine took the place of, and when.
    over: HashMap<PublicKey, (MachineId, Timestamp)>,
    /// When this fleet was first told anything.
    since: Option<Timestamp>,
}

impl Boots {
    /// The holder of `key` was heard of.
    pub(in super::super) fn hear(&mut self, key: PublicKey, now: Timestamp) {
        self.begin(now);
        if self.heard.len() >= KEYS_MAX {
            self.heard.retain(|_, at| now.duration_since(*at) < SILENT);
        }
        self.heard.insert(key, now);
    }

    fn begin(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
    }

    /// A boot of `machine` under another key took the place of the one under `key`.
    pub(in super::super) fn end(&mut self, key: PublicKey, machine: MachineId, now: Timestamp) {
        if self.over.len() >= KEYS_MAX {
            self.over.retain(|_, (_, at)| now.duration_since(*at) < OVER);
        }
        self.over.insert(key, (machine, now));
    }

    /// The machine whose boot under `key` was over when a report that was begun at `begun` was: it is a repetition.
    pub(in super::super) fn is_over(&self, key: &PublicKey, begun: Timestamp) -> Option<MachineId> {
        self.over.get(key).filter(|(_, at)| begun <= *at).map(|(machine, _)| *machine)
    }

    /// How long nothing was heard under `key`.
    pub(in super::super) fn silence(&mut self, key: &PublicKey, now: Timestamp) -> SignedDuration {
        self.begin(now);
        let last = self.heard.get(key).copied().or(self.since).unwrap_or(now);
        now.duration_since(last)
    }

    /// As if all that was heard had been heard long ago.
    #[cfg(test)]
    pub(crate) fn age(&mut self) {
        self.heard.clear();
        self.since = Some(Timestamp::UNIX_EPOCH);
    }
}

/// An agent that is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtWork {
    /// The key of its boot.
    pub key: PublicKey,
    /// Seconds until it counts as silent, if nothing more is heard of it.
    pub seconds: u32,
}

impl AtWork {
    /// What the machine that would take its place is told: to ask again, often enough to go on soon.
    #[must_use]
    pub fn order(&self) -> Instruction {
        let reason =
            "the agent of an earlier boot is at work, or has not been silent for long enough".to_owned();
        Instruction::Wait { seconds: self.seconds.clamp(1, ASK_AGAIN), reason }
    }
}
