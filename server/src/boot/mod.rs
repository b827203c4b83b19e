//! Step 2, `loader`: which network boot program a machine gets, how it is carried there, and the scripts that
//! lead it to the loader.

// Core: firmware to boot program; the one firmware table.
pub mod choose;

// Core: more words for the loader's kernel command line.
pub mod arguments;

// Core: the text of the boot scripts.
pub mod script;

// What machines are booted with at this moment.
mod kits;

// Boot programs over TFTP, from memory.
pub mod tftp;

pub use kits::{BootKits, BootSettings, Wanted};

/// The script that iPXE looks for beside itself when DHCP named none.
pub const AUTOEXEC: &str = "autoexec.ipxe";
