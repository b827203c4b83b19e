//! Limits how many long requests run at once: reading and following the log, imports, exports; and how many event streams
//! are open. Both are below the limits of connections, so that a connection for an order is always left. Touches
//! semaphores only.

use std::sync::Arc;

use axum::http::StatusCode;
use common::limits::{EVENT_STREAMS_MAX, LONG_ERRANDS_MAX, SOCKET_STREAMS_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::Door;
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
        let full = format!("{LONG_ERRANDS_MAX} admins read the log, import or export already");
        place_in(&self.0, full, "end one of the others; the rest of the places is kept for orders")
    }
}

/// The limits on event streams, shared by all handlers: over TLS, and over the admin's socket, which has fewer connections.
#[derive(Debug, Clone)]
pub struct Streams {
    remote: Arc<Semaphore>,
    local: Arc<Semaphore>,
}

impl Default for Streams {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { remote: places(EVENT_STREAMS_MAX), local: places(SOCKET_STREAMS_MAX) }
    }
}

impl Streams {
    /// A permit for a stream at `door`, or a refusal when [`EVENT_STREAMS_MAX`] or [`SOCKET_STREAMS_MAX`] are open already.
    pub(super) fn place(&self, door: Door) -> Result<Errand, Refusal> {
        let (places, most) = match door {
            Door::Socket(_) => (&self.local, SOCKET_STREAMS_MAX),
            Door::Api | Door::Machines => (&self.remote, EVENT_STREAMS_MAX),
        };
        place_in(places, format!("{most} event streams are open already"), "close those that nobody looks at")
    }
}

/// A permit of `places`, or a refusal that says what takes all of them and what to do.
fn place_in(places: &Arc<Semaphore>, full: String, hint: &str) -> Result<Errand, Refusal> {
    let place = Arc::clone(places).try_acquire_owned();
    place
        .map(|place| Errand { _place: place })
        .map_err(|_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, full).hint(hint))
}
