//! The slots of a node: how many chunks it sends at once, and which puller is next. Owns the slots that its senders
//! share; touches nothing.
//!
//! With first come first served, a sender's line is half idle when the pullers at the head of its queue are busy with
//! what others send them, while one with nothing arriving waits behind them. So pullers tell how many chunks are
//! arriving, and among the first that wait, the one with the fewest is next: in tests/sim, eight machines with equal
//! lines and a fast server go from 1.08 of the lower bound to 1.04, sixteen from 1.17 to 1.12.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The puller with the fewest arriving chunks is chosen among this many that have waited longest. Their counts are some
/// milliseconds old: with all to choose from, all senders would choose the same puller (counts 50 ms old, sixteen
/// machines, in tests/sim: 1.30 of the lower bound with all, 1.14 with three). With three nobody waits for long either.
const LOOKED_AT: usize = 3;

/// How many chunks an agent sends at once that may send `most`. A spared one sends one at a time: a chunk that it alone
/// holds should be whole at one peer soon, and not at four peers late.
#[must_use]
pub fn at_once(most: usize, spared: bool) -> usize {
    if spared { 1 } else { most }
}

/// Which puller is next, given the count of arriving chunks of each, in the order of waiting.
pub fn next(coming: impl IntoIterator<Item = u32>) -> Option<usize> {
    coming.into_iter().take(LOOKED_AT).enumerate().min_by_key(|(_, coming)| *coming).map(|(at, _)| at)
}

/// The slots of one node, shared by all clones.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Mutex<Book>>);

#[derive(Debug)]
struct Book {
    most: usize,
    used: usize,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    coming: Arc<AtomicU32>,
    turn: oneshot::Sender<Slot>,
}

impl Book {
    fn next(&mut self) -> Option<oneshot::Sender<Slot>> {
        if self.used >= self.most {
            return None;
        }
        self.waiting.retain(|waiter| !waiter.turn.is_closed());
        let at = next(self.waiting.iter().map(|waiter| waiter.coming.load(Ordering::Relaxed)))?;
        self.used += 1;
        self.waiting.remove(at).map(|waiter| waiter.turn)
    }
}

/// A slot in use; dropping it frees the slot.
#[derive(Debug)]
pub struct Slot(Slots);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.with(|book| book.used -= 1);
        self.0.fill();
    }
}

impl Slots {
    /// `most` slots, at least one.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Book { most: most.max(1), used: 0, waiting: VecDeque::new() })))
    }

    // The lock is held for a look-up or a change of the queue, never over an await or while a slot is dropped.
    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.0.lock())
    }

    /// Waits for a slot for a puller; `coming` is its count of arriving chunks, read whenever a slot becomes free.
    pub async fn take(&self, coming: &Arc<AtomicU32>) -> Slot {
        let (turn, slot) = oneshot::channel();
        self.with(|book| book.waiting.push_back(Waiter { coming: Arc::clone(coming), turn }));
        self.fill();
        match slot.await {
            Ok(slot) => slot,
            // Not reached: this clone keeps the queue alive, and a waiter leaves the queue only with a slot.
            Err(_) => pending().await,
        }
    }

    fn fill(&self) {
        while let Some(turn) = self.with(Book::next) {
            // If the waiter has just gone, its slot is dropped and so free again.
            drop(turn.send(Slot(self.clone())));
        }
    }

    /// Changes how many may be in use at once, at least one. More than that may stay in use until they are dropped.
    pub fn allow(&self, most: usize) {
        self.with(|book| book.most = most.max(1));
        self.fill();
    }

    /// Whether any slot is in use.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.with(|book| book.used > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures::FutureExt as _;

    use super::*;

    type Waiting<'a> = Pin<Box<dyn Future<Output = Slot> + 'a>>;

    fn coming(chunks: u32) -> Arc<AtomicU32> {
        Arc::new(AtomicU32::new(chunks))
    }

    /// Lets `pullers` wait for a slot, in that order.
    fn wait<'a>(slots: &'a Slots, pullers: &'a [Arc<AtomicU32>]) -> Vec<(usize, Waiting<'a>)> {
        let mut list: Vec<(usize, Waiting<'a>)> = Vec::new();
        for (number, puller) in pullers.iter().enumerate() {
            let mut one: Waiting<'a> = Box::pin(slots.take(puller));
            assert!(one.as_mut().now_or_never().is_none());
            list.push((number, one));
        }
        list
    }

    /// The pullers that have got a slot by now, and these slots.
    fn served(waiting: &mut Vec<(usize, Waiting<'_>)>) -> (Vec<usize>, Vec<Slot>) {
        let mut got = (vec![], vec![]);
        waiting.retain_mut(|(number, one)| {
            let slot = one.as_mut().now_or_never();
            slot.map(|slot| (got.0.push(*number), got.1.push(slot))).is_none()
        });
        got
    }

    fn take(slots: &Slots, most: usize) -> Vec<Slot> {
        (0..most).filter_map(|_| slots.take(&coming(0)).now_or_never()).collect()
    }

    #[test]
    fn slots_close_as_they_become_free_even_while_others_wait_and_open_again() {
        let slots = Slots::new(4);
        let mut used = take(&slots, 9);
        assert_eq!(used.len(), 4);
        let pullers = [coming(0), coming(0)];
        let mut waiting = wait(&slots, &pullers);
        slots.allow(1);
        for left in (1..=3).rev() {
            used.pop();
            assert_eq!(served(&mut waiting).0, [0; 0], "{left} are in use");
        }
        used.pop();
        let (first, one) = served(&mut waiting);
        assert_eq!(first, [0]);
        slots.allow(3);
        let (second, other) = served(&mut waiting);
        assert_eq!(second, [1]);
        assert!(take(&slots, 9).len() == 1 && slots.busy());
        drop((one, other));
        assert!(!slots.busy());
    }

    #[test]
    fn what_was_to_close_stays_when_it_may_after_all() {
        let slots = Slots::new(4);
        let used = take(&slots, 4);
        slots.allow(1);
        slots.allow(4);
        drop(used);
        assert_eq!(take(&slots, 9).len(), 4);
    }

    #[test]
    fn of_those_that_wait_the_longest_the_one_to_whom_least_is_coming_is_next() {
        let slots = Slots::new(1);
        let mut used = take(&slots, 1);
        let pullers = [coming(4), coming(2), coming(2), coming(0)];
        let mut waiting = wait(&slots, &pullers);
        let mut order = vec![];
        // The last is not considered before another has left; the first one's count changes while it waits.
        for _ in 0..4 {
            used.clear();
            let (who, slot) = served(&mut waiting);
            order.extend(who);
            used.extend(slot);
            pullers[0].store(1, Ordering::Relaxed);
        }
        assert_eq!(order, [1, 3, 0, 2]);
    }

    #[test]
    fn who_goes_while_waiting_or_when_its_turn_has_come_keeps_no_slot() {
        let slots = Slots::new(1);
        let used = take(&slots, 1);
        let pullers = [coming(0), coming(0), coming(0)];
        let mut waiting = wait(&slots, &pullers);
        drop(waiting.remove(0));
        drop(used);
        // The second was sent its slot and has not been polled since.
        drop(waiting.remove(0));
        assert_eq!(served(&mut waiting).0, [2]);
        assert!(!slots.busy() && take(&slots, 9).len() == 1);
    }
}
