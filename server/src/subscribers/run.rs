//! The tasks that deliver events, one for each subscriber, and how far each is. Each owns its follower and its outlet; none
//! waits for another. Touches the fleet's handle, the clock and the outlets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::causes::with_causes;
use common::text::harmless;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::follower::{Failure, Follower, News, Next, Page};
use super::handle::{Handle, Ready};
use super::outlet::{Outcome, Outlet};
use super::wants::Wants;
use crate::api::shapes::{LogEvent, SubscriberState};
use crate::fleet::{FleetError, FleetHandle};

/// How many events are read at once. As many are in memory for each subscriber that fails.
const PAGE: u32 = 256;
/// How long a delivery may go on after the server was told to stop.
const LAST: Duration = Duration::from_secs(2);
/// The longest cause that is shown, in bytes.
const CAUSE_MAX: usize = 300;

/// Why the tasks ended by themselves.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// One panicked.
    #[error("a subscriber's task failed")]
    Task(#[source] JoinError),
    /// The fleet has ended.
    #[error("the fleet does not answer")]
    Fleet(#[source] FleetError),
}

/// Everybody who is told of events, ready to begin.
pub struct Opened {
    all: Vec<Ready>,
    handle: Handle,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Opened {
    pub(super) fn new(all: Vec<Ready>) -> Self {
        let handle = Handle::of(&all);
        Self { all, handle }
    }

    /// How far each is.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Delivers until `cancel`; then keeps how far each is.
    ///
    /// # Errors
    /// When a task panicked, or the fleet has ended before.
    pub async fn run(self, fleet: FleetHandle, cancel: CancellationToken) -> Result<(), Stopped> {
        let Self { all, handle } = self;
        let mut events = fleet.follow();
        let last = fleet.last_event().await.map_err(Stopped::Fleet)?;
        handle.newest.send_replace(last);
        let mut tasks = JoinSet::new();
        for (place, ready) in all.into_iter().enumerate() {
            let cursor = fleet.cursor(Arc::clone(&ready.name)).await.map_err(Stopped::Fleet)?;
            let task = Task {
                name: ready.name,
                wants: ready.wants,
                // Whoever is new is told of what happens from now on.
                follower: Follower::new(cursor.unwrap_or(last)),
                fleet: fleet.clone(),
                handle: handle.clone(),
                place,
                began: Instant::now(),
            };
            if cursor.is_none() {
                task.keep(last).await;
            }
            tasks.spawn(task.run(ready.outlet, handle.newest.subscribe(), cancel.clone()));
        }
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                event = events.recv() => match event {
                    Ok(event) => handle.newest.send_modify(|newest| *newest = event.id.max(*newest)),
                    // The next one says as much.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                },
                Some(ended) = tasks.join_next() => ended.map_err(Stopped::Task)?,
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(Stopped::Task)?;
        }
        Ok(())
    }
}

/// One subscriber's task.
struct Task {
    name: Arc<str>,
    wants: Wants,
    follower: Follower,
    fleet: FleetHandle,
    handle: Handle,
    place: usize,
    began: Instant,
}

impl Task {
    async fn run(
        mut self,
        mut outlet: Box<dyn Outlet>,
        mut newest: watch::Receiver<u64>,
        cancel: CancellationToken,
    ) {
        self.show();
        while !cancel.is_cancelled() {
            let last = *newest.borrow_and_update();
            let news = match self.follower.next(self.began.elapsed(), last) {
                Next::Save(cursor) => {
                    self.save(cursor).await;
                    vec![]
                }
                Next::Read(after) => self.read(after).await,
                Next::Deliver => self.deliver(&mut *outlet, &cancel).await,
                Next::Wait(until) => {
                    let until = async {
                        match until {
                            Some(until) => tokio::time::sleep_until(self.began + until).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = until => {}
                        // The other end is there as long as this task.
                        _ = newest.changed() => {}
                    }
                    continue;
                }
            };
            self.show();
            for news in news {
                self.say(news).await;
            }
        }
        if let Some(cursor) = self.follower.unsaved() {
            self.save(cursor).await;
        }
    }

    async fn read(&mut self, after: u64) -> Vec<News> {
        let page = self.page(after).await;
        let now = self.began.elapsed();
        match page {
            Ok(page) => self.follower.read(page, now, Timestamp::now()).into_iter().collect(),
            Err(error) => {
                let cause = format!("the log cannot be read: {}", with_causes(&error));
                self.follower.failed(Failure::Again { cause, after: None }, now).into_iter().collect()
            }
        }
    }

    async fn page(&self, after: u64) -> Result<Page, FleetError> {
        let since = self.fleet.log_since(after, PAGE).await?;
        let is_last = since.events.len() < PAGE as usize;
        let through = match since.events.last() {
            Some(last) if !is_last => last.id,
            _ => since.last,
        };
        let labels = self.wants.labels();
        let fitting = if labels.is_empty() {
            BTreeSet::new()
        } else {
            let machines = since.events.iter().filter_map(|event| event.machine).collect();
            self.fleet.fitting(Arc::clone(labels), machines).await?
        };
        // What is said of itself it is not told: it would cause the next event.
        let is_own = |event: &LogEvent| event.machine.is_none() && event.name == *self.name;
        let wanted = |event: &LogEvent| !is_own(event) && self.wants.want(event, &fitting);
        let wanted = since.events.into_iter().filter(wanted).collect();
        Ok(Page { wanted, through, forgotten: since.forgotten, is_last })
    }

    async fn deliver(&mut self, outlet: &mut dyn Outlet, cancel: &CancellationToken) -> Vec<News> {
        let mut delivery = outlet.deliver(self.follower.pending());
        let outcome = tokio::select! {
            outcome = &mut delivery => Some(outcome),
            () = cancel.cancelled() => tokio::time::timeout(LAST, &mut delivery).await.ok(),
        };
        drop(delivery);
        let Some(Outcome { delivered, failure }) = outcome else { return vec![] };
        let now = self.began.elapsed();
        let works = self.follower.delivered(delivered, now);
        works.into_iter().chain(failure.and_then(|failure| self.follower.failed(failure, now))).collect()
    }

    async fn save(&mut self, cursor: u64) {
        match self.keep(cursor).await {
            true => self.follower.saved(cursor),
            false => self.follower.unsaved_at(self.began.elapsed()),
        }
    }

    async fn keep(&self, cursor: u64) -> bool {
        let kept = self.fleet.keep_cursor(Arc::clone(&self.name), cursor).await;
        if let Err(error) = &kept {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, subscriber = &*self.name, "how far it is was not kept");
        }
        kept.is_ok()
    }

    /// Publishes how far it is.
    fn show(&self) {
        let (now, clock) = (self.began.elapsed(), Timestamp::now());
        let at = |time: Duration| {
            let ahead = SignedDuration::try_from(time).ok()? - SignedDuration::try_from(now).ok()?;
            clock.checked_add(ahead).ok()
        };
        let Some(shown) = self.handle.shown.get(self.place) else { return };
        let mut shown = shown.lock();
        let (trouble, ended) = (self.follower.trouble(), self.follower.ended());
        shown.cursor = self.follower.cursor();
        shown.state = match (ended, trouble) {
            (Some(_), _) => SubscriberState::Stopped,
            (None, Some(_)) => SubscriberState::Failing,
            (None, None) => SubscriberState::Working,
        };
        shown.since = trouble.and_then(|trouble| at(trouble.since));
        shown.next = trouble.and_then(|trouble| at(trouble.again));
        shown.cause = ended.or(trouble.map(|trouble| trouble.cause.as_str())).map(plain);
    }

    async fn say(&self, news: News) {
        let (subscriber, name) = (&*self.name, Arc::clone(&self.name));
        let (text, is_failure) = match news {
            News::Stumbled(cause) => {
                let cause = plain(&cause);
                tracing::warn!(subscriber, cause, "an event was not delivered; it is tried again");
                return;
            }
            News::Fails { cause, lasted } => {
                let text = format!(
                    "has got no event for {} s: {}; they are sent in order once it works",
                    lasted.as_secs(),
                    plain(&cause)
                );
                (text, true)
            }
            News::Works(lasted) => (format!("gets events again, after {} s", lasted.as_secs()), false),
            News::Ended(cause) => {
                (format!("is sent nothing more until the server starts again: {}", plain(&cause)), true)
            }
            News::Missed(gap) => (gap.words(), true),
        };
        if let Err(error) = self.fleet.remark_subscriber(name, text.clone(), is_failure).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                subscriber,
                text,
                "this is not in the log"
            );
        }
    }
}

/// A cause as it is shown.
fn plain(cause: &str) -> String {
    common::limits::cut(&harmless(cause), CAUSE_MAX).to_owned()
}
