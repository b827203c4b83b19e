//! Hooks: an admin's scripts, run with the new root as their own before the disk can boot.

// Core: what of a script's output goes to the log.
mod output;

// Core: which bytes of the disk are the root.
pub mod region;

// Core: which subvolume of a btrfs is the root.
mod subvolume;

// The kernel's means: loop devices, mounts, namespaces, limits.
mod sandbox;

// One script, from mount to unmount.
pub mod script;

// Why a hook did not run, or failed.
pub mod error;
