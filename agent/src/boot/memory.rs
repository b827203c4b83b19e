//! Whether this machine has the memory that loader and agent need. Owns these bounds. Touches `/proc/meminfo`.

use std::path::Path;

use crate::inspect::system::memory_bytes;

/// Memory, as the kernel sees it, below which it cannot unpack the whole loader, or the agent does not start: with 192
/// MiB the loader works and the bundle does not fit, with 256 MiB (204 seen) all works.
const MEMORY_LEAST: u64 = 200 << 20;

/// Memory from which the loader leaves the bundle's archive to the agent: with less, the agent would have no room for it.
const MEMORY_PLENTY: u64 = 400 << 20;

/// The console's text where memory is short.
pub(super) const SHORT_OF_MEMORY: &str =
    "this machine has too little memory: 512 MiB are needed, and parts of the loader may be missing already";

/// Whether the kernel sees less memory than the loader and the agent need.
pub(super) fn memory_is_short() -> bool {
    is_short(memory_bytes(Path::new("/")))
}

fn is_short(bytes: u64) -> bool {
    // An unreadable /proc gives 0.
    bytes != 0 && bytes < MEMORY_LEAST
}

/// Whether there is room for what a machine does not need itself.
pub(super) fn memory_is_plenty() -> bool {
    memory_bytes(Path::new("/")) >= MEMORY_PLENTY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_named_before_drivers_are_blamed() {
        // The kernel's view of machines with 144, 168, 192, 256 and 512 MiB, and of an unreadable /proc.
        let seen = [(97, true), (120, true), (143, true), (204, false), (455, false), (0, false)];
        for (mib, short) in seen {
            assert_eq!(is_short(mib << 20), short, "{mib} MiB");
        }
    }
}
