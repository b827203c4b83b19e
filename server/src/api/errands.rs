//! The places of those admins who stay long: followers and readers of the log, imports, exports. Bounded below the
//! number of connections, so that there is always one for an order. Touches nothing.

use std::sync::Arc;

use axum::http::StatusCode;
use common::limits::LONG_ERRANDS_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::refusal::Refusal;

/// The places of those who stay long.
#[derive(Debug, Clone)]
pub struct Errands(Arc<Semaphore>);

/// One of those places, until it is let go.
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
    /// A place for somebody who stays long.
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
