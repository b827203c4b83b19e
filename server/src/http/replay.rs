//! Core: which counts were seen under each nonce, so that a header is taken once, in whichever order requests arrive.
//! Touches nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// So many counts behind the highest one are still told apart; older ones are refused. A relay of 500 machines passes on
/// as many requests at once when the power comes back.
const BEHIND: u64 = 1024;

/// The nonces of one relay that are remembered. One comes with each answer, which is once in a minute, or as often as
/// something changes.
const NONCES_MAX: usize = 64;

/// The counts that were seen under one nonce.
#[derive(Debug, Clone)]
struct Window {
    highest: u64,
    seen: [u64; (BEHIND / 64) as usize],
}

impl Window {
    fn new() -> Self {
        Self { highest: 0, seen: [0; (BEHIND / 64) as usize] }
    }

    fn bit(&mut self, count: u64) -> (&mut u64, u64) {
        let at = usize::try_from(count / 64 % (BEHIND / 64)).unwrap_or(0);
        (&mut self.seen[at], 1 << (count % 64))
    }

    fn take(&mut self, count: u64) -> bool {
        if count == 0 || count.saturating_add(BEHIND) <= self.highest {
            return false;
        }
        let ahead = count.saturating_sub(self.highest).min(BEHIND);
        for fresh in (count - ahead + 1)..=count {
            let (word, bit) = self.bit(fresh);
            *word &= !bit;
        }
        self.highest = self.highest.max(count);
        let (word, bit) = self.bit(count);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// What one relay has sent.
#[derive(Debug, Default)]
pub(super) struct Seen {
    by_nonce: BTreeMap<Timestamp, Window>,
    /// Nonces of this time and earlier ones are refused: they are not remembered any more.
    forgotten: Option<Timestamp>,
}

impl Seen {
    /// Whether `count` is seen for the first time under the nonce that was given at `given`.
    pub(super) fn take(&mut self, given: Timestamp, count: u64) -> bool {
        if self.forgotten.is_some_and(|forgotten| given <= forgotten) {
            return false;
        }
        let is_new = self.by_nonce.entry(given).or_insert_with(Window::new).take(count);
        if self.by_nonce.len() > NONCES_MAX {
            self.forgotten = self.by_nonce.pop_first().map(|(given, _)| given);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_count_is_taken_once() {
        let mut seen = Seen::default();
        let takes = [
            (1, true),
            (1, false),
            (3, true),
            (2, true),
            (2, false),
            (1500, true),
            (477, true),
            (477, false),
            (476, false),
            (0, false),
            (u64::MAX, true),
            (u64::MAX, false),
            (1501, false),
        ];
        for (count, taken) in takes {
            assert_eq!(seen.take(at(1), count), taken, "{count}");
        }
        assert!(seen.take(at(2), 1), "another nonce has counts of its own");
    }

    #[test]
    fn nonces_are_forgotten_and_then_refused() {
        let mut seen = Seen::default();
        assert!((1..=100).all(|second| seen.take(at(second), 1)));
        assert!(seen.by_nonce.len() <= NONCES_MAX);
        assert!(!seen.take(at(36), 2), "it may have been seen");
        assert!(seen.take(at(37), 2));
    }

    proptest! {
        #[test]
        fn nothing_is_taken_twice(counts in prop::collection::vec(1_u64..3000, 1..400)) {
            let (mut seen, mut taken) = (Seen::default(), std::collections::BTreeSet::new());
            let mut highest = 0;
            for count in counts {
                let is_recent = count + BEHIND > highest;
                highest = highest.max(count);
                prop_assert_eq!(seen.take(at(1), count), is_recent && taken.insert(count));
            }
        }
    }
}
