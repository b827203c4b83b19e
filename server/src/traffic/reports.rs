//! Core: how often agents report their progress and speed, so that the reports of all agents of a site take no more than
//! a hundredth of its line.

use std::time::Duration;

use super::rate::Rate;

/// What one agent's reports of one period take on the line, both ways, with the headers of TCP, IP and Ethernet. By the
/// sizes of the messages 1.7 kB: a batch with one progress event 821 bytes, its answer 446, a speed report 194, its
/// answer 106, acknowledgements 132. The rest is for the chunks that the agent announces.
const REPORT_BYTES: u64 = 2_500;

/// Reports may take one byte of so many.
const LINE_PARTS: u64 = 100;

/// The paces that are used, in seconds. Few, because each change is told to every agent of the site: with one pace for
/// each number of agents, the telling would cost what it saves.
const PACES: [u64; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 60];

/// The time between two reports of an agent, where so many share a line of this rate. A line that was never busy for
/// some seconds is none that has to be spared.
#[must_use]
pub fn report_pace(agents: usize, line: Option<Rate>) -> Duration {
    let least = line.map_or(0, |line| {
        let share = (u64::from(line) / 8 / LINE_PARTS).max(1);
        (agents as u64).saturating_mul(REPORT_BYTES).div_ceil(share)
    });
    let pace = PACES.into_iter().find(|pace| *pace >= least);
    Duration::from_secs(pace.unwrap_or(PACES[PACES.len() - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_behind_a_thin_line_report_seldom_and_one_on_a_lan_every_second() {
        let table = [
            (1, None, 1),
            (2_000, None, 1),
            (1, Some("1G"), 1),
            (64, Some("1G"), 1),
            (8, Some("50M"), 1),
            (6, Some("20M"), 1),
            (30, Some("20M"), 3),
            (30, Some("2M"), 32),
            (30, Some("1M"), 60),
            (2_000, Some("1M"), 60),
        ];
        for (agents, line, seconds) in table {
            let line: Option<Rate> = line.map(|line: &str| line.parse().unwrap());
            assert_eq!(report_pace(agents, line), Duration::from_secs(seconds), "{agents} at {line:?}");
        }
    }

    /// Down to 4 Mbit/s for thirty agents; below, the slowest pace is kept so that a person still sees something move.
    #[test]
    fn the_share_is_kept_as_long_as_the_slowest_pace_allows() {
        for mbit in 1..1000_u64 {
            for agents in [1, 5, 30, 100] {
                let pace = report_pace(agents, Some(Rate::try_from(mbit * 1_000_000).unwrap())).as_secs();
                let bits = 8 * REPORT_BYTES * agents as u64 / pace;
                assert!(pace == 60 || bits <= mbit * 1_000_000 / LINE_PARTS, "{agents} at {mbit}: {pace} s");
            }
        }
    }
}
