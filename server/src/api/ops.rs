//! What those who run the server need: a backup, and what monitoring fetches. Touches what is passed in: the rooms that do
//! it stand above this one.

use std::io::Write;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::admin::Admin;
use super::tasks::streamed_by;
use crate::http::refusal::Refusal;
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

/// The query of a backup.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// Whether the images are part of it.
    #[serde(default = "yes")]
    images: bool,
}

fn yes() -> bool {
    true
}

/// `POST` although it changes nothing: the answer holds the server's keys, so it must not be what a viewer may `GET`.
pub(super) async fn backup(
    State(admin): State<Admin>,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let (write, errand) = (Arc::clone(&admin.ops.backup), admin.errands.place()?);
    tracing::info!(images = asked.images, "a backup was asked for");
    Ok(streamed_by(errand, move |out| write(asked.images, out)))
}
