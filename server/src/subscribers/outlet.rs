//! What delivers events to one place, and how a delivery may end. Touches the forms of events.

use std::time::Duration;

use futures::future::BoxFuture;

use super::follower::Failure;
use super::form::Item;

/// How long one delivery may take in all.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How many items were delivered, and why not more, if something failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// So many of the first are delivered.
    pub(super) delivered: usize,
    /// What went wrong behind them.
    pub(super) failure: Option<Failure>,
}

impl Outcome {
    /// All went well.
    pub(super) fn all(delivered: usize) -> Self {
        Self { delivered, failure: None }
    }

    /// So many were delivered before `cause` stopped it.
    pub(super) fn until(delivered: usize, cause: String) -> Self {
        Self { delivered, failure: Some(Failure::Again { cause, after: None }) }
    }
}

/// A place that events are delivered to.
pub(super) trait Outlet: Send {
    /// Delivers some of `items`, beginning with the first; there is at least one. When the future is dropped, what it
    /// began may have been delivered.
    fn deliver<'a>(&'a mut self, items: &'a [Item]) -> BoxFuture<'a, Outcome>;
}
