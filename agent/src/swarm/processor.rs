//! The processor time of this process. Asks the system; touches nothing else.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The processor time, user and system, that this process has used so far; zero if the kernel does not say.
pub(super) fn processor_time() -> Duration {
    let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let time = |value: TimeVal| {
        let micros = value.num_microseconds();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    time(used.user_time()) + time(used.system_time())
}
