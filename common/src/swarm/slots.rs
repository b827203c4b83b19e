//! How many chunks a node sends at once. Owns the slots that its senders share; touches nothing.
//!
//! A semaphore whose permits can be taken away while others wait for them: tokio's own hands each that becomes free to
//! the next in line, so that with a queue there never is one to be forgotten.

use std::future::pending;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many chunks an agent sends at once that may send `most`. One that is spared sends one at a time: what it alone
/// holds is to be with one other soon, not with four late.
#[must_use]
pub fn at_once(most: usize, spared: bool) -> usize {
    if spared { 1 } else { most.max(1) }
}

/// The slots.
#[derive(Debug)]
pub struct Slots {
    free: Semaphore,
    count: Mutex<Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    /// Permits that there are, free or in use.
    there: usize,
    /// How many of them are to go as soon as they are free.
    surplus: usize,
}

/// A slot in use, until it is dropped.
#[derive(Debug)]
pub struct Slot<'a> {
    _permit: SemaphorePermit<'a>,
}

impl Slots {
    /// `most` slots, at least one.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let there = most.max(1);
        Self { free: Semaphore::new(there), count: Mutex::new(Count { there, surplus: 0 }) }
    }

    // Held for an addition, never over an await.
    fn with<T>(&self, act: impl FnOnce(&mut Count) -> T) -> T {
        act(&mut self.count.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a slot, in turn.
    pub async fn take(&self) -> Slot<'_> {
        loop {
            // Nobody closes it.
            let Ok(permit) = self.free.acquire().await else {
                pending::<()>().await;
                continue;
            };
            let goes = self.with(|count| {
                let goes = count.surplus > 0;
                if goes {
                    count.surplus -= 1;
                    count.there -= 1;
                }
                goes
            });
            if !goes {
                return Slot { _permit: permit };
            }
            permit.forget();
        }
    }

    /// From now on `most` may be in use at once, at least one. Those that are in use stay until they are free.
    pub fn allow(&self, most: usize) {
        let most = most.max(1);
        self.with(|count| {
            let wanted = count.there - count.surplus;
            if most > wanted {
                let kept = count.surplus.min(most - wanted);
                count.surplus -= kept;
                self.free.add_permits(most - wanted - kept);
                count.there += most - wanted - kept;
            } else {
                let gone = self.free.forget_permits(wanted - most);
                count.there -= gone;
                count.surplus += wanted - most - gone;
            }
        });
    }

    /// Whether any is in use.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.with(|count| self.free.available_permits() < count.there)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn slots_close_as_they_become_free_even_while_others_wait_and_open_again() {
        let slots = Slots::new(4);
        let take = || slots.take().now_or_never();
        let mut used: Vec<Slot<'_>> = (0..4).filter_map(|_| take()).collect();
        assert_eq!(used.len(), 4);
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(slots.take())).collect();
        waiting.iter_mut().for_each(|one| assert!(one.as_mut().now_or_never().is_none()));
        slots.allow(1);
        for left in (1..=3).rev() {
            used.pop();
            assert_eq!(used.len(), left);
            waiting
                .iter_mut()
                .for_each(|one| assert!(one.as_mut().now_or_never().is_none(), "{left} are in use"));
        }
        used.pop();
        waiting.retain_mut(|one| one.as_mut().now_or_never().map(|slot| used.push(slot)).is_none());
        assert_eq!(used.len(), 1);
        slots.allow(3);
        waiting.retain_mut(|one| one.as_mut().now_or_never().map(|slot| used.push(slot)).is_none());
        assert_eq!(used.len(), 2);
        drop(waiting);
        assert!(take().is_some() && slots.busy());
        drop(used);
        assert!(!slots.busy());
    }

    #[test]
    fn what_was_to_close_stays_when_it_may_after_all() {
        let slots = Slots::new(4);
        let used: Vec<_> = (0..4).filter_map(|_| slots.take().now_or_never()).collect();
        slots.allow(1);
        slots.allow(4);
        drop(used);
        let used: Vec<_> = (0..9).filter_map(|_| slots.take().now_or_never()).collect();
        assert_eq!(used.len(), 4);
    }
}
