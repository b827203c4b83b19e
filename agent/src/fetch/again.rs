//! Core: how long to wait before a request to the server is made again. Owns the schedule and the count of failures;
//! touches `common::trust` for what tells two machines apart.
//!
//! A try to which nobody accepts the connection costs a line some hundred bytes, so the waits between such tries stay
//! short, and a server that was away is found soon. Any other try has carried its body, up to 60 KiB over a line that
//! is thin or before a server that has too much to do: those waits grow to what the caller allows. Half of each wait is
//! the machine's own, so that the machines of a rack do not all come in the moment in which the server is back.

use std::time::Duration;

use common::trust::PublicKey;

/// The longest wait after a try to which nobody accepted the connection.
pub const UNSENT_MAX: Duration = Duration::from_secs(8);

/// The failures in a row of one kind of request, and what they come to.
#[derive(Debug, Clone)]
pub struct Again {
    first: Duration,
    most: Duration,
    own: [u8; 32],
    failures: u32,
}

impl Again {
    /// None has failed yet. The whole first wait is `first`, each further one twice as long, up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration, own: &PublicKey) -> Self {
        Self { first, most, own: own.bytes(), failures: 0 }
    }

    /// A request was answered: the next failure is the first one again.
    pub fn answered(&mut self) {
        self.failures = 0;
    }

    /// How many have failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A request failed, and `is_unsent` says that nobody accepted its connection: the wait before the next.
    pub fn failed(&mut self, is_unsent: bool) -> Duration {
        let most = if is_unsent { self.most.min(UNSENT_MAX) } else { self.most };
        let whole = self.first.saturating_mul(2u32.saturating_pow(self.failures)).min(most);
        let [high, low] = [0, 1].map(|at| self.own[(2 * self.failures as usize + at) % self.own.len()]);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + whole / 2 * u32::from(u16::from_be_bytes([high, low])) / u32::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use common::trust::KeyPair;
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(60);

    fn machine(n: u8) -> Again {
        Again::new(FIRST, MOST, &KeyPair::from_secret([n; 32]).public())
    }

    #[test]
    fn a_server_that_is_away_is_looked_for_every_few_seconds_and_one_that_refuses_ever_more_seldom() {
        // The longest wait after each failure, in seconds.
        for (is_unsent, wholes) in [(true, [1, 2, 4, 8, 8, 8, 8, 8]), (false, [1, 2, 4, 8, 16, 32, 60, 60])] {
            for n in 1..=50 {
                let mut again = machine(n);
                for whole in wholes.map(Duration::from_secs) {
                    let wait = again.failed(is_unsent);
                    assert!((whole / 2..=whole).contains(&wait), "{is_unsent}: {wait:?} of {whole:?}");
                }
                assert_eq!(again.failures(), 8);
            }
        }
        let mut refused = machine(1);
        for _ in 0..9 {
            refused.failed(false);
        }
        assert!(refused.failed(true) <= UNSENT_MAX, "it has restarted, and is looked for");
    }

    #[test]
    fn an_answer_ends_the_back_off() {
        let mut again = machine(1);
        let first = again.failed(true);
        for _ in 0..100 {
            again.failed(false);
        }
        again.answered();
        assert_eq!((again.failures(), again.failed(true)), (0, first));
    }

    #[test]
    fn the_machines_of_a_rack_come_one_after_the_other() {
        let mut waits: Vec<Duration> = (1..=200).map(|n| machine(n).failed(true)).collect();
        waits.sort_unstable();
        let most_at_once = waits.windows(20).map(|few| few[19] - few[0]).min();
        assert!(most_at_once > Some(FIRST / 50), "{most_at_once:?}: 20 of 200 within a fiftieth of a second");
    }

    proptest! {
        #[test]
        fn no_wait_is_zero_or_past_its_bound(secret: [u8; 32], kinds: Vec<bool>) {
            let mut again = Again::new(FIRST, MOST, &KeyPair::from_secret(secret).public());
            for is_unsent in kinds {
                let wait = again.failed(is_unsent);
                let most = if is_unsent { UNSENT_MAX } else { MOST };
                prop_assert!((FIRST / 2..=most).contains(&wait), "{:?}", wait);
            }
        }
    }
}
