//! Limits how many long requests run at once: reading and following the log, imports, exports. The limit is below that
//! of connections, so that a connection for an order is always left. Touches a semaphore only.

use std::sync::Arc;

use axum::http::StatusCode;
use common::limits::LONG_ERRANDS_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::refusal::Refusal;

/// The limit on long requests, shared by all handlers.
#[derive(Debug, Clone)]
pub struct Errands(Arc<Semaphore>);

/// The permit of one long request; dropping it frees it for another.
#[derive(Debug)]
pub(super) struct Errand {
    _place: OwnedSemaphorePermit,
}

impl Default for Errands {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LONG_ERRANDS_MAX)))
    }
}

impl Errands {
    /// A permit for a long request, or a refusal when [`LONG_ERRANDS_MAX`] run already.
    pub(super) fn place(&self) -> Result<Errand, Refusal> {
        let place = Arc::clone(&self.0).try_acquire_owned();
        place.map(|place| Errand { _place: place }).map_err(|_| {
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{LONG_ERRANDS_MAX} admins read the log, import or export already"),
            )
            .hint("end one of the others; the rest of the places is kept for orders")
        })
    }
}
