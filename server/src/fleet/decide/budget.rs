//! Core, part of the fleet: rate limits (token buckets) on what machines add to the records: those that nobody let in,
//! each and all together, and the events of others. What exceeds them is left out and counted, never queued. Touches
//! `common`.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use common::id::{JobId, MachineId};
use common::limits::{
    BUDGETS_MAX, JOB_EVENTS, MACHINE_EVENTS, NEW_BOOTS_PER_ADDRESS, NEW_SIGHTINGS, Rate, STRANGER_EVENTS,
    STRANGERS_EVENTS,
};
use jiff::Timestamp;

/// A token bucket: it fills at a rate, up to what may be taken at once. Counted in thousandths of a token.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    at: Timestamp,
}

impl Bucket {
    fn full(rate: Rate, now: Timestamp) -> Self {
        Self { level: u64::from(rate.at_once) * 1000, at: now }
    }

    fn fill(&mut self, rate: Rate, now: Timestamp) {
        // A clock that is set back fills nothing, and one that is set forward fills the bucket at most.
        let elapsed = u64::try_from(now.duration_since(self.at).as_millis()).unwrap_or(0);
        let earned = elapsed.saturating_mul(1000) / (u64::from(rate.one_in_ms).max(1));
        self.level = self.level.saturating_add(earned).min(u64::from(rate.at_once) * 1000);
        self.at = now;
    }

    fn take(&mut self, rate: Rate, now: Timestamp) -> bool {
        self.fill(rate, now);
        let enough = self.level >= 1000;
        if enough {
            self.level -= 1000;
        }
        enough
    }
}

/// A bucket for each key; their number is bounded, because addresses and keys are easily forged.
#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    each: HashMap<K, Bucket>,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, each: HashMap::new() }
    }

    fn take(&mut self, key: K, now: Timestamp) -> bool {
        if self.each.len() >= BUDGETS_MAX && !self.each.contains_key(&key) {
            self.forget_full(now);
        }
        let rate = self.rate;
        self.each.entry(key).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }

    /// Drops full buckets, since a new one is full as well. When none is full, drops all: the limit on all together
    /// still holds.
    fn forget_full(&mut self, now: Timestamp) {
        let rate = self.rate;
        self.each.retain(|_, bucket| {
            bucket.fill(rate, now);
            bucket.level < u64::from(rate.at_once) * 1000
        });
        if self.each.len() >= BUDGETS_MAX {
            self.each.clear();
        }
    }
}

/// Whose budget an event of the log counts against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Speaker {
    /// The agent of a job.
    Job(JobId),
    /// A machine that an admin let in.
    Machine(MachineId),
    /// A machine that nobody let in.
    Stranger(MachineId),
    /// A sender that is not recognised as a machine, by its address or whatever else it shows.
    Somebody(String),
}

/// All rate limits of the fleet.
#[derive(Debug)]
pub(super) struct Budgets {
    boots: Buckets<IpAddr>,
    sightings: Buckets<()>,
    jobs: Buckets<JobId>,
    machines: Buckets<MachineId>,
    strangers: Buckets<Speaker>,
    all_strangers: Buckets<()>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            boots: Buckets::new(NEW_BOOTS_PER_ADDRESS),
            sightings: Buckets::new(NEW_SIGHTINGS),
            jobs: Buckets::new(JOB_EVENTS),
            machines: Buckets::new(MACHINE_EVENTS),
            strangers: Buckets::new(STRANGER_EVENTS),
            all_strangers: Buckets::new(STRANGERS_EVENTS),
        }
    }
}

impl Budgets {
    /// Whether one more report with a new key, of a machine that nobody let in, is taken from `address`.
    pub(super) fn new_boot(&mut self, address: IpAddr, now: Timestamp) -> bool {
        self.boots.take(address, now)
    }

    /// Whether one more machine that only asked to network-boot may be recorded.
    pub(super) fn new_sighting(&mut self, now: Timestamp) -> bool {
        self.sightings.take((), now)
    }

    /// Whether one more event of `speaker` may be logged.
    pub(super) fn event(&mut self, speaker: Speaker, now: Timestamp) -> bool {
        match speaker {
            Speaker::Job(job) => self.jobs.take(job, now),
            Speaker::Machine(machine) => self.machines.take(machine, now),
            // Its own limit first: a sender that exceeds it does not use up the limit of all together.
            stranger => self.strangers.take(stranger, now) && self.all_strangers.take((), now),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const RATE: Rate = Rate { at_once: 3, one_in_ms: 1000 };

    fn at(ms: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(ms)
    }

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_its_rate() {
        let mut bucket = Bucket::full(RATE, at(0));
        let taken = |bucket: &mut Bucket, ms| (0..10).filter(|_| bucket.take(RATE, at(ms))).count();
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 999), 0);
        assert_eq!(taken(&mut bucket, 1000), 1);
        assert_eq!(taken(&mut bucket, 3_600_000), 3, "no more than there is room for");
        assert_eq!(taken(&mut bucket, 0), 0, "the clock was set back");
        assert_eq!(taken(&mut bucket, 1000), 1);
    }

    #[test]
    fn one_does_not_take_from_another_and_the_table_is_bounded() {
        let mut buckets = Buckets::new(RATE);
        assert_eq!((0..10).filter(|_| buckets.take(1_u32, at(0))).count(), 3);
        assert!(buckets.take(2, at(0)));
        for key in 0..3 * u32::try_from(BUDGETS_MAX).unwrap() {
            buckets.take(key, at(0));
            assert!(buckets.each.len() <= BUDGETS_MAX);
        }
    }

    #[test]
    fn strangers_share_one_budget_and_jobs_have_their_own() {
        let mut budgets = Budgets::default();
        let mut said = 0_u64;
        for machine in 0..1_000_000 {
            said += u64::from(budgets.event(Speaker::Stranger(MachineId(machine)), at(0)));
        }
        assert_eq!(said, u64::from(STRANGERS_EVENTS.at_once));
        assert!(budgets.event(Speaker::Job(JobId(1)), at(0)));
        assert!(budgets.event(Speaker::Machine(MachineId(1)), at(0)));
    }
}
