//! What those who run the server need: backups, and what monitoring fetches, as the rooms above this one pass it in.
//! Touches nothing itself.

use std::io::Write;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::http::{Check, Watch};

/// Why a backup was not written.
pub type NoBackup = Box<dyn std::error::Error + Send + Sync>;

/// Writes a backup, with the images or without.
pub type WriteBackup = Arc<dyn Fn(bool, &mut dyn Write) -> Result<(), NoBackup> + Send + Sync>;

/// What the server's own room gives to the API.
#[derive(Clone)]
pub struct Ops {
    /// Writes backups.
    pub backup: WriteBackup,
    /// Metrics and checks.
    pub watch: Arc<dyn Watch>,
}

impl std::fmt::Debug for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ops").finish_non_exhaustive()
    }
}

/// A server that is not looked at and writes no backups.
impl Default for Ops {
    fn default() -> Self {
        Self {
            backup: Arc::new(|_, _| Err("no backups are written here".into())),
            watch: Arc::new(Unwatched),
        }
    }
}

struct Unwatched;

impl Watch for Unwatched {
    fn scrape(&self) -> BoxFuture<'_, String> {
        Box::pin(async { "# EOF\n".to_owned() })
    }

    fn alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { true })
    }

    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { vec![] })
    }
}
