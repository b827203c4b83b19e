//! What Prometheus is told, in the OpenMetrics text format: the counters, which are raised where things happen through a
//! small handle that is passed in, and the text with them and what is read at each scrape. Owns the counters; touches
//! nothing else.
//!
//! Every label is bounded, because Prometheus keeps a series for each value for weeks: states, kinds, steps and results
//! are words of this program; sites are at most as many as `traffic` counts; images are those that a hash failed of,
//! 64 at the most. No machine is a label.

// What there is of the fleet, counted at one instant.
mod census;

// Values that are read at a scrape, not counted.
mod reading;

// The words for what became of a packet.
mod results;

// Core: steps by outcome, and how long they took.
mod steps;

// Memory, processor and files of this process.
mod process;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use self::census::Census;
pub use self::process::process;
pub use self::reading::Reading;
pub use self::results::{DhcpResult, TftpResult};
use self::steps::StepClock;
use crate::api::shapes::LogEvent;

/// The media type of the answer.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The most images that are named for their hash failures; those after them are counted under [`OTHER_IMAGES`].
const IMAGES_MAX: usize = 64;

/// The name under which hash failures of further images are counted.
const OTHER_IMAGES: &str = "other images";

/// A label with a word of this program.
type Word = [(&'static str, &'static str); 1];

/// A family of histograms, which needs to know how one is made.
type Histograms = Family<[(&'static str, String); 1], Histogram, fn() -> Histogram>;

/// Raises the counters. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    registry: Registry,
    dhcp: Family<Word, Counter>,
    tftp: Family<Word, Counter>,
    steps: Family<[(&'static str, String); 2], Counter>,
    step_seconds: Histograms,
    hash_failures: Family<[(&'static str, String); 1], Counter>,
    commit_seconds: Histogram,
    commit_failures: Counter,
    /// Whether the last commit failed.
    unwritten: AtomicBool,
    clock: Mutex<StepClock>,
    /// The images of `hash_failures`.
    spoiled: Mutex<Vec<String>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Counters that begin at 0.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("swarmboot");
        let (dhcp, tftp) = (Family::default(), Family::default());
        let (steps, hash_failures) = (Family::default(), Family::default());
        let step_seconds = Histograms::new_with_constructor(step_buckets);
        let commit_seconds = Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0]);
        let commit_failures = Counter::default();
        let about = "DHCP packets that came, by what became of them";
        registry.register("dhcp_requests", about, Family::clone(&dhcp));
        let about = "TFTP requests, by how they or their transfers ended";
        registry.register("tftp_transfers", about, Family::clone(&tftp));
        registry.register("steps", "Events of steps, by step and outcome", Family::clone(&steps));
        let about = "How long steps took that were done";
        registry.register("step_duration_seconds", about, Histograms::clone(&step_seconds));
        let about = "Chunks that failed their hash at a machine, by image";
        registry.register("hash_failures", about, Family::clone(&hash_failures));
        let about = "How long commits of the records took, with their sync";
        registry.register("commit_duration_seconds", about, commit_seconds.clone());
        let about = "Commits of the records that failed";
        registry.register("commit_failures", about, commit_failures.clone());
        // A counter that is 0 is there from the start, so that `increase` sees the first of its events.
        DhcpResult::ALL.iter().for_each(|result| drop(dhcp.get_or_create(&[("result", result.name())])));
        TftpResult::ALL.iter().for_each(|result| drop(tftp.get_or_create(&[("result", result.name())])));
        Self(Arc::new(Inside {
            registry,
            dhcp,
            tftp,
            steps,
            step_seconds,
            hash_failures,
            commit_seconds,
            commit_failures,
            unwritten: AtomicBool::new(false),
            clock: Mutex::default(),
            spoiled: Mutex::default(),
        }))
    }

    /// Counts a DHCP packet.
    pub fn dhcp(&self, result: DhcpResult) {
        self.0.dhcp.get_or_create(&[("result", result.name())]).inc();
    }

    /// Counts a TFTP request, or the end of its transfer.
    pub fn tftp(&self, result: TftpResult) {
        self.0.tftp.get_or_create(&[("result", result.name())]).inc();
    }

    /// Counts a chunk of `image`, a name, that failed its hash.
    pub fn hash_failure(&self, image: &str) {
        let mut known = self.0.spoiled.lock();
        let named = known.iter().any(|name| name == image);
        if !named && known.len() < IMAGES_MAX {
            known.push(image.to_owned());
        }
        let image =
            if named || known.last().is_some_and(|name| name == image) { image } else { OTHER_IMAGES };
        self.0.hash_failures.get_or_create(&[("image", image.to_owned())]).inc();
    }

    /// Counts an event that was committed.
    pub fn event(&self, event: &LogEvent) {
        let Some(noted) = self.0.clock.lock().note(event) else { return };
        let labels = [("step", noted.step.to_owned()), ("outcome", noted.outcome.to_owned())];
        self.0.steps.get_or_create(&labels).inc();
        if let Some(seconds) = noted.seconds {
            self.0.step_seconds.get_or_create(&[("step", noted.step.to_owned())]).observe(seconds);
        }
    }

    /// Counts a commit of the records.
    pub fn commit(&self, took: Duration, written: bool) {
        self.0.unwritten.store(!written, Ordering::Relaxed);
        if written {
            self.0.commit_seconds.observe(took.as_secs_f64());
        } else {
            self.0.commit_failures.inc();
        }
    }

    /// Whether the records could be written the last time.
    #[must_use]
    pub fn writable(&self) -> bool {
        !self.0.unwritten.load(Ordering::Relaxed)
    }

    /// The counters and `readings` as text, with its end.
    #[must_use]
    pub fn text(&self, readings: Vec<Reading>) -> String {
        let mut text = String::with_capacity(32 << 10);
        let mut read = Registry::default();
        read.register_collector(Box::new(reading::Readings(readings)));
        let written = encode_registry(&mut text, &self.0.registry)
            .and_then(|()| encode_registry(&mut text, &read))
            .and_then(|()| encode_eof(&mut text));
        // Writing to a string does not fail.
        if written.is_err() {
            text.clear();
            let _ = writeln!(text, "# EOF");
        }
        text
    }
}

/// From the second that a report takes to the hours of a thin line.
fn step_buckets() -> Histogram {
    Histogram::new([0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0])
}

#[cfg(test)]
mod tests;
