//! Looks at the running server for monitoring: what is read at a scrape, and whether everything that machines need is
//! there. The fleet is asked at most every [`CENSUS_AGE`], however often somebody scrapes. Touches the fleet's queue, the
//! stores, the disk, and what was bound.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::limits::SITES_COUNTED_MAX;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::measured::LeaseCounts;
use super::stores::Stores;
use crate::api::shapes::SubscriberState;
use crate::config::{Addresses, Config};
use crate::dhcp4::Rival;
use crate::fleet::FleetHandle;
use crate::http::{Check, Watch};
use crate::metrics::{Census, Metrics, Reading, process};
use crate::subscribers;
use crate::traffic::{Kind, OTHER_SITES, Traffic};

/// How old the counts of the fleet may be that a scrape gets.
const CENSUS_AGE: Duration = Duration::from_secs(5);

/// How long the fleet may take to answer before it counts as stuck. A commit on a disk that is busy takes a second.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How much waits somewhere, and how much may; `None` when nobody is left to send there.
type Depth = Box<dyn Fn() -> Option<(usize, usize)> + Send + Sync>;

/// How many connections a listener has open.
type Open = Box<dyn Fn() -> usize + Send + Sync>;

/// The queues between tasks, by name. Each adds itself when it is made.
#[derive(Clone, Default)]
pub(super) struct Queues(Arc<Mutex<Vec<(&'static str, Depth)>>>);

impl Queues {
    /// Watches a channel without keeping it open.
    pub(super) fn add<T: Send + 'static>(&self, name: &'static str, sender: &mpsc::Sender<T>) {
        let sender = sender.downgrade();
        let depth = move || {
            let sender = sender.upgrade()?;
            Some((sender.max_capacity() - sender.capacity(), sender.max_capacity()))
        };
        self.0.lock().push((name, Box::new(depth)));
    }
}

/// What is looked at.
pub(super) struct Watching {
    pub(super) metrics: Metrics,
    pub(super) fleet: FleetHandle,
    pub(super) traffic: Traffic,
    pub(super) stores: Stores,
    pub(super) config: Arc<Config>,
    pub(super) leases: LeaseCounts,
    pub(super) subscribers: subscribers::Handle,
    pub(super) rivals: watch::Receiver<Vec<Rival>>,
    pub(super) queues: Queues,
    /// The listeners, by name.
    pub(super) open: Vec<(&'static str, Open)>,
    /// The newest counts, and when they were taken.
    pub(super) census: Mutex<Option<(Instant, Arc<Census>)>>,
}

impl Watching {
    /// The counts of the fleet; `None` when it does not answer in time.
    async fn census(&self) -> Option<Arc<Census>> {
        let fresh = |(taken, census): &(Instant, Arc<Census>)| {
            (taken.elapsed() < CENSUS_AGE).then(|| Arc::clone(census))
        };
        if let Some(census) = self.census.lock().as_ref().and_then(fresh) {
            return Some(census);
        }
        let census = tokio::time::timeout(ANSWER_TIME, self.fleet.census()).await.ok()?.ok()?;
        let census = Arc::new(census);
        *self.census.lock() = Some((Instant::now(), Arc::clone(&census)));
        Some(census)
    }

    fn lines(&self) -> [Reading; 2] {
        let about = "Bytes sent into each site, by kind, without the headers of TCP, IP and Ethernet";
        let mut sent = Reading::counter("swarmboot_sent_bytes", about);
        let mut received = Reading::counter("swarmboot_received_bytes", "Bytes that came from each site");
        for line in self.traffic.shown() {
            for kind in Kind::ALL {
                let bytes = line.sent.of(kind);
                if bytes > 0 {
                    let labels = vec![("kind", kind.name().to_owned()), ("site", line.site.clone())];
                    sent = sent.with(labels, amount(bytes));
                }
            }
            received = received.with(vec![("site", line.site)], amount(line.received));
        }
        [sent, received]
    }

    fn waiting(&self) -> [Reading; 3] {
        let mut length = Reading::gauge("swarmboot_queue_length", "What waits in each queue between tasks");
        let mut most = Reading::gauge("swarmboot_queue_capacity", "What fits into each queue between tasks");
        let mut depths = vec![("fleet", self.fleet.queue())];
        depths.extend(self.queues.0.lock().iter().filter_map(|(name, depth)| Some((*name, depth()?))));
        for (name, (waits, fits)) in depths {
            let labels = vec![("queue", name.to_owned())];
            length = length.with(labels.clone(), size(waits));
            most = most.with(labels, size(fits));
        }
        let mut open = Reading::gauge("swarmboot_connections", "Open HTTP connections of each listener");
        for (name, count) in &self.open {
            open = open.with(vec![("listener", (*name).to_owned())], size(count()));
        }
        [length, most, open]
    }

    fn told(&self) -> [Reading; 2] {
        let about = "Events that each webhook or export has not got yet, or does not want";
        let mut behind = Reading::gauge("swarmboot_subscriber_behind_events", about);
        let mut works =
            Reading::gauge("swarmboot_subscriber_works", "Whether the last try to deliver worked");
        for shown in self.subscribers.shown() {
            let labels = vec![("subscriber", shown.name)];
            behind = behind.with(labels.clone(), amount(shown.behind));
            works = works.with(labels, flag(shown.state == SubscriberState::Working));
        }
        [behind, works]
    }

    fn addresses(&self) -> [Reading; 3] {
        let (held, quarantined) = self.leases.now();
        let state = |name: &str| vec![("state", name.to_owned())];
        let range = match self.config.addresses {
            Addresses::Proxy => 0,
            Addresses::Range(first, last) => u64::from(last.to_bits() - first.to_bits()) + 1,
        };
        [
            Reading::gauge("swarmboot_dhcp_leases", "Leases in force, and addresses that other hosts use")
                .with(state("held"), amount(held))
                .with(state("quarantined"), amount(quarantined)),
            Reading::gauge("swarmboot_dhcp_range_addresses", "Addresses of the DHCP range; 0 as a proxy")
                .is(amount(range)),
            Reading::gauge("swarmboot_dhcp_rivals", "Other DHCP or PXE servers that were seen of late")
                .is(size(self.rivals.borrow().len())),
        ]
    }
}

impl Watch for Watching {
    fn scrape(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let census = self.census().await;
            let mut readings = vec![
                Reading::gauge("swarmboot_build_info", "The version of the program")
                    .with(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0),
                Reading::gauge("swarmboot_fleet_answers", "Whether the fleet answers in time")
                    .is(flag(census.is_some())),
            ];
            readings.extend(census.iter().flat_map(|census| of_fleet(census)));
            readings.extend(self.lines());
            readings.extend(self.waiting());
            readings.extend(self.addresses());
            readings.extend(self.told());
            let (state, reserve) = (self.config.state.clone(), self.config.reserve_bytes);
            // The kernel may wait for a disk.
            let read = tokio::task::spawn_blocking(move || {
                let mut read = of_disk(&state, reserve);
                read.extend(process());
                read
            });
            readings.extend(read.await.unwrap_or_default());
            self.metrics.text(readings)
        })
    }

    fn alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move { self.census().await.is_some() })
    }

    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async move {
            let state = self.config.state.clone();
            let free = tokio::task::spawn_blocking(move || free_bytes(&state)).await.ok().flatten();
            let tight = free.is_none_or(|(free, _)| free < self.config.reserve_bytes);
            let problem = |is: bool, words: &str| is.then(|| words.to_owned());
            let alive = self.census().await.is_some();
            vec![
                Check::of("fleet", problem(!alive, "the fleet does not answer: is its disk stuck?")),
                Check::of(
                    "records",
                    problem(!self.metrics.writable(), "the last change could not be written down"),
                ),
                Check::of("kit", problem(self.stores.kits.kit().is_none(), "there is no boot kit")),
                Check::of("disk", problem(tight, "less is free on the state folder's disk than its reserve")),
                // Everything is bound before anything runs, so whoever reads this has reached one of them.
                Check::of("listeners", None),
            ]
        })
    }
}

fn of_fleet(census: &Census) -> Vec<Reading> {
    let mut machines = Reading::gauge("swarmboot_machines", "Machines, by state and site");
    for ((state, site), count) in census.bounded(SITES_COUNTED_MAX, OTHER_SITES) {
        machines = machines.with(vec![("state", state.to_owned()), ("site", site)], amount(count));
    }
    let mut jobs = Reading::gauge("swarmboot_jobs", "Jobs, by state; those that have ended stay");
    for (state, count) in &census.jobs {
        jobs = jobs.with(vec![("state", (*state).to_owned())], amount(*count));
    }
    let quietest = "Seconds since the running job that is quiet the longest was heard of; 0 when none runs";
    vec![
        machines,
        jobs,
        Reading::gauge("swarmboot_machines_silent", "Machines that fell silent or do not come up")
            .is(amount(census.silent)),
        Reading::gauge("swarmboot_machines_waiting", "Machines that wait for an order with an open request")
            .is(amount(census.waiting)),
        Reading::gauge("swarmboot_job_quiet_seconds", quietest).is(census.quietest_seconds),
        Reading::gauge("swarmboot_relays", "Relays that are enrolled").is(amount(census.relays)),
        Reading::gauge("swarmboot_frozen", "Whether the server is frozen").is(flag(census.frozen)),
        Reading::gauge("swarmboot_last_event", "The number of the newest event")
            .is(amount(census.last_event)),
    ]
}

fn of_disk(state: &Path, reserve: u64) -> Vec<Reading> {
    let path = |suffix: &str| PathBuf::from(format!("{}/records.sqlite{suffix}", state.display()));
    let length = |suffix| std::fs::metadata(path(suffix)).map_or(0, |about| about.len());
    let gauge = |name, about, value| Reading::gauge(name, about).is(amount(value));
    let mut read = vec![
        gauge("swarmboot_records_bytes", "Bytes of the records with their log", length("") + length("-wal")),
        gauge("swarmboot_disk_reserve_bytes", "Free bytes below which only orders are recorded", reserve),
    ];
    if let Some((free, all)) = free_bytes(state) {
        read.push(gauge("swarmboot_disk_free_bytes", "Free bytes on the state folder's disk", free));
        read.push(gauge("swarmboot_disk_size_bytes", "Size of the state folder's disk", all));
    }
    read
}

/// Bytes that are free on the disk of `state`, and its size.
fn free_bytes(state: &Path) -> Option<(u64, u64)> {
    let disk = nix::sys::statvfs::statvfs(state).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
    Some((bytes(disk.blocks_available()), bytes(disk.blocks())))
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

/// Whole numbers as Prometheus has them; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
fn amount(value: u64) -> f64 {
    value as f64
}

fn size(value: usize) -> f64 {
    amount(value as u64)
}

#[cfg(test)]
mod tests;
