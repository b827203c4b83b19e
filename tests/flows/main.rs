//! The flows: swarmboot's main uses, tested with real firmware, a real kernel and a real Debian. They need root and
//! packages, so a plain `cargo test` leaves them out and says so; `tests/run` sets everything up and runs them.
// A flow stops at the first failure, and prints what it has seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

// Two machines get one image, a third another, a fourth is left alone.
mod main_job;

// Another OS is deployed onto a disk that holds one.
mod redeploy;

// Power loss in the middle of a transfer: of the machine, then of the server.
mod power_loss;

// Another DHCP server gives out the addresses.
mod proxy;

// UEFI HTTP boot, without TFTP.
mod http_boot;

// A branch behind a thin line takes its boot files once, from its own machines.
mod branch;

// A branch with a relay, and a server that dies.
mod relay;

// A byte goes wrong on a neighbour's disk.
mod flipped_byte;

// Disks that are full, or cannot be written.
mod bad_disk;

// An OS on another disk is not taken for the one that was ordered.
mod proven;

// A machine that does not come up is reported.
mod silence;

// Hooks in roots of ext4, XFS and btrfs, and a power cut in them.
mod hooks;

// Commands that are refused, and their errors.
mod refusals;

// The package on a clean Debian, followed by the manual.
mod package;
