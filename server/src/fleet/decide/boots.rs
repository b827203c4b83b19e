//! Core: the boots of machines, by their keys. Owns when each agent was last heard of, which boots are over, and after
//! how long an agent counts as silent. Nothing of it is recorded: after a restart of the server every agent counts as
//! just heard of. Touches `common`; whether an agent is at work is decided in `at_work`.

use std::collections::HashMap;

use common::id::MachineId;
use common::plan::Instruction;
use common::trust::PublicKey;
use jiff::{SignedDuration, Timestamp};

/// A running agent asks every 15 s whether its job was cancelled, even when it has no events to send; one that sends
/// nothing for so long has lost power or its network.
pub(super) const SILENT: SignedDuration = SignedDuration::from_secs(120);

/// How long a report may take from when its machine was given a nonce: the largest takes half a minute on a line of
/// 1 Mbit/s, and may have to wait in the queue.
pub const REPORT_LIFE: SignedDuration = SignedDuration::from_secs(120);

/// How long the end of a boot is remembered: longer than the lifetime of a report.
const OVER: SignedDuration = SignedDuration::from_secs(600);

/// The longest poll interval, in seconds, of a machine that waits for the agent of an earlier boot.
const ASK_AGAIN: u32 = 10;

/// The number of keys above which old ones are dropped: one forged report is enough to add one.
const KEYS_MAX: usize = 20_000;

/// When each key was last used, and which keys are of boots that are over.
#[derive(Debug, Default)]
pub(in super::super) struct Boots {
    /// When a report or an event was last received under each key.
    heard: HashMap<PublicKey, Timestamp>,
    /// Keys of boots that a later boot of their machine replaced, with that machine and the time.
    over: HashMap<PublicKey, (MachineId, Timestamp)>,
    /// When the first report or event since the server's start arrived; `None` before that.
    since: Option<Timestamp>,
}

impl Boots {
    /// A report or an event under `key` has arrived.
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

    /// A later boot of `machine` has replaced the one under `key`.
    pub(in super::super) fn end(&mut self, key: PublicKey, machine: MachineId, now: Timestamp) {
        if self.over.len() >= KEYS_MAX {
            self.over.retain(|_, (_, at)| now.duration_since(*at) < OVER);
        }
        self.over.insert(key, (machine, now));
    }

    /// The machine whose boot under `key` was replaced after `begun`, when a report under that key was begun: the
    /// report is late or a replay. `None` if that boot is not over.
    pub(in super::super) fn is_over(&self, key: &PublicKey, begun: Timestamp) -> Option<MachineId> {
        self.over.get(key).filter(|(_, at)| begun <= *at).map(|(machine, _)| *machine)
    }

    /// How long nothing has been received under `key`; since the first report or event after the start if nothing was.
    pub(in super::super) fn silence(&mut self, key: &PublicKey, now: Timestamp) -> SignedDuration {
        self.begin(now);
        let last = self.heard.get(key).copied().or(self.since).unwrap_or(now);
        now.duration_since(last)
    }

    /// Makes every key look as if it had been used long ago.
    #[cfg(test)]
    pub(crate) fn age(&mut self) {
        self.heard.clear();
        self.since = Some(Timestamp::UNIX_EPOCH);
    }
}

/// An agent of an earlier boot that is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtWork {
    /// The key of its boot, by which the swarm knows it.
    pub key: PublicKey,
    /// Seconds until it counts as silent, if nothing more is heard of it.
    pub seconds: u32,
}

impl AtWork {
    /// The instruction for the later boot that waits for it: to report again soon.
    #[must_use]
    pub fn order(&self) -> Instruction {
        let reason =
            "the agent of an earlier boot is at work, or has not been silent for long enough".to_owned();
        Instruction::Wait { seconds: self.seconds.clamp(1, ASK_AGAIN), reason }
    }
}
