//! Core, part of the fleet: the boots that keys are of. Which agent was heard of last, whose boot is over, and whether
//! one is at work that another may not disturb. Nothing of it is kept over a restart: then every agent is taken as just
//! heard of, and has the usual time to speak again.

use std::collections::HashMap;

use common::id::{Mac, MachineId};
use common::plan::Instruction;
use common::trust::PublicKey;
use jiff::{SignedDuration, Timestamp};

use super::{Fleet, SILENT};
use crate::api::shapes::JobState;

/// An agent whose connection to the swarm is gone and that has not told anything for this long has lost power: it asks
/// every 15 s whether its job was cancelled, and a lost answer or two are allowed.
const GONE: SignedDuration = SignedDuration::from_secs(40);

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

impl Fleet {
    /// The agent of another boot that works on a job of `machine` and is not silent. `gone` says that its connection
    /// to the swarm is closed. A report under a new key costs a liar nothing, so it does not end an installation; a
    /// machine that was switched off and on again goes on when the old agent has been silent for long enough.
    pub(in super::super) fn at_work(
        &mut self,
        machine: MachineId,
        key: PublicKey,
        gone: bool,
        now: Timestamp,
    ) -> Option<AtWork> {
        let job = self.state.newest_job(machine).filter(|job| job.state == JobState::Running)?;
        let agent = job.key.filter(|agent| *agent != key)?;
        let enough = if gone { GONE } else { SILENT };
        let left = enough - self.boots.silence(&agent, now);
        let seconds = u32::try_from(left.as_secs().clamp(0, 600)).unwrap_or(600);
        left.is_positive().then_some(AtWork { key: agent, seconds })
    }

    /// Whether another machine that was heard of, or that somebody has named, says that `mac` is its own.
    pub(in super::super) fn is_anothers(&self, mac: Mac, id: MachineId) -> bool {
        let mut others = self.state.with_mac(mac).filter(|other| other.id != id);
        others.any(|other| {
            other.fingerprint.owns(mac) && (other.hardware.is_some() || self.is_claimed(other.id))
        })
    }

    /// Whether a job was ever ordered for a machine, or an admin has said anything about it.
    pub(in super::super) fn is_claimed(&self, id: MachineId) -> bool {
        let named = self.state.machines.get(&id).is_some_and(super::Machine::is_claimed);
        named || self.state.newest_job(id).is_some()
    }
}
