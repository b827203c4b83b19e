//! An event sink in front of the outbox that also shows each event: on the machine's console, or to whoever started the
//! ordinary process. Owns the rate at which progress is shown; where it is shown is the caller's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::step::{Sources, Step, StepEvent, What};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::run::EventSink;
use crate::outbox::EventOutbox;

/// The outbox of an attempt, and the function that shows its events.
pub(super) struct Shown<F> {
    outbox: EventOutbox,
    show: F,
    started: Instant,
    number: AtomicU64,
    /// The shortest time between two shown progress events: a serial line carries about 100 lines a second.
    pace: Duration,
    progress: Mutex<Option<Instant>>,
}

impl<F> std::fmt::Debug for Shown<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}

impl<F: Fn(&StepEvent) + Send + Sync> Shown<F> {
    /// Shows with `show` what goes to `outbox`; progress at most once in each `pace`.
    pub(super) fn new(outbox: EventOutbox, pace: Duration, show: F) -> Self {
        let (number, progress) = (AtomicU64::new(0), Mutex::new(None));
        Self { outbox, show, started: Instant::now(), number, pace, progress }
    }

    fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self.progress.lock();
        if last.is_some_and(|last| now - last < self.pace) {
            return false;
        }
        *last = Some(now);
        true
    }
}

impl<F: Fn(&StepEvent) + Send + Sync> EventSink for Shown<F> {
    fn event(&self, step: Step, what: What, sources: Option<Sources>) {
        if !matches!(what, What::Progress { .. }) || self.is_due() {
            let event = StepEvent {
                number: self.number.fetch_add(1, Ordering::Relaxed) + 1,
                at_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                step: step.clone(),
                what: what.clone(),
                sources,
            };
            (self.show)(&event);
        }
        self.outbox.event(step, what, sources);
    }

    fn pace(&self) -> Duration {
        self.outbox.pace()
    }

    fn set_pace(&self, pace: Duration) {
        self.outbox.set_pace(pace);
    }

    fn cancelled(&self) -> Option<String> {
        self.outbox.cancelled()
    }
}
