//! Requests to the fleet's thread, and their errors. Touches `fleet::decide`, `fleet::store`.

use std::net::IpAddr;
use std::sync::Arc;

use common::wire::http::{Refused, WaitRequest};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::decide::{EventsRefused, Fleet, Heard, Wake};
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
    /// The request of a waiting machine was made before.
    #[error("this request was made before")]
    Repeated,
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

/// A machine's request that stays open until there is news for it.
pub(super) struct Waiter {
    pub(super) request: WaitRequest,
    /// The address that it came from.
    pub(super) address: IpAddr,
    /// Takes the fleet's answer, once the machine's last word is committed.
    pub(super) reply: oneshot::Sender<Result<Heard, FleetError>>,
    /// Told when there is news; closed when nobody waits for it any more.
    pub(super) woken: oneshot::Sender<Wake>,
}

/// An entry of the fleet's queue.
pub(super) enum Request {
    /// Run this on the fleet's thread.
    Work(Work),
    /// Keep this request open, if nothing has changed for its machine.
    Wait(Box<Waiter>),
    /// Call `Fleet::tick`.
    Tick(Answer),
    /// Delete events that are too old or too many.
    Forget,
    /// End the thread once all earlier requests are committed.
    Stop,
}
