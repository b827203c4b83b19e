//! Boot kits: what machines are booted with. A kit is a folder `<state>/kits/<name>/` that is made whole or
//! not at all: a kernel, the modules and firmware that a deployment can need, the network boot programs, and
//! the loader's initramfs made from them. Plain blocking calls, which
//! asynchronous callers wrap in `spawn_blocking`.

// The kits there are, and one kit.
mod store;

// The default kit, read when it changes.
mod current;

// What can go wrong, and what to do about it.
mod error;

// Import: from sources to a kit, in steps.
mod import;

// A kit in the place of another.
mod place;

// Sources as one tree of files.
mod tree;

// The members of a package.
mod members;

// Sources: `.deb` files.
mod deb;

// Core: what a kernel image says of itself.
mod kernel;

// Core: what a module says of itself.
mod modinfo;

// Core: which kernel, which modules, which boot programs.
mod choose;

// Deterministic archives of files.
pub mod archive;

// The loader's initramfs.
mod initramfs;

pub use choose::{Part, part_of};
#[cfg(fuzzing)]
pub use deb::try_deb;
pub use error::KitError;
pub use import::{ImportSpec, Progress, Source};
#[cfg(fuzzing)]
pub use modinfo::try_module;
pub use store::{BootFiles, FileMark, Kit, KitInfo, Kits};

pub(crate) use store::replace_file;

#[cfg(test)]
pub(crate) use import::tests;
#[cfg(test)]
pub(crate) use initramfs::loader_modules;

#[cfg(test)]
mod written_before;
