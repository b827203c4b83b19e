//! The plan's steps, one file each, and the runner that walks them. A step says what came of it in a few
//! words or why it failed; the runner alone tells the log of beginnings and ends.

// Why a step failed.
pub mod error;

// The runner: order, tries, events.
pub mod run;

// What the steps share: the plan, the disk, the swarm.
mod machine;

// In the swarm, and hearing from it all the time.
mod membership;

// One file per step.
mod gather;
mod join;
mod linger;
mod personalise;
mod reboot;
mod seal;
mod transfer;
mod verify;

// Which file carries out which step.
mod dispatch;

// Events, shown on their way.
mod shown;

// From one order to its end, and to the next order.
pub mod life;

// The whole of it as PID 1.
pub mod pid1;

// All of them on a plain file.
#[cfg(test)]
mod whole;

// Power cuts through all of them.
#[cfg(test)]
mod power;

pub use run::EventSink;
