//! The traits of the stores for the fleet's records and log, which `records` implements over SQLite; another database
//! can implement them as well. They name no path and no database, and an implementation may wait for a network. Touches
//! `api`, `common`, `fleet::state`.

use std::collections::HashMap;
use std::sync::Arc;

use common::hardware::CheckedHardware;
use common::id::{DeploymentId, MachineId};
use common::step::{Step, What};
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::state::{Change, State};
use crate::api::shapes::LogEvent;

/// Why the records could not be read or written: the error of the implementation. The fleet treats all of them alike:
/// it goes back to what was committed last, and reports the error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// Wraps an error of the implementation.
    pub fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

/// The future of a store's answer, which may take as long as its disk or its network does.
pub type Stored<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Hardware of machines that is in memory and need not be read again.
pub type KnownHardware = HashMap<MachineId, Arc<CheckedHardware>>;

/// The writing end of the records, of which the fleet has the only one. It is called from the fleet's own thread, one
/// call at a time. An implementation may block that thread, or wait; it is polled within the server's runtime, so what
/// blocks on a runtime of its own belongs on another thread.
pub trait Store: Send + 'static {
    /// Reads the state, without the events; the hardware of machines that are in `known` is taken from there. Rows that
    /// cannot be read are listed in the state's `set_aside`, and left unchanged.
    ///
    /// # Errors
    /// When the records cannot be read at all.
    fn load(&mut self, known: KnownHardware) -> Stored<'_, State>;

    /// Commits all of `changes` or none of them, and returns when they survive a power cut. Of the progress events of
    /// one step only the newest is kept.
    ///
    /// # Errors
    /// When they cannot be committed; then none is.
    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Stored<'a, ()>;

    /// Deletes events from before `until`, except the newest of all, from which the numbering continues, and returns
    /// how many. Each call deletes so few that no other request waits for long; the rest is left to the next calls.
    ///
    /// # Errors
    /// When they cannot be deleted.
    fn forget_before(&mut self, until: Timestamp) -> Stored<'_, usize>;

    /// Deletes the oldest events while the records take more than `bytes`; otherwise as `forget_before`.
    ///
    /// # Errors
    /// When they cannot be deleted.
    fn forget_beyond(&mut self, bytes: u64) -> Stored<'_, usize>;

    /// Free bytes on the disk of the records; `None` where that cannot be told.
    fn free_bytes(&mut self) -> BoxFuture<'_, Option<u64>>;

    /// The reading end of the log that this store writes.
    fn log(&self) -> Arc<dyn Log>;
}

/// The reading end of the log, for many readers at once beside the writer.
pub trait Log: Send + Sync + 'static {
    /// The first `limit` events with numbers above `after` that `filter` wants, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    fn page(&self, filter: LogFilter, after: u64, limit: u32) -> Stored<'_, Vec<LogEvent>>;

    /// The first `limit` events with numbers above `after`, without progress, and what is missing before them: both as
    /// they were at one instant, so that nothing that is deleted meanwhile goes unnoticed.
    ///
    /// # Errors
    /// When they cannot be read.
    fn since(&self, after: u64, limit: u32) -> Stored<'_, Since>;
}

/// A part of the log as it was at one instant, for those who must know what they have missed.
#[derive(Debug, Clone, Default)]
pub struct Since {
    /// The events, in order.
    pub events: Vec<LogEvent>,
    /// The highest number of an event that was deleted because the log was too old or too large; 0 if none was.
    pub forgotten: u64,
    /// The number of the newest event of all.
    pub last: u64,
}

/// Which events are wanted. Conditions that are `None` hold for every event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogFilter {
    /// Events of these machines.
    pub machines: Option<Vec<MachineId>>,
    /// Events of this deployment and its jobs.
    pub deployment: Option<DeploymentId>,
    /// Events about this step.
    pub step: Option<Step>,
    /// Events at this time or later.
    pub since: Option<Timestamp>,
    /// Whether progress events are wanted as well.
    pub progress: bool,
}

impl LogFilter {
    /// Whether `event` fulfils all conditions.
    #[must_use]
    pub fn wants(&self, event: &LogEvent) -> bool {
        self.machines.as_ref().is_none_or(|wanted| event.machine.is_some_and(|id| wanted.contains(&id)))
            && self.deployment.is_none_or(|wanted| event.deployment == Some(wanted))
            && self.step.as_ref().is_none_or(|wanted| event.step == *wanted)
            && self.since.is_none_or(|since| event.at >= since)
            && (self.progress || !matches!(event.what, What::Progress { .. }))
    }
}
