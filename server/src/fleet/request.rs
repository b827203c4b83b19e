//! What is asked of the fleet's thread, and what it answers. Touches `fleet::decide`, `fleet::store`.

use std::sync::Arc;

use common::wire::http::Refused;
use jiff::Timestamp;

use super::decide::{EventsRefused, Fleet};
use super::store::StoreError;

/// Why the fleet did not answer.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// Nothing was done, because it could not be written down.
    #[error("what was asked for could not be written down")]
    Unwritten(#[source] Arc<StoreError>),
    /// The records could not be read.
    #[error("the records could not be read")]
    Records(#[from] StoreError),
    /// The events are of no machine that reported.
    #[error(transparent)]
    Events(#[from] EventsRefused),
    /// What was asked for makes no sense.
    #[error("{}", .0.error)]
    Refused(Refused),
    /// A thread ended that should not have.
    #[error("a worker thread failed")]
    Worker(#[source] tokio::task::JoinError),
    /// The fleet's thread could not be started.
    #[error("cannot start the fleet's thread")]
    Thread(#[source] std::io::Error),
}

/// Looks at or changes what is known, at the time that it is given.
pub(super) type Work = Box<dyn FnOnce(&mut Fleet, Timestamp) -> Answer + Send>;

/// Gives the answer once what it says is written down, or the reason why it is not.
pub(super) type Answer = Box<dyn FnOnce(Result<(), FleetError>) + Send>;

/// What waits for the fleet.
pub(super) enum Request {
    /// Look at or change what is known.
    Work(Work),
    /// Let time pass.
    Tick(Answer),
    /// Forget events that are too old or too many.
    Forget,
    /// End, once all that was asked before is written down.
    Stop,
}
