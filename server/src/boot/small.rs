//! Core: which machines get the small loader of their NIC, and which the general one, because the small one did not
//! bring them to report. Owns that memory: by Ethernet address, bounded, lost when the server restarts. Touches
//! `common`.

use std::collections::HashMap;
use std::time::Duration;

use common::id::Mac;

/// How long a small loader may take from the script that named it to the report: firmware, a download at 1 Mbit/s, and
/// drivers. A loader without a network restarts its machine after that time.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long a machine that did not report is given the general loader: it may have been switched off meanwhile.
const DISTRUST: Duration = Duration::from_secs(24 * 3600);

/// The most machines that are remembered: ten times a large fleet, since addresses are easily forged.
const MACHINES_MAX: usize = 20_000;

/// What is remembered of a machine, with the time since the server's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// It was named a small loader for the first time since it last reported.
    Given(Duration),
    /// It had not reported in time when it asked again.
    Failed(Duration),
}

/// The machines that were given a small loader.
#[derive(Debug, Default)]
pub struct Trials {
    machines: HashMap<Mac, Trial>,
}

impl Trials {
    /// Whether the machine with the address `mac`, which asks for its script, is given a small loader. `now` is the
    /// time since the server's start.
    pub fn gives(&mut self, mac: Mac, now: Duration) -> bool {
        let trial = match self.machines.get(&mac) {
            None => Trial::Given(now),
            Some(Trial::Given(at)) if now.saturating_sub(*at) < PATIENCE => return true,
            Some(Trial::Given(_)) => Trial::Failed(now),
            Some(Trial::Failed(at)) if now.saturating_sub(*at) < DISTRUST => return false,
            Some(Trial::Failed(_)) => Trial::Given(now),
        };
        if self.machines.len() >= MACHINES_MAX && !self.machines.contains_key(&mac) {
            self.forget_the_oldest();
        }
        self.machines.insert(mac, trial);
        matches!(trial, Trial::Given(_))
    }

    /// A machine has reported that has the address `mac`. One that failed goes on with the general loader, by which it
    /// may just have reported.
    pub fn reported(&mut self, mac: Mac) {
        if matches!(self.machines.get(&mac), Some(Trial::Given(_))) {
            self.machines.remove(&mac);
        }
    }

    /// Forgets half of them, so that it is seldom done.
    fn forget_the_oldest(&mut self) {
        let at = |trial: &Trial| match trial {
            Trial::Given(at) | Trial::Failed(at) => *at,
        };
        let mut times: Vec<Duration> = self.machines.values().map(at).collect();
        let (_, &mut middle, _) = times.select_nth_unstable(MACHINES_MAX / 2);
        self.machines.retain(|_, trial| at(trial) > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: usize) -> Mac {
        let bytes = u64::try_from(number).unwrap().to_be_bytes();
        Mac([2, bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_does_not_report_gets_the_general_loader_for_a_day() {
        enum Does {
            Asks(bool),
            Reports,
        }
        use Does::{Asks, Reports};
        let table: [(&str, &[(u64, Does)]); 5] = [
            ("reports each time", &[(0, Asks(true)), (60, Reports), (400, Asks(true)), (900, Asks(false))]),
            ("its download broke", &[(0, Asks(true)), (100, Asks(true)), (200, Asks(true)), (250, Reports)]),
            ("never reports", &[(0, Asks(true)), (299, Asks(true)), (300, Asks(false)), (4000, Asks(false))]),
            (
                "reports by the general one",
                &[(0, Asks(true)), (300, Asks(false)), (400, Reports), (500, Asks(false))],
            ),
            (
                "a day later",
                &[(0, Asks(true)), (300, Asks(false)), (86_699, Asks(false)), (86_700, Asks(true))],
            ),
        ];
        for (what, does) in table {
            let mut trials = Trials::default();
            for (seconds, does) in does {
                match does {
                    Asks(small) => {
                        assert_eq!(trials.gives(mac(1), at(*seconds)), *small, "{what}: {seconds}");
                    }
                    Reports => trials.reported(mac(1)),
                }
            }
        }
    }

    #[test]
    fn one_machine_says_nothing_of_another_and_their_number_is_bounded() {
        let mut trials = Trials::default();
        trials.gives(mac(0), at(0));
        assert!(!trials.gives(mac(0), at(400)));
        assert!(trials.gives(mac(1), at(400)));
        for number in 2..3 * MACHINES_MAX {
            trials.gives(mac(number), at(1000 + number as u64));
        }
        assert!(trials.machines.len() <= MACHINES_MAX);
        assert!(trials.machines.contains_key(&mac(3 * MACHINES_MAX - 1)));
        // Also when all came at once.
        let mut trials = Trials::default();
        for number in 0..2 * MACHINES_MAX {
            trials.gives(mac(number), at(7));
        }
        assert!(trials.machines.len() <= MACHINES_MAX);
    }
}
