//! Step 2, `loader`: which network boot program a machine gets, how it is served, and the scripts that start the
//! loader. Touches the kits and UDP port 69.

// Core: chooses the boot program by firmware; the one firmware table.
pub mod choose;

// Core: additional kernel arguments for the loader.
pub mod arguments;

// Core: what iPXE says of itself and of the NIC.
pub mod ipxe;

// Core: the lines of scripts that fetch kernel and loader from neighbours.
pub mod from_peers;
// Core: which machines get a small loader.
pub mod small;

// Core: the text of the boot scripts.
pub mod script;

// The kits' boot programs, kernels and loaders, as they are served at the moment.
mod kits;

// Boot programs over TFTP, from memory.
pub mod tftp;

pub use kits::{BootKits, BootSettings, Wanted};

/// The script that iPXE fetches from where it came from when DHCP named none.
pub const AUTOEXEC: &str = "autoexec.ipxe";
