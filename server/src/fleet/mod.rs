//! The fleet: all machines, deployments and jobs; who is who and what is ordered for whom. One task owns all
//! of it (`actor`); what it decides is in cores that can be tried without it.

// What the doors may know of a machine without asking: deploy it, inspect it, leave it alone.
pub mod boot_policy;

// Core: many machines in one word.
pub mod hostlist;

// Core: the marks that a machine is recognised by.
pub mod marks;

// Core: who a machine is.
pub mod identity;

// Core: one machine.
pub mod machine;

// Core: what a job is bound to.
pub mod bound;

// Core: the machine that the server runs on.
pub mod own;

// Core: one machine's part of an order.
pub mod job;

// Core: what a call home proves.
pub mod proof;

// Core: what is concluded of a machine that says nothing.
pub mod silence;

// Core: what cloud-init will make of user-data.
mod user_data;

// Core: one order.
pub mod deployment;

// Core: everything that is known, and its changes.
pub mod state;

// Core: what is done with what the fleet is told.
pub mod decide;

// Core, part of the fleet: a machine reported.
pub mod reports;

// Core, part of the fleet: an admin ordered.
pub mod orders;

// Core, part of the fleet: what was refused or has failed is ordered again.
pub mod retry;

// Core, part of the fleet: nothing new begins.
mod freeze;

// Core, part of the fleet: orders that nobody came for.
mod expiry;

// Core: what an admin is shown.
mod show;

// What the fleet asks of the rooms beside it.
pub mod provisioner;

// Core: nonces, so that an old report is not taken for a new one.
mod nonce;

// What tests begin with.
#[cfg(any(test, fuzzing))]
pub mod testing;

// Where the records and the log are kept.
pub mod store;

// What is asked of the thread that owns the fleet.
mod request;

// The thread that owns the fleet.
mod actor;

// The way to it.
mod handle;

pub use actor::{FleetTask, start};
pub use handle::{FleetHandle, From};
pub use request::FleetError;

#[cfg(test)]
mod tests;
