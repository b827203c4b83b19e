//! Boot kits: what machines boot. A kit is a folder `<state>/kits/<name>/` that is created completely or not at all: a
//! kernel, the modules and firmware that a deployment can need, the network boot programs, and the loader's initramfs
//! made from them. All calls block; asynchronous callers wrap them in `spawn_blocking`.

// The store of kits, and one kit.
mod store;

// A cache of the default kit.
mod current;

// Core: the errors, and what an admin can do about them.
mod error;

// The parameters of an import, and its progress.
mod spec;

// Opening, importing, and replacing the loader.
mod change;

// Imports a kit from sources, in steps.
mod import;

// Replaces a kit by another, atomically.
mod place;

// Sources merged into one tree of files.
mod tree;

// The members of a `.deb` file.
mod members;

// Reads `.deb` files.
mod deb;

// iPXE's own archive, and the version of an iPXE.
mod ipxe;

// Core: parses kernel images.
mod kernel;

// Core: parses kernel modules.
mod modinfo;

// Core: chooses kernel, modules and boot programs.
mod choose;

// Deterministic archives of files.
pub mod archive;

// Builds the loader's initramfs.
mod initramfs;

pub use choose::{Part, part_of};
#[cfg(fuzzing)]
pub use deb::try_deb;
pub use error::KitError;
pub use initramfs::{agent_archive, small_initramfs};
#[cfg(fuzzing)]
pub use modinfo::try_module;
pub use spec::{ImportSpec, Progress, Source};
pub use store::{BootFiles, FileMark, Kit, KitInfo, Kits};

pub(crate) use store::replace_file;

#[cfg(test)]
pub(crate) use import::tests;
#[cfg(test)]
pub(crate) use initramfs::loader_modules;

#[cfg(test)]
mod written_before;
