//! Where the fleet's records and its log are kept: the seam that `records` implements over SQLite, and that another
//! database can implement as well. It names no path and no database, and whoever implements it may wait for a network.
//! Touches `api`, `common`, `fleet::state`.

use std::collections::HashMap;
use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, MachineId};
use common::step::{Step, What};
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::state::{Change, State};
use crate::api::shapes::LogEvent;

/// Why the records could not be read or written, in the words of who keeps them. The fleet does the same about all of
/// it: it goes back to what was written down last, and says why.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// An error of whoever keeps the records.
    pub fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

/// An answer of a store, which may take as long as its disk or its network does.
pub type Stored<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Hardware by machine that need not be read again.
pub type KnownHardware = HashMap<MachineId, Arc<CheckedHardware>>;

/// The writing end of the records, of which the fleet has the only one. It is called from the fleet's own thread, one
/// call at a time. An implementation may block that thread, or wait; it is polled within the server's runtime, so what
/// blocks on a runtime of its own belongs on another thread.
pub trait Store: Send + 'static {
    /// All that is known, but the events; the hardware of machines that are in `known` is taken from there. What
    /// cannot be read is named in the state's `set_aside`, and stays as it is.
    ///
    /// # Errors
    /// When nothing can be read.
    fn load(&mut self, known: KnownHardware) -> Stored<'_, State>;

    /// Writes all of `changes` or none of them, and answers when they outlive a power cut. Of a step's progress only
    /// the newest event is kept.
    ///
    /// # Errors
    /// When they cannot be written; then nothing was.
    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Stored<'a, ()>;

    /// Forgets events from before `until`, but the newest of all, which keeps the numbering going. How many they were:
    /// at most so many that nobody waits for long, the rest at the next call.
    ///
    /// # Errors
    /// When they cannot be forgotten.
    fn forget_before(&mut self, until: Timestamp) -> Stored<'_, usize>;

    /// Forgets the oldest events while the records take more than `bytes`; otherwise as `forget_before`.
    ///
    /// # Errors
    /// When they cannot be forgotten.
    fn forget_beyond(&mut self, bytes: u64) -> Stored<'_, usize>;

    /// Bytes that are free where the records are; none where that cannot be told.
    fn free_bytes(&mut self) -> BoxFuture<'_, Option<u64>>;

    /// The reading end of the log that this store writes.
    fn log(&self) -> Arc<dyn Log>;
}

/// The log as it is read, beside the writer and by many at once.
pub trait Log: Send + Sync + 'static {
    /// At most `limit` events that `filter` wants, in order, from the first after number `after`.
    ///
    /// # Errors
    /// When they cannot be read.
    fn page(&self, filter: LogFilter, after: u64, limit: u32) -> Stored<'_, Vec<LogEvent>>;
}

/// Which events are wanted. Conditions that are not set hold for every event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogFilter {
    /// Of one of these machines.
    pub machines: Option<Vec<MachineId>>,
    /// Of the jobs of this deployment.
    pub deployment: Option<DeploymentId>,
    /// Of this step.
    pub step: Option<Step>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Progress events as well, which are left out otherwise.
    pub progress: bool,
}

impl LogFilter {
    /// Whether `event` is wanted.
    #[must_use]
    pub fn wants(&self, event: &LogEvent) -> bool {
        self.machines.as_ref().is_none_or(|wanted| event.machine.is_some_and(|id| wanted.contains(&id)))
            && self.deployment.is_none_or(|wanted| event.deployment == Some(wanted))
            && self.step.as_ref().is_none_or(|wanted| event.step == *wanted)
            && self.since.is_none_or(|since| event.at >= since)
            && (self.progress || !matches!(event.what, What::Progress { .. }))
    }
}
