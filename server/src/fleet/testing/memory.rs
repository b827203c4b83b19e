//! The fleet's store and log in memory, for tests that need no database. Can be made to fail as if its disk were full.
//! Touches memory only.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::super::state::{Change, State};
use super::super::store::{KnownHardware, Log, LogFilter, Since, Store, StoreError, Stored};
use crate::api::shapes::LogEvent;
use common::step::What;

/// A store in memory. A clone shares its content, as if the records were opened again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Kept>>);

#[derive(Debug, Clone, Default)]
struct Kept {
    state: State,
    log: Vec<LogEvent>,
    forgotten: u64,
    is_full: bool,
}

/// Why a change is not committed.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    #[error("there is no room")]
    Full,
    #[error("job {0} is of a machine or a deployment that is not there")]
    Orphan(common::id::JobId),
}

impl Memory {
    /// Makes further commits fail as if the disk were full, or ends that.
    pub(crate) fn fill(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    /// The state as committed.
    pub(crate) fn state(&self) -> State {
        self.0.lock().state.clone()
    }
}

impl Kept {
    fn take(&mut self, change: &Change) -> Result<(), Untaken> {
        match change {
            Change::Job(job)
                if !self.state.machines.contains_key(&job.machine)
                    || !self.state.deployments.contains_key(&job.deployment) =>
            {
                return Err(Untaken::Orphan(job.id));
            }
            Change::Event(event) => {
                if let What::Progress { .. } = event.what {
                    let is_older = |old: &LogEvent| {
                        matches!(old.what, What::Progress { .. })
                            && event.machine.is_some()
                            && (old.machine, old.job, &old.step) == (event.machine, event.job, &event.step)
                    };
                    self.log.retain(|old| !is_older(old));
                }
                self.log.push((**event).clone());
            }
            _ => {}
        }
        self.state.adopt(change);
        Ok(())
    }

    /// Deletes the `count` oldest events, but never the newest one, and returns how many.
    fn forget(&mut self, count: usize) -> usize {
        let count = count.min(self.log.len().saturating_sub(1));
        let forgotten = self.log.drain(..count).map(|event| event.id).max();
        self.forgotten = self.forgotten.max(forgotten.unwrap_or(0));
        count
    }
}

impl Store for Memory {
    fn load(&mut self, known: KnownHardware) -> Stored<'_, State> {
        let mut state = self.state();
        for (id, hardware) in known {
            if let Some(machine) = state.machines.get_mut(&id) {
                machine.hardware = Some(hardware);
            }
        }
        Box::pin(async { Ok(state) })
    }

    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Stored<'a, ()> {
        Box::pin(async move {
            let mut kept = self.0.lock();
            if kept.is_full && !changes.is_empty() {
                return Err(StoreError::new(Untaken::Full));
            }
            let mut next = kept.clone();
            changes.iter().try_for_each(|change| next.take(change)).map_err(StoreError::new)?;
            *kept = next;
            Ok(())
        })
    }

    fn forget_before(&mut self, until: Timestamp) -> Stored<'_, usize> {
        let mut kept = self.0.lock();
        let old = kept.log.iter().take_while(|event| event.at < until).count();
        let forgotten = kept.forget(old);
        Box::pin(async move { Ok(forgotten) })
    }

    fn forget_beyond(&mut self, bytes: u64) -> Stored<'_, usize> {
        let mut kept = self.0.lock();
        let bytes_of = |event: &LogEvent| serde_json::to_vec(event).map_or(0, |text| text.len() as u64);
        let mut used: u64 = kept.log.iter().map(bytes_of).sum();
        let is_too_much = |event: &&LogEvent| {
            let too_much = used > bytes;
            used -= bytes_of(event);
            too_much
        };
        let many = kept.log.iter().take_while(is_too_much).count();
        let forgotten = kept.forget(many);
        Box::pin(async move { Ok(forgotten) })
    }

    fn free_bytes(&mut self) -> BoxFuture<'_, Option<u64>> {
        let free = self.0.lock().is_full.then_some(0);
        Box::pin(async move { free })
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.clone())
    }
}

impl Log for Memory {
    fn page(&self, filter: LogFilter, after: u64, limit: u32) -> Stored<'_, Vec<LogEvent>> {
        Box::pin(async move {
            let kept = self.0.lock();
            let later = kept.log.iter().filter(|event| event.id > after && filter.wants(event));
            Ok(later.take(limit as usize).cloned().collect())
        })
    }

    fn since(&self, after: u64, limit: u32) -> Stored<'_, Since> {
        Box::pin(async move {
            let kept = self.0.lock();
            let wanted = LogFilter::default();
            let later = kept.log.iter().filter(|event| event.id > after && wanted.wants(event));
            Ok(Since {
                events: later.take(limit as usize).cloned().collect(),
                forgotten: kept.forgotten,
                last: kept.log.last().map_or(0, |event| event.id),
            })
        })
    }
}
