//! The stores of records and leases with their calls counted: what is committed passes here, so nothing else needs to be
//! told of metrics. Touches the stores inside.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::dhcp4::{Lease, LeaseState, LeaseStore};
use crate::fleet::state::{Change, State};
use crate::fleet::store::{KnownHardware, Log, Store, Stored};
use crate::metrics::Metrics;

/// Records whose commits are timed and whose events are counted.
pub(super) struct MeasuredStore {
    pub(super) inner: Box<dyn Store>,
    pub(super) metrics: Metrics,
}

impl Store for MeasuredStore {
    fn load(&mut self, known: KnownHardware) -> Stored<'_, State> {
        self.inner.load(known)
    }

    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Stored<'a, ()> {
        // A commit of nothing is none.
        if changes.is_empty() {
            return self.inner.commit(changes);
        }
        Box::pin(async move {
            let began = Instant::now();
            let written = self.inner.commit(changes).await;
            self.metrics.commit(began.elapsed(), written.is_ok());
            if written.is_ok() {
                for change in changes {
                    if let Change::Event(event) = change {
                        self.metrics.event(event);
                    }
                }
            }
            written
        })
    }

    fn forget_before(&mut self, until: Timestamp) -> Stored<'_, usize> {
        self.inner.forget_before(until)
    }

    fn forget_beyond(&mut self, bytes: u64) -> Stored<'_, usize> {
        self.inner.forget_beyond(bytes)
    }

    fn free_bytes(&mut self) -> BoxFuture<'_, Option<u64>> {
        self.inner.free_bytes()
    }

    fn log(&self) -> Arc<dyn Log> {
        self.inner.log()
    }
}

/// The leases that are kept, by address: their end in seconds since 1970, and their state.
#[derive(Debug, Clone, Default)]
pub(super) struct LeaseCounts(Arc<Mutex<BTreeMap<Ipv4Addr, (u64, LeaseState)>>>);

impl LeaseCounts {
    fn note(&self, lease: &Lease) {
        self.0.lock().insert(lease.address, (lease.until, lease.state));
    }

    /// How many leases are held, and how many addresses are left alone, at `now`, in seconds since 1970.
    pub(super) fn at(&self, now: u64) -> (u64, u64) {
        let leases = self.0.lock();
        let count = |state| leases.values().filter(|lease| lease.0 > now && lease.1 == state).count() as u64;
        (count(LeaseState::Held), count(LeaseState::Quarantined))
    }

    /// The same now.
    pub(super) fn now(&self) -> (u64, u64) {
        self.at(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

/// Leases that are counted on their way to be saved.
pub(super) struct MeasuredLeases {
    pub(super) inner: Box<dyn LeaseStore>,
    pub(super) counts: LeaseCounts,
}

impl LeaseStore for MeasuredLeases {
    fn load(&mut self) -> Stored<'_, Vec<Lease>> {
        Box::pin(async move {
            let kept = self.inner.load().await?;
            kept.iter().for_each(|lease| self.counts.note(lease));
            Ok(kept)
        })
    }

    fn save<'a>(&'a mut self, lease: &'a Lease) -> Stored<'a, ()> {
        self.counts.note(lease);
        self.inner.save(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_committed_is_counted_and_what_is_not_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.sqlite");
        let metrics = Metrics::new();
        let inner = Box::new(crate::records::Records::open(&path).unwrap());
        let mut store = MeasuredStore { inner, metrics: metrics.clone() };
        let event = Change::Event(Box::new(crate::api::shapes::LogEvent {
            id: 1,
            at: Timestamp::UNIX_EPOCH,
            machine: None,
            name: "m1".to_owned(),
            deployment: None,
            job: None,
            attempt: None,
            step: common::step::Step::Inspect,
            what: common::step::What::Started,
            sources: None,
            by: None,
            by_machine: true,
        }));
        let started = "swarmboot_steps_total{step=\"inspect\",outcome=\"started\"} 1";
        store.commit(&[]).await.unwrap();
        assert!(metrics.text(vec![]).contains("commit_duration_seconds_count 0"), "a commit of nothing");
        store.commit(std::slice::from_ref(&event)).await.unwrap();
        assert!(metrics.text(vec![]).contains(started));
        // Its number is taken.
        store.commit(&[event]).await.unwrap_err();
        let text = metrics.text(vec![]);
        assert!(text.contains(started) && text.contains("commit_failures_total 1"), "{text}");
        assert!(!metrics.writable());
    }

    #[test]
    fn a_lease_counts_until_its_end() {
        let counts = LeaseCounts::default();
        let lease = |last: u8, until, state| Lease {
            address: Ipv4Addr::new(10, 0, 0, last),
            holder: "m".to_owned(),
            until,
            state,
        };
        counts.note(&lease(1, 100, LeaseState::Held));
        counts.note(&lease(2, 200, LeaseState::Held));
        counts.note(&lease(3, 200, LeaseState::Quarantined));
        counts.note(&lease(4, 200, LeaseState::Offered));
        assert_eq!([50, 150, 250].map(|now| counts.at(now)), [(2, 1), (1, 1), (0, 0)]);
        counts.note(&lease(2, 0, LeaseState::Held));
        assert_eq!(counts.at(50), (1, 1), "a lease that was given back");
    }
}
