//! How many chunks this agent sends at once. Owns the slots that the senders share.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// How many chunks an agent sends at once that may send `most`. One that is spared sends one at a time: what it alone
/// holds is to be with one other soon, not with four late.
#[must_use]
pub fn at_once(most: usize, spared: bool) -> usize {
    if spared { 1 } else { most.max(1) }
}

/// The slots.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) free: Arc<Semaphore>,
    most: usize,
    all: usize,
}

impl Slots {
    pub(super) fn new(most: usize) -> Self {
        let all = at_once(most, false);
        Self { free: Arc::new(Semaphore::new(all)), most, all }
    }

    /// Whether a chunk is being sent.
    pub(super) fn busy(&self) -> bool {
        self.free.available_permits() < self.all
    }

    /// Opens or closes slots; one that is in use is closed when it is free and this is called again.
    pub(super) fn fit(&mut self, spared: bool) {
        let wanted = at_once(self.most, spared);
        if wanted > self.all {
            self.free.add_permits(wanted - self.all);
            self.all = wanted;
        } else {
            self.all -= self.free.forget_permits(self.all - wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_close_when_they_are_free_and_open_again() {
        let mut slots = Slots::new(4);
        let used = Arc::clone(&slots.free).try_acquire_many_owned(2).unwrap();
        slots.fit(true);
        assert!(slots.busy() && slots.free.available_permits() == 0);
        drop(used);
        slots.fit(true);
        assert!(!slots.busy() && slots.free.available_permits() == 1);
        slots.fit(false);
        assert!(!slots.busy() && slots.free.available_permits() == 4);
    }
}
