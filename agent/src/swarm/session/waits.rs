//! Core: what fetching waits for: network, disk or processor. Owns the times since the last speed report; touches
//! `common`. Time is an argument.

use std::time::Duration;

use common::step::Sources;
use common::wire::swarm::Bottleneck;

/// Load in per cent, of all processors together, from which on a wait is put down to them and not to the network.
const BUSY: u128 = 85;

/// Time spent fetching since the last report, and its part with a full backlog.
#[derive(Debug, Default)]
pub(super) struct Waits {
    fetching: Duration,
    full: Duration,
    /// Processor time of the process at the last report.
    cpu: Duration,
}

impl Waits {
    /// Adds `passed` to the time spent fetching; `full` when the backlog of chunks for the disk was full.
    pub(super) fn fetching(&mut self, passed: Duration, full: bool) {
        self.fetching += passed;
        if full {
            self.full += passed;
        }
    }

    /// Ends the period of a report, `passed` long, by whose end the process had used `cpu` in all, on `cores`
    /// processors. Adds the times to `sources` and returns what was waited for most; none when nothing was fetched.
    pub(super) fn report(
        &mut self,
        passed: Duration,
        cpu: Duration,
        cores: u32,
        sources: &mut Sources,
    ) -> Option<Bottleneck> {
        let used = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        let (fetching, full) = (std::mem::take(&mut self.fetching), std::mem::take(&mut self.full));
        if fetching.is_zero() {
            return None;
        }
        let busy = used.as_millis() * 100 >= passed.as_millis() * u128::from(cores) * BUSY;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let rest = fetching.saturating_sub(full);
        sources.disk_ms += millis(full);
        let part = if busy { &mut sources.cpu_ms } else { &mut sources.net_ms };
        *part += millis(rest);
        Some(match (full > rest, busy) {
            (true, _) => Bottleneck::Disk,
            (false, true) => Bottleneck::Cpu,
            (false, false) => Bottleneck::Net,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_takes_longest_is_named_and_all_is_added_up() {
        // Milliseconds with a full backlog, milliseconds of processor time on two cores, and the result.
        let cases = [
            (0, 500, Some(Bottleneck::Net)),
            (1900, 500, Some(Bottleneck::Disk)),
            (100, 3900, Some(Bottleneck::Cpu)),
            (1900, 3900, Some(Bottleneck::Disk)),
        ];
        let (mut waits, mut sources, mut cpu) = (Waits::default(), Sources::default(), 7000);
        waits.report(ms(2000), ms(cpu), 2, &mut sources);
        for (full, used, expected) in cases {
            waits.fetching(ms(full), true);
            waits.fetching(ms(2000 - full), false);
            cpu += used;
            assert_eq!(waits.report(ms(2000), ms(cpu), 2, &mut sources), expected, "{full} {used}");
        }
        assert_eq!(waits.report(ms(2000), ms(cpu), 2, &mut sources), None, "nothing was fetched");
        assert_eq!((sources.net_ms, sources.disk_ms, sources.cpu_ms), (2100, 3900, 2000));
    }
}
