//! Core, part of the fleet: whether an agent is at work, which another boot of its machine must not interrupt. Touches
//! `common`, `api` and the other cores of the fleet.

use common::id::MachineId;
use common::trust::PublicKey;
use jiff::{SignedDuration, Timestamp};

use super::Fleet;
use super::boots::{AtWork, SILENT};
use crate::api::shapes::JobState;

/// An agent whose connection to the swarm is closed and that has sent nothing for this long has lost power: it asks
/// every 15 s whether its job was cancelled, and one or two lost answers are allowed for.
const GONE: SignedDuration = SignedDuration::from_secs(40);

impl Fleet {
    /// The agent of another boot that works on a job of `machine` and is not silent; `None` if there is none. `gone`
    /// says that its connection to the swarm is closed. A report under a new key is easily forged, so it does not end
    /// an installation; a machine that was switched off and on again continues when the old agent has been silent for
    /// long enough.
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
