//! Core: one deployment's gate before the first chunk. Owns whether it is open, and how long it stays shut; touches
//! nothing.

use std::time::Duration;

use common::limits::GATHER_SECONDS_MAX;

use super::super::handle::Gather;

/// The gate of a deployment of which at least one machine has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Machines wait; the first of them arrived at this time.
    Shut(Duration),
    /// Machines start at once.
    Open,
}

impl Gate {
    /// When it opens although machines are missing; `None` when it is open.
    pub(super) fn until(self, gather: Gather) -> Option<Duration> {
        let Self::Shut(since) = self else { return None };
        let patience = Duration::from_secs(gather.seconds.min(GATHER_SECONDS_MAX));
        Some(since.saturating_add(patience))
    }
}
