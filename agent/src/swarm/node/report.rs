//! What the server hears of this agent's line and processors, once a second. Touches the node's state and the kernel's
//! count of processor time.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};

use common::swarm::slots::at_once;
use common::wire::swarm::{Bottleneck, ToServer};

use super::{Node, TICK};

/// How often the server hears how fast this agent's line is, which is also the sign of life.
const REPORT: Duration = Duration::from_secs(1);

/// What is reported to the server next.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) sent: u64,
    pub(super) sending: Duration,
    pub(super) from_peers: u64,
    pub(super) from_server: u64,
}

impl Node {
    pub(super) fn count_uploads(&mut self, now: Duration) {
        // What the kernel takes at once can wait there for long: the time counts until the next chunk may go.
        if self.slots.busy() {
            self.standing.report.sending += TICK;
        }
        let uploaded = self.store.uploaded();
        self.slots.allow(at_once(self.uploads, self.standing.spared));
        let more = uploaded - self.standing.uploaded;
        if more > 0 {
            self.standing.uploaded = uploaded;
            self.standing.uploaded_at = now;
            self.standing.report.sent += more;
            self.sources.lock().uploaded = uploaded;
        }
    }

    pub(super) fn report(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.standing.reported);
        if passed < REPORT {
            return;
        }
        self.standing.reported = now;
        let report = std::mem::take(&mut self.standing.report);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bottleneck = self.held_up(passed);
        self.say(ToServer::Speed {
            sent: report.sent,
            sending_millis: millis(report.sending),
            from_peers: report.from_peers,
            from_server: report.from_server,
            millis: millis(passed),
            bottleneck,
        });
    }

    /// What fetching waited for since the last report, `passed` ago.
    pub(super) fn held_up(&mut self, passed: Duration) -> Option<Bottleneck> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cores = u32::try_from(cores).unwrap_or(1);
        let mut sources = self.sources.lock();
        self.waits.report(passed, processor_time(), cores, &mut sources)
    }
}

/// What this process has used of all processors so far.
fn processor_time() -> Duration {
    let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let time = |value: TimeVal| {
        let micros = value.num_microseconds();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    time(used.user_time()) + time(used.system_time())
}
