//! Core: whose an event of the log is, and how it came to be said. Touches `common` and `fleet::job`.

use common::id::{DeploymentId, MachineId};
use common::step::Sources;

use super::super::job::Job;

/// Whose event it is.
#[derive(Debug, Clone, Copy)]
pub(in crate::fleet) enum Whose<'a> {
    /// A machine, by itself.
    Machine(MachineId),
    /// A machine's part of an order.
    Job(&'a Job),
    /// Somebody who is no machine that is known, by address or name.
    Stranger(&'a str),
    /// An order as a whole.
    Order(DeploymentId),
    /// The server itself.
    Server,
}

/// How an event came to be said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    /// Where bytes came from, in a transfer's event.
    pub(super) sources: Option<Sources>,
    /// Whether the machine said it, and not the server.
    pub(super) by_machine: bool,
}
