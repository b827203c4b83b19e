//! Core: what an event of the log is about, and who reported it. Touches `common` and `fleet::job`.

use common::id::{DeploymentId, MachineId};
use common::step::Sources;

use super::super::job::Job;

/// What an event of the log is about.
#[derive(Debug, Clone, Copy)]
pub(in crate::fleet) enum Whose<'a> {
    /// A machine, but none of its jobs.
    Machine(MachineId),
    /// A job and its machine.
    Job(&'a Job),
    /// A sender that is no known machine, by its address or name.
    Stranger(&'a str),
    /// A deployment as a whole.
    Order(DeploymentId),
    /// A relay, by its name.
    Relay(&'a str),
    /// A site as a whole, by its name.
    Site(&'a str),
    /// Somebody who is told of events, by its name.
    Subscriber(&'a str),
    /// The server itself.
    Server,
}

/// Details of an event that an agent reported; the default is an event of the server's own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    /// How many bytes came from the server and from peers, in an event about a transfer.
    pub(super) sources: Option<Sources>,
    /// Whether the machine reported it, and not the server.
    pub(super) by_machine: bool,
}
