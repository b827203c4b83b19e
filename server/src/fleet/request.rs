//! Requests to the fleet's thread, and their errors. Touches `fleet::decide`, `fleet::store`.

use std::sync::Arc;

use common::wire::http::Refused;
use jiff::Timestamp;

use super::decide::{EventsRefused, Fleet};
use super::store::StoreError;

/// Why a request to the fleet failed.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The fleet's thread has ended or is about to.
    #[error("the server is stopping")]
    Stopping,
    /// The changes could not be committed, so nothing was done.
    #[error("what was asked for could not be written down")]
    Unwritten(#[source] Arc<StoreError>),
    /// The records could not be read when the fleet was started, or for a query of the log.
    #[error("the records could not be read")]
    Records(#[from] StoreError),
    /// The batch of events is from no machine that has reported.
    #[error(transparent)]
    Events(#[from] EventsRefused),
    /// The request was refused; with hint and cause for the caller.
    #[error("{}", .0.error)]
    Refused(Refused),
    /// A blocking task was cancelled or panicked.
    #[error("a worker thread failed")]
    Worker(#[source] tokio::task::JoinError),
    /// The fleet's thread could not be started.
    #[error("cannot start the fleet's thread")]
    Thread(#[source] std::io::Error),
}

/// A function that reads or changes the fleet; it gets the time at which it runs.
pub(super) type Work = Box<dyn FnOnce(&mut Fleet, Timestamp) -> Answer + Send>;

/// Sends the reply to a request; called once its changes are committed, or with the error why they are not.
pub(super) type Answer = Box<dyn FnOnce(Result<(), FleetError>) + Send>;

/// An entry of the fleet's queue.
pub(super) enum Request {
    /// Run this on the fleet's thread.
    Work(Work),
    /// Call `Fleet::tick`.
    Tick(Answer),
    /// Delete events that are too old or too many.
    Forget,
    /// End the thread once all earlier requests are committed.
    Stop,
}
