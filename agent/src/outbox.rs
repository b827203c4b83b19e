//! The outbox of step events, which delivers them to the server's log, for the loader and for the agent.
//!
//! What is promised:
//! - [`EventOutbox::event`] never waits for the network.
//! - Started, done, failed and note events are delivered in order, each until the server says that it is in
//!   the log; failed deliveries are retried for ever, with a back-off of at most [`BACK_OFF_MAX`],
//!   and of a few seconds while nobody accepts the connection.
//! - Of progress only the newest value counts: while it waits, newer progress of the same step replaces it,
//!   and it is the first to be dropped.
//! - Memory is bounded: beyond [`KEPT_MAX`] waiting events (a job has fewer than a hundred; a machine that is
//!   cut off from its server and fails again and again could make that many in days) new ones are counted
//!   instead of kept, and the count is delivered as a note.
//! - Events are numbered when they are first sent, so the server sees consecutive numbers; events not delivered
//!   when the loader hands over are delivered by the agent under the same numbers ([`EventOutbox::stop`]).
//!
//! Owns one thread, which ends with [`EventOutbox::stop`] or when the last handle is dropped. Touches `fetch`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::causes::with_causes;
use common::id::JobId;
use common::limits::EVENTS_PER_BATCH_MAX;
use common::plan::Plan;
use common::step::{EventBatch, Sources, Step, StepEvent, What};
use common::trust::KeyPair;
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::fetch::Server;
use crate::fetch::again::Again;

#[cfg(test)]
mod tests;

/// The most events that wait to be sent.
pub const KEPT_MAX: usize = 4096;

/// The longest back-off between two tries of a delivery: a batch may cross a thin line again with each.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// The back-off after the first failure.
const BACK_OFF: Duration = Duration::from_millis(500);

/// How long after a batch the next one waits for more events: one POST for a burst, and still at once for a person.
const GATHER: Duration = Duration::from_millis(200);

/// The shortest time between two progress events of a step as long as the server wants no other: a person reads no
/// faster, and forty machines share one log.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The interval of empty batches while there are no events: their answers tell whether the job was cancelled.
const ASK_EVERY: Duration = Duration::from_secs(15);

/// One attempt of one job, as each batch of events names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The job, which stays the same from one attempt to the next.
    pub job: JobId,
    /// How often the job was started before this, plus one.
    pub number: u32,
}

impl Attempt {
    /// The attempt that `plan` is for.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self { job: plan.job, number: plan.attempt }
    }
}

/// Events that one program could not deliver and the next on the same boot is to deliver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// The attempt of these events; none where they are the loader's, which go with whatever attempt follows.
    #[serde(default)]
    pub of: Option<Attempt>,
    /// The highest event number that was ever sent.
    pub last_number: u64,
    /// Milliseconds since the start of the first program of this boot.
    pub at_ms: u64,
    /// Sent, but perhaps not received: sent again under the same numbers.
    pub sent: Vec<StepEvent>,
    /// Not sent yet; their number is 0.
    pub waiting: Vec<StepEvent>,
}

#[derive(Debug)]
struct State {
    last_number: u64,
    /// Numbered, and perhaps received by the server: sent again, unchanged, until acknowledged.
    sent: Vec<StepEvent>,
    waiting: VecDeque<StepEvent>,
    left_out: u64,
    /// Whether delivery waits for [`EventOutbox::release`].
    held: bool,
    /// Whether [`EventOutbox::flush`] waits: batches then go at once, and the back-off is short.
    urgent: bool,
    stopping: bool,
    cancelled: Option<String>,
    last_error: Option<String>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified of new events, of a flush, of each delivery and of the end.
    changed: Condvar,
    /// The shortest time between two progress events of a step.
    pace: Mutex<Duration>,
    started: Instant,
    started_ms: u64,
}

impl Shared {
    /// Locks the state, which is consistent at every point where a holder could panic, and so usable after a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn now_ms(&self) -> u64 {
        self.started_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A handle of the outbox; clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct EventOutbox {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    attempt: Option<Attempt>,
    /// Dropped with the last handle, which ends the thread.
    _last: Arc<EndWithLast>,
}

#[derive(Debug)]
struct EndWithLast(Arc<Shared>);

impl Drop for EndWithLast {
    fn drop(&mut self) {
        self.0.lock().stopping = true;
        self.0.changed.notify_all();
    }
}

impl EventOutbox {
    /// Starts delivering to `server`, signed with `pair`, for `attempt` if there is one. Goes on with `backlog`, but
    /// drops its events if they are of another attempt: the server began this one because it had given that one up, and
    /// a late event of its end would end this one.
    #[must_use]
    pub fn start(server: Server, pair: KeyPair, attempt: Option<Attempt>, backlog: Backlog) -> Self {
        Self::build(server, pair, attempt, backlog, false)
    }

    /// As [`EventOutbox::start`], but sends nothing before [`EventOutbox::release`]: the server learns our key only
    /// from the report, and refuses events of keys that it does not know.
    #[must_use]
    pub fn start_held(server: Server, pair: KeyPair, backlog: Backlog) -> Self {
        Self::build(server, pair, None, backlog, true)
    }

    fn build(
        server: Server,
        pair: KeyPair,
        attempt: Option<Attempt>,
        mut backlog: Backlog,
        held: bool,
    ) -> Self {
        if backlog.of.is_some() && backlog.of != attempt {
            backlog.sent.clear();
            backlog.waiting.clear();
        }
        let state = State {
            last_number: backlog.last_number,
            sent: backlog.sent,
            waiting: backlog.waiting.into(),
            left_out: 0,
            held,
            urgent: false,
            stopping: false,
            cancelled: None,
            last_error: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            pace: Mutex::new(PROGRESS_EVERY),
            started: Instant::now(),
            started_ms: backlog.at_ms,
        });
        let carrier = Carrier { shared: Arc::clone(&shared), server, pair, attempt };
        let thread = std::thread::Builder::new().name("outbox".to_owned()).spawn(move || carrier.run()).ok();
        Self {
            thread: Arc::new(Mutex::new(thread)),
            attempt,
            _last: Arc::new(EndWithLast(Arc::clone(&shared))),
            shared,
        }
    }

    /// Takes an event. Its text is shortened and cleaned, as [`What::tidied`] says.
    pub fn event(&self, step: Step, what: What, sources: Option<Sources>) {
        let event = StepEvent { number: 0, at_ms: self.shared.now_ms(), step, what: what.tidied(), sources };
        let mut state = self.shared.lock();
        take(&mut state, event);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Begins delivering, after [`EventOutbox::start_held`]: the server knows our key now.
    pub fn release(&self) {
        self.shared.lock().held = false;
        self.shared.changed.notify_all();
    }

    /// Waits until every event is in the server's log, for at most `patience`. Returns whether it is.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.shared.lock();
        state.urgent = true;
        self.shared.changed.notify_all();
        while !(state.sent.is_empty() && state.waiting.is_empty() && state.left_out == 0) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.stopping {
                state.urgent = false;
                return false;
            }
            self.shared.changed.wait_for(&mut state, left);
        }
        state.urgent = false;
        true
    }

    /// The server's reason for cancelling the job; none while it has not.
    #[must_use]
    pub fn cancelled(&self) -> Option<String> {
        self.shared.lock().cancelled.clone()
    }

    /// The shortest time between two progress events of a step.
    #[must_use]
    pub fn pace(&self) -> Duration {
        *self.shared.pace.lock()
    }

    /// Sets that time, as the server wants it.
    pub fn set_pace(&self, pace: Duration) {
        *self.shared.pace.lock() = pace;
    }

    /// The error of the last try to deliver; none after a success.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.shared.lock().last_error.clone()
    }

    /// Ends the thread, which may take as long as one try, and returns the events that are not delivered.
    #[must_use]
    pub fn stop(&self) -> Backlog {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic of the thread has been shown by the panic hook, and the state is consistent.
            let _ = thread.join();
        }
        let mut state = self.shared.lock();
        own_up(&mut state, self.shared.now_ms());
        Backlog {
            of: self.attempt,
            last_number: state.last_number,
            at_ms: self.shared.now_ms(),
            sent: state.sent.clone(),
            waiting: state.waiting.iter().cloned().collect(),
        }
    }
}

/// Queues `event`, within the bounds that the header promises.
fn take(state: &mut State, event: StepEvent) {
    if matches!(event.what, What::Progress { .. }) {
        let same = |old: &StepEvent| old.step == event.step && matches!(old.what, What::Progress { .. });
        if let Some(place) = state.waiting.iter().rposition(same)
            // Not across an end or a new start of the step.
            && state.waiting.iter().skip(place + 1).all(|later| later.step != event.step)
        {
            state.waiting[place] = event;
            return;
        }
    }
    if state.waiting.len() >= KEPT_MAX {
        let progress = state.waiting.iter().position(|old| matches!(old.what, What::Progress { .. }));
        match progress {
            Some(place) => drop(state.waiting.remove(place)),
            None => {
                state.left_out += 1;
                return;
            }
        }
    }
    state.waiting.push_back(event);
}

/// The thread that delivers, with what it owns.
struct Carrier {
    shared: Arc<Shared>,
    server: Server,
    pair: KeyPair,
    attempt: Option<Attempt>,
}

impl Carrier {
    fn run(self) {
        let mut again = Again::new(BACK_OFF, BACK_OFF_MAX, &self.pair.public());
        let mut pause = Duration::ZERO;
        while let Some(events) = self.next_batch(pause) {
            let batch = EventBatch {
                key: self.pair.public(),
                job: self.attempt.map(|attempt| attempt.job),
                attempt: self.attempt.map(|attempt| attempt.number),
                sent_at_ms: self.shared.now_ms(),
                events,
            };
            let answer = self.server.events(&self.pair.sign(&batch));
            let mut state = self.shared.lock();
            match answer {
                Ok(taken) => {
                    again.answered();
                    pause = Duration::ZERO;
                    state.last_error = None;
                    state.sent.retain(|event| event.number > taken.through);
                    if taken.cancelled.is_some() {
                        state.cancelled = taken.cancelled;
                    }
                }
                Err(error) => {
                    pause = again.failed(error.is_unsent());
                    state.last_error = Some(with_causes(&error));
                }
            }
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// Waits until there is something to send and its time has come; none when the thread is to end. `pause` is the
    /// back-off after a failed try, and zero after any other.
    fn next_batch(&self, pause: Duration) -> Option<Vec<StepEvent>> {
        let begun = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if state.stopping {
                return None;
            }
            let idle = state.sent.is_empty() && state.waiting.is_empty() && state.left_out == 0;
            let due = match (idle, pause.is_zero(), state.urgent) {
                (true, _, _) => pause.max(ASK_EVERY),
                (false, true, true) => Duration::ZERO,
                (false, true, false) => GATHER,
                (false, false, true) => pause.min(Duration::from_secs(1)),
                (false, false, false) => pause,
            };
            let worth_it = !state.held && (!idle || self.attempt.is_some());
            let left = due.saturating_sub(begun.elapsed());
            if worth_it && left.is_zero() {
                break;
            }
            let wait = if worth_it { left } else { ASK_EVERY };
            self.shared.changed.wait_for(&mut state, wait);
        }
        number(&mut state, self.shared.now_ms());
        Some(state.sent.clone())
    }
}

/// Numbers waiting events, until the batch is full.
fn number(state: &mut State, now_ms: u64) {
    if state.waiting.len() < KEPT_MAX {
        own_up(state, now_ms);
    }
    // Well below the bound of a body: a text of 2,000 quotes grows fourfold in JSON signed as a JSON string.
    while state.sent.len() < EVENTS_PER_BATCH_MAX / 8 {
        let Some(mut event) = state.waiting.pop_front() else { break };
        state.last_number += 1;
        event.number = state.last_number;
        state.sent.push(event);
    }
}

/// Adds a note of how many events were dropped, if any were.
fn own_up(state: &mut State, now_ms: u64) {
    if state.left_out > 0 {
        let text = format!("{} events were left out here: the server could not be reached", state.left_out);
        let step = state.waiting.back().map_or(Step::Loader, |event| event.step.clone());
        let what = What::Note { text };
        state.waiting.push_back(StepEvent { number: 0, at_ms: now_ms, step, what, sources: None });
        state.left_out = 0;
    }
}
