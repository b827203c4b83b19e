//! Core, part of the fleet: whether an agent is at work that another boot of its machine may not disturb. Touches
//! `common` and the other cores of the fleet.

use common::id::MachineId;
use common::trust::PublicKey;
use jiff::{SignedDuration, Timestamp};

use super::Fleet;
use super::boots::{AtWork, SILENT};
use crate::api::shapes::JobState;

/// An agent whose connection to the swarm is gone and that has not told anything for this long has lost power: it asks
/// every 15 s whether its job was cancelled, and a lost answer or two are allowed.
const GONE: SignedDuration = SignedDuration::from_secs(40);

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
}
