//! A line with a limit that several kinds of bytes share: who sends asks for a turn first. Owns the queue of those who
//! wait; touches the clock and nothing else. What is sent over which lines is decided by whoever sends.

// Core: whose turn it is, and when.
mod pace;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

pub use pace::Class;
use pace::{Pace, Ticket};

/// The fewest bytes that are sent in one turn of a limited line: so few that a hundred connections that share a few
/// Mbit/s all see progress before they take the other end for dead.
const PIECE_MIN: usize = 8 << 10;

/// The most: beyond it a turn costs nothing beside the system call.
const PIECE_MAX: usize = 64 << 10;

/// The pieces of a line in a second: one takes about 5 ms, which is what something urgent may have to wait for.
const PIECES_PER_SECOND: u64 = 200;

/// One line. Cheap to clone; all clones are the same line, and its limit may change at any time.
#[derive(Debug, Clone)]
pub struct Line(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// How much is sent in one turn; `usize::MAX` while there is no limit, and then nobody asks for turns.
    piece: AtomicUsize,
    began: Instant,
}

#[derive(Debug)]
struct Waiting {
    pace: Pace,
    wakers: HashMap<Ticket, Waker>,
}

impl Waiting {
    /// Wakes the one whose turn is next: it waits for its time by itself.
    fn wake_next(&self) {
        if let Some(waker) = self.pace.next().and_then(|(ticket, _)| self.wakers.get(&ticket)) {
            waker.wake_by_ref();
        }
    }
}

impl Line {
    /// A line that carries so many bytes per second; any number with `None`.
    #[must_use]
    pub fn new(rate: Option<u64>) -> Self {
        let waiting = Waiting { pace: Pace::new(rate), wakers: HashMap::new() };
        let piece = AtomicUsize::new(piece(rate));
        Self(Arc::new(Shared { waiting: Mutex::new(waiting), piece, began: Instant::now() }))
    }

    /// Sets or lifts the limit, in bytes per second; those who wait follow it at once.
    pub fn set(&self, rate: Option<u64>) {
        let mut waiting = self.0.waiting.lock();
        self.0.piece.store(piece(rate), Ordering::Relaxed);
        waiting.pace.set(rate, self.now());
        waiting.wake_next();
    }

    /// The limit in force, in bytes per second.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.0.waiting.lock().pace.rate()
    }

    /// The most bytes to ask for and to send in one turn, so that others are not kept waiting; `usize::MAX` without a
    /// limit.
    #[must_use]
    pub fn piece(&self) -> usize {
        self.0.piece.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` may be sent. Cancel safe: what is dropped before it is ready has taken nothing. It must be
    /// polled or dropped, because others wait behind it.
    pub async fn pass(&self, class: Class, bytes: usize) {
        if self.piece() == usize::MAX {
            return;
        }
        let ticket = self.0.waiting.lock().pace.ask(class, bytes);
        Turn { line: self, ticket, timer: Box::pin(sleep_until(Instant::now())), over: false }.await;
    }

    /// Counts `bytes` that were sent without a turn: everybody else waits a little longer.
    pub fn charge(&self, bytes: usize) {
        if self.piece() != usize::MAX {
            self.0.waiting.lock().pace.charge(bytes, self.now());
        }
    }

    /// Whether somebody else has a clone of it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }
}

fn piece(rate: Option<u64>) -> usize {
    rate.map_or(usize::MAX, |rate| {
        usize::try_from(rate / PIECES_PER_SECOND).unwrap_or(PIECE_MAX).clamp(PIECE_MIN, PIECE_MAX)
    })
}

/// One who waits. Only the next one has a timer that runs; who gets a turn wakes the next.
struct Turn<'a> {
    line: &'a Line,
    ticket: Ticket,
    timer: Pin<Box<Sleep>>,
    over: bool,
}

impl Future for Turn<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = &self.line.0;
        let mut waiting = shared.waiting.lock();
        let Some((ticket, at)) = waiting.pace.next() else { return Poll::Ready(()) };
        let now = shared.began.elapsed();
        if ticket == self.ticket && at <= now {
            waiting.pace.go(now);
            waiting.wakers.remove(&ticket);
            waiting.wake_next();
            drop(waiting);
            self.over = true;
            return Poll::Ready(());
        }
        waiting.wakers.insert(self.ticket, context.waker().clone());
        let wakes_at = shared.began + at;
        drop(waiting);
        if ticket == self.ticket {
            self.timer.as_mut().reset(wakes_at);
            if self.timer.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.over {
            let mut waiting = self.line.0.waiting.lock();
            waiting.pace.forget(self.ticket);
            waiting.wakers.remove(&self.ticket);
            waiting.wake_next();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Sends in pieces over `line` for `seconds` from so many tasks of each class; the bytes of each class.
    async fn carried(line: &Line, tasks: [usize; 3], seconds: u64) -> [u64; 3] {
        let sent: Arc<[AtomicU64; 3]> = Arc::default();
        let mut all = tokio::task::JoinSet::new();
        for (at, class) in [Class::Small, Class::Boot, Class::Chunks].into_iter().enumerate() {
            for _ in 0..tasks[at] {
                let (line, sent) = (line.clone(), Arc::clone(&sent));
                all.spawn(async move {
                    loop {
                        let bytes = if class == Class::Small { 1_400 } else { line.piece().min(PIECE_MAX) };
                        line.pass(class, bytes).await;
                        sent[at].fetch_add(bytes as u64, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                });
            }
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        all.shutdown().await;
        std::array::from_fn(|at| sent[at].load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_carries_its_rate_and_no_more() {
        for rate in [125_000, 2_500_000, 125_000_000] {
            for tasks in [[0, 0, 1], [0, 30, 0], [0, 30, 4], [9, 9, 9]] {
                let all: u64 = carried(&Line::new(Some(rate)), tasks, 20).await.iter().sum();
                let of_rate = all as f64 / (20 * rate) as f64;
                assert!((0.98..1.02).contains(&of_rate), "{rate} {tasks:?}: {of_rate}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_changes_reaches_those_who_wait() {
        let line = Line::new(Some(125_000));
        let waits = tokio::spawn({
            let line = line.clone();
            async move {
                for _ in 0..100 {
                    line.pass(Class::Chunks, 1 << 20).await;
                }
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waits.is_finished());
        line.set(None);
        tokio::time::timeout(Duration::from_secs(1), waits).await.unwrap().unwrap();
        assert_eq!((line.rate(), line.piece()), (None, usize::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_its_turn_takes_nobody_elses() {
        let line = Line::new(Some(125_000));
        line.pass(Class::Boot, 125_000).await;
        let mut gone = Box::pin(line.pass(Class::Boot, 8_000));
        assert!(futures::poll!(&mut gone).is_pending());
        let next = tokio::spawn({
            let line = line.clone();
            async move { line.pass(Class::Boot, 8_000).await }
        });
        tokio::task::yield_now().await;
        drop(gone);
        tokio::time::timeout(Duration::from_secs(2), next).await.unwrap().unwrap();
        assert!(line.0.waiting.lock().wakers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_without_a_turn_is_paid_for() {
        let line = Line::new(Some(125_000));
        line.charge(125_000);
        let begun = Instant::now();
        line.pass(Class::Small, 100).await;
        assert!(begun.elapsed() > Duration::from_millis(900));
    }
}
