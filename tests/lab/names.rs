//! Owns the names of everything that the lab makes in the system. Touches `/proc`, to see whose process is alive.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// The prefix of all our names in the system; the process id and a number follow.
pub const PREFIX: &str = "sbl-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A new name, unique in this system: `sbl-<process id>-<number>`.
#[must_use]
pub fn name() -> String {
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether `name` is one of ours and its process has ended.
pub(crate) fn is_orphan(name: &str) -> bool {
    let Some(owner) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { return false };
    owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_dead_names_are_orphans() {
        assert!(!is_orphan(&name()), "this process lives");
        assert!(is_orphan("sbl-4194305-0"), "no process id is that large");
        for foreign in ["", "sbl-", "sbl-x-1", "mine-1-1", "sblx-1"] {
            assert!(!is_orphan(foreign), "{foreign}");
        }
    }
}
