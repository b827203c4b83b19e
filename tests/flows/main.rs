//! The flows: what swarmboot is for, tried with real firmware, a real kernel and a real Debian. They need root and
//! packages, so a plain `cargo test` leaves them out and says so; `tests/run` sets everything up and runs them.
// A flow that cannot go on has failed, and what it saw is shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

// Two machines get one image, a third another, a fourth is left alone.
mod main_job;

// A disk that holds an OS gets another.
mod redeploy;

// The power fails in the middle of a transfer, and the server's, too.
mod power_loss;

// Somebody else gives out the addresses.
mod proxy;

// UEFI HTTP boot, without TFTP.
mod http_boot;

// A neighbour's disk goes bad.
mod flipped_byte;

// Disks that are full, or cannot be written.
mod bad_disk;

// An OS on another disk never passes for the one that was ordered.
mod proven;

// A machine that does not come up is told of.
mod silence;

// What is refused, and how it is said.
mod refusals;
