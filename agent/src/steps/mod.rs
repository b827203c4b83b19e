//! The plan's steps, one file each, and the runner that carries them out. A step returns a short text for the log, or
//! its error; only the runner reports that a step began or ended.

// The errors of steps.
pub mod error;

// The runner: order, retries, events.
pub mod run;

// The state that the steps of a job share.
mod machine;

// The membership in the swarm, and its events.
mod membership;

// One file per step.
mod gather;
mod hooks;
mod join;
mod linger;
mod personalise;
mod reboot;
mod seal;
mod transfer;
mod verify;

// Which file carries out which step.
mod dispatch;

// An event sink that also shows the events.
mod shown;

// The main loop: from one order to its end, and to the next order.
pub mod life;

// The main loop as PID 1.
pub mod pid1;

// Tests of all steps on a plain file.
#[cfg(test)]
mod whole;

// Tests of all steps under power cuts.
#[cfg(test)]
mod power;

pub use run::EventSink;
