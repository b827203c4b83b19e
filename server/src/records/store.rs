//! The fleet's traits `Store` and `Log`, implemented over SQLite. The store blocks, on the fleet's own thread; the log
//! is read on tokio's blocking threads, with a connection for each read under way. Touches the file and these threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::Records;
use super::error::RecordsError;
use super::log::LogReader;
use crate::api::shapes::LogEvent;
use crate::fleet::state::{Change, State};
use crate::fleet::store::{KnownHardware, Log, LogFilter, Since, Store, StoreError, Stored};

/// Connections kept open between two pages: only a few admins read the log at once.
const IDLE_MAX: usize = 4;

impl Store for Records {
    fn load(&mut self, known: KnownHardware) -> Stored<'_, State> {
        Box::pin(async move { self.load_beside(&known).map_err(StoreError::new) })
    }

    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Stored<'a, ()> {
        Box::pin(async move { Self::commit(self, changes).map_err(StoreError::new) })
    }

    fn forget_before(&mut self, until: Timestamp) -> Stored<'_, usize> {
        Box::pin(async move { self.forget_events(until).map_err(StoreError::new) })
    }

    fn forget_beyond(&mut self, bytes: u64) -> Stored<'_, usize> {
        Box::pin(async move { self.shrink_events(bytes).map_err(StoreError::new) })
    }

    fn free_bytes(&mut self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async move { free_bytes(&self.path) })
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::new(LogReaders(Arc::new(Readers { path: self.path.clone(), idle: Mutex::default() })))
    }
}

/// Bytes that are free on the file system of `file`; `None` if that cannot be told.
fn free_bytes(file: &Path) -> Option<u64> {
    let there = nix::sys::statvfs::statvfs(file).ok()?;
    Some(there.blocks_available().saturating_mul(there.fragment_size()))
}

/// The reading end of the log in one database file.
struct LogReaders(Arc<Readers>);

struct Readers {
    path: PathBuf,
    /// Open connections that are not in use.
    idle: Mutex<Vec<LogReader>>,
}

impl Readers {
    fn read<T>(&self, read: impl FnOnce(&LogReader) -> Result<T, RecordsError>) -> Result<T, RecordsError> {
        let idle = self.idle.lock().pop();
        let reader = idle.map_or_else(|| LogReader::open(&self.path), Ok)?;
        // A connection whose read failed is dropped, not put back.
        let page = read(&reader)?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(reader);
        }
        Ok(page)
    }
}

impl Log for LogReaders {
    fn page(&self, filter: LogFilter, after: u64, limit: u32) -> Stored<'_, Vec<LogEvent>> {
        let readers = Arc::clone(&self.0);
        let page = move || readers.read(|reader| reader.page(&filter, after, limit));
        Box::pin(async move {
            let page = tokio::task::spawn_blocking(page).await.map_err(StoreError::new)?;
            page.map_err(StoreError::new)
        })
    }

    fn since(&self, after: u64, limit: u32) -> Stored<'_, Since> {
        let readers = Arc::clone(&self.0);
        let since = move || readers.read(|reader| reader.since(after, limit));
        Box::pin(async move {
            let since = tokio::task::spawn_blocking(since).await.map_err(StoreError::new)?;
            since.map_err(StoreError::new)
        })
    }
}
