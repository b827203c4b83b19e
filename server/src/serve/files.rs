//! The limit on open files: the soft limit is raised to the hard one at the start, and what HTTP connections may use of
//! it is bounded, so that the image store, the records and the admin's socket always find some left. Touches the
//! process's limits.

use common::limits::{CONNECTIONS_MAX, FILES_RESERVED, FILES_WANTED};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::fleet::decide::WaiterBounds;
use crate::http::ConnectionBounds;

/// How many files this process may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Files(u64);

impl Files {
    /// Raises the soft limit to the hard one, and gives the limit that then holds; 1024 where it cannot be read.
    pub(crate) fn raise() -> Self {
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Self(1024) };
        if soft >= hard {
            return Self(soft);
        }
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => Self(hard),
            Err(error) => {
                tracing::warn!(%error, soft, hard, "the limit on open files could not be raised");
                Self(soft)
            }
        }
    }

    /// The bounds on the machines' HTTP connections: a quarter of what is left beside the reserve. TFTP gets as much,
    /// and the swarm two files for each machine.
    pub(crate) fn door(self, per_address: usize) -> ConnectionBounds {
        let left = usize::try_from(self.0).unwrap_or(usize::MAX).saturating_sub(FILES_RESERVED);
        let all = (left / 4).clamp(16, CONNECTIONS_MAX);
        ConnectionBounds { all, per_address: per_address.min(all) }
    }

    /// The bounds on the open requests of waiting machines, each of which has one of these connections: three quarters
    /// of them, and half of each address'.
    pub(super) fn waiters(self, per_address: usize) -> WaiterBounds {
        let door = self.door(per_address);
        let per_address = (door.per_address / 2).max(1);
        WaiterBounds { all: door.all / 4 * 3, per_address, ..WaiterBounds::default() }
    }

    /// A warning for the admin when the limit is too low for a large rack.
    pub(crate) fn warning(self) -> Option<String> {
        (self.0 < FILES_WANTED).then(|| {
            format!(
                "only {} files may be open at once, which is enough for about {} machines: raise the hard limit to {} \
                 (LimitNOFILE= of the service, or ulimit -Hn)",
                self.0,
                self.0.saturating_sub(FILES_RESERVED as u64) / 4,
                FILES_WANTED
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_leaves_files_for_the_rooms_behind_it() {
        for (limit, all) in
            [(0, 16), (256, 16), (1024, 192), (4096, 960), (16_384, 4032), (1 << 20, 4096), (u64::MAX, 4096)]
        {
            let bounds = Files(limit).door(64);
            assert_eq!((bounds.all, bounds.per_address), (all, 64.min(all)), "{limit}");
            let waiters = Files(limit).waiters(64);
            assert!(waiters.all < bounds.all && waiters.per_address < bounds.per_address, "{limit}");
            assert!(limit < 512 || bounds.all as u64 + FILES_RESERVED as u64 <= limit, "{limit}");
        }
    }

    #[test]
    fn a_low_limit_is_said() {
        assert!(
            Files(1024).warning().is_some_and(|text| text.contains("1024") && text.contains("LimitNOFILE"))
        );
        assert_eq!(Files(16_384).warning(), None);
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let raised = Files::raise();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (raised.0, raised.0));
    }
}
