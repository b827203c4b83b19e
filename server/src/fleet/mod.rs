//! The fleet: all machines, deployments and jobs: the identity of machines, and what is ordered for each. One thread
//! owns all of it (`actor`); its decisions are in cores that are tested without it.

// Core: what DHCP, TFTP and HTTP may know of a machine without asking the fleet, and what they report to it.
pub mod boot_policy;

// Core: hostlists, which name many machines at once.
pub mod hostlist;

// Core: the marks that a machine is recognised by.
pub mod marks;

// Core: which machine a report is from.
pub mod identity;

// Core: the record of one machine.
pub mod machine;

// Core: what a job is bound to.
pub mod bound;

// Core: the machine that the server runs on.
pub mod own;

// Core: the life of a job, one machine's part of a deployment.
pub mod job;

// Core: what a call home proves.
pub mod proof;

// Core: what is concluded when a machine falls silent.
pub mod silence;

// Core: warnings about what cloud-init will make of user-data.
mod user_data;

// Core: selectors, which choose machines for what they are.
pub mod selectors;

// Core: what a machine answers to the keys of selectors.
mod facts;

// Core: rules, which give labels to machines.
pub mod rules;

// Core: an order, parsed and checked.
pub mod order;

// Core: a profile, as it is on record.
pub mod profile;

// Core: the text of a profile, and the mistakes in it.
pub mod profile_text;

// Core, part of the fleet: profiles added and removed.
mod profiles;

// Core, part of the fleet: orders by profiles.
mod by_profile;

// Core: a deployment, one order for many machines.
pub mod deployment;

// Core: relays and staged images, as they are on record.
pub mod relay;

// Tokens of the API, as they are on record.
pub mod token;

// Tokens made and revoked.
mod tokens;

// What whoever asks may see.
mod scope;

// Core: the relays that are there.
mod presence;

// Core: the state of the fleet, and its changes.
pub mod state;

// Core: the state machine that takes every event and command.
pub mod decide;

// Core, part of the fleet: hardware reports.
pub mod reports;

// Core, part of the fleet: gives a machine its plan, or refuses it.
mod plans;

// Core, part of the fleet: placing orders.
pub mod orders;

// Core, part of the fleet: an admin's commands for machines.
mod commands;

// Core, part of the fleet: orders refused and failed jobs again.
pub mod retry;

// Core: the answer to an order, as it is on record.
pub mod answer;

// Core, part of the fleet: answers kept for who asks twice.
mod answers;

// Core, part of the fleet: freezing, so that nothing new begins.
mod freeze;

// Core, part of the fleet: what was ordered together, and cancelling it.
mod together;

// Core, part of the fleet: pausing a deployment, and how many of its machines are written at once.
mod pace;

// Core, part of the fleet: the expiry of orders.
mod expiry;

// Core, part of the fleet: relays, what they say and are told.
pub mod relays;

// Core: machines, jobs and deployments as the API shows them.
mod show;

// Core: the same for the live stream.
pub mod live;

// Core: what was touched since the live stream looked.
mod touched;

// The trait through which the fleet uses images, boot kits, the tailor and the swarm.
pub mod provisioner;

// Core: nonces against replayed reports.
mod nonce;

// Fixtures of tests.
#[cfg(any(test, fuzzing))]
pub mod testing;

// The traits of the stores for records and log.
pub mod store;

// Requests to the thread that owns the fleet.
mod request;

// The thread that owns the fleet.
mod actor;

// The handle for requests to it.
mod handle;

pub use actor::{FleetTask, start};
pub use handle::FleetHandle;
pub use handle::arrivals::From;
pub use request::FleetError;

#[cfg(test)]
mod tests;
