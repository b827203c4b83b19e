//! Core: bounds on what the other end of a stream may say: how often, and of which chunks. Owns these counts; touches
//! `chunk`, `frame`'s error. Time is an argument.
//!
//! A list of chunks costs its reader more than its sender, so it is bounded by the image and not by the length of a
//! message: announcing a chunk twice, or one that the image does not have, breaks the protocol. The rate of messages is
//! bounded by reading no further for a while, which delays only the sender.

use std::time::Duration;

use crate::chunk::{ChunkIndex, ChunkSet};
use crate::swarm::frame::BadStream;

/// A rate limit: `burst` messages at once, and from then on one in each `every`.
#[derive(Debug, Clone)]
pub struct Budget {
    burst: u32,
    every: Duration,
    /// When the whole burst is available again.
    even_at: Duration,
}

impl Budget {
    /// A rate limit with its whole burst available; a burst of 0 counts as 1.
    #[must_use]
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { burst: burst.max(1), every, even_at: Duration::ZERO }
    }

    /// Counts one message, and returns how long to wait before the next is read.
    pub fn spend(&mut self, now: Duration) -> Duration {
        self.even_at = self.even_at.max(now).saturating_add(self.every);
        self.even_at.saturating_sub(now).saturating_sub(self.every.saturating_mul(self.burst))
    }

    /// Counts one message if the limit allows it; false, and not counted, if it does not.
    pub fn allows(&mut self, now: Duration) -> bool {
        let before = self.even_at;
        let fits = self.spend(now).is_zero();
        if !fits {
            self.even_at = before;
        }
        fits
    }

    /// Whether the whole burst is available.
    #[must_use]
    pub fn is_full(&self, now: Duration) -> bool {
        now >= self.even_at
    }
}

/// The chunks that the other end of one stream has announced.
#[derive(Debug, Clone)]
pub struct Told(ChunkSet);

impl Told {
    /// Starts with the chunks of its first message.
    #[must_use]
    pub fn first(held: ChunkSet) -> Self {
        Self(held)
    }

    /// Adds chunks that it announces now.
    ///
    /// # Errors
    /// When the list is empty, repeats a chunk, or has one that the image does not have.
    pub fn more(&mut self, chunks: &[ChunkIndex]) -> Result<(), BadStream> {
        if chunks.is_empty() {
            return Err(BadStream::Manners("news of no chunk"));
        }
        for chunk in chunks {
            if chunk.0 >= self.0.len() {
                return Err(BadStream::Manners("says it holds a chunk that the image does not have"));
            }
            if !self.0.insert(*chunk) {
                return Err(BadStream::Manners("says twice that it holds a chunk"));
            }
        }
        Ok(())
    }
}

/// The longest message about an image of `chunks` chunks, in bytes: a list of all of them, at five bytes each.
#[must_use]
pub fn message_bytes_max(chunks: u32) -> usize {
    1024 + 5 * chunks as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_budget_lets_a_burst_through_and_then_holds_up() {
        let (every, now) = (Duration::from_millis(100), Duration::from_secs(7));
        let mut budget = Budget::new(3, every);
        assert!((0..3).all(|_| budget.spend(now).is_zero()));
        assert_eq!(budget.spend(now), every);
        assert_eq!(budget.spend(now), every * 2);
        assert!(!budget.allows(now) && !budget.is_full(now));
        assert!(budget.allows(now + every * 3));
        assert!(budget.is_full(now + every * 7));
    }

    #[test]
    fn a_chunk_is_said_to_be_held_once_and_is_of_the_image() {
        let mut held = ChunkSet::new(8);
        held.insert(ChunkIndex(1));
        let mut told = Told::first(held);
        assert!(told.more(&[ChunkIndex(0), ChunkIndex(7)]).is_ok());
        for wrong in [vec![], vec![8], vec![u32::MAX], vec![1], vec![7], vec![2, 2]] {
            let wrong: Vec<ChunkIndex> = wrong.into_iter().map(ChunkIndex).collect();
            assert!(told.more(&wrong).is_err_and(|error| error.breaks_the_protocol()), "{wrong:?}");
        }
    }

    proptest! {
        /// Whatever a peer announces, what is passed on of it has no more chunks than the image.
        #[test]
        fn all_that_is_taken_of_one_stream_is_no_longer_than_the_image(
            len in 0u32..200,
            lists in proptest::collection::vec(proptest::collection::vec(0u32..300, 0..300), 0..40),
        ) {
            let mut told = Told::first(ChunkSet::new(len));
            let mut taken = 0;
            for list in lists {
                let list: Vec<ChunkIndex> = list.into_iter().map(ChunkIndex).collect();
                if told.more(&list).is_err() {
                    break;
                }
                taken += list.len();
            }
            prop_assert!(taken <= len as usize);
        }

        /// However fast messages come, in any second no more are read than the burst and what a second adds to it.
        #[test]
        fn the_rate_of_words_is_bounded(burst in 1u32..50, millis in 1u64..500, words in 1u32..500) {
            let every = Duration::from_millis(millis);
            let mut budget = Budget::new(burst, every);
            let mut now = Duration::ZERO;
            for _ in 0..words {
                now += budget.spend(now);
            }
            prop_assert!(now >= every.saturating_mul(words.saturating_sub(burst)));
        }
    }
}
