//! Core: a clock for leases that never jumps. Touches nothing.
//!
//! Leases outlive the process, so they are kept in seconds since 1970; but a wall clock that is set forward while the
//! server runs, as NTP does after a start with an empty battery, must not end every lease at once. The wall clock is
//! used at the start and when a lease is saved; in between, the kernel's monotonic clock.

/// Both clocks, read at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clocks {
    /// Seconds since 1970 by the wall clock, which may jump.
    pub(super) wall: u64,
    /// Seconds since the server started by the monotonic clock, which never jumps.
    pub(super) running: u64,
}

/// The clock of the address pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: u64,
}

impl Clock {
    /// A clock that starts with the wall clock's time.
    pub(super) fn new(at: Clocks) -> Self {
        Self { start: at.wall.saturating_sub(at.running) }
    }

    /// The pool's time: seconds since 1970, if the wall clock was right at the start.
    pub(super) fn now(self, at: Clocks) -> u64 {
        self.start + at.running
    }

    /// Converts a time of the pool to the wall clock's, to be saved.
    pub(super) fn on_the_wall(self, time: u64, at: Clocks) -> u64 {
        let now = self.now(at);
        if time >= now { at.wall.saturating_add(time - now) } else { at.wall.saturating_sub(now - time) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_ends_no_lease_and_is_written_down_right() {
        let clock = Clock::new(Clocks { wall: 1000, running: 0 });
        let until = clock.now(Clocks { wall: 1000, running: 0 }) + 3600;
        for wall in [1_800_000_000, 1010, 5] {
            let at = Clocks { wall, running: 10 };
            assert_eq!(clock.now(at), 1010, "set to {wall}");
            assert_eq!(clock.on_the_wall(until, at), wall + 3590);
        }
        let late = Clocks { wall: 1_800_000_000, running: 4000 };
        assert!(clock.now(late) > until);
        assert_eq!(clock.on_the_wall(until, late), 1_800_000_000 - 400);
    }
}
