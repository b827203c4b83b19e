//! Core: who is spared by its peers. Touches the injection's state alone.
//!
//! An uplink that chunks fill delays and drops what it carries of its machine's own fetching: acknowledgements and
//! requests. Two machines of eight that sent at 5 Mbit/s and received at 100 fetched at 20 as long as the others asked
//! them for chunks, and had 230 ms to their neighbours instead of one; what they could send was one part in seventy of
//! what all could.

use std::collections::BTreeMap;
use std::time::Duration;

use common::trust::PublicKey;

use super::{Agent, Effect, Injector};

/// Who sends so many times more slowly than the median of its site is spared until...
const SLOWER: u64 = 8;

/// ...it sends this many times more slowly at the most. Not until it has everything: of eight, the last waited two
/// seconds for a chunk that it had asked a slow one for, when that was done and all others had it.
const NOT_SLOWER: u64 = 4;

/// Between two looks at who is slow. Each change is told to all of a site.
const LOOK: Duration = Duration::from_secs(1);

impl Injector {
    /// Whether the peers of `agent` ask it only for what no other holds.
    #[must_use]
    pub fn is_spared(&self, agent: &PublicKey) -> bool {
        self.agents.get(agent).is_some_and(|agent| agent.spared)
    }

    pub(super) fn spare(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if now < self.spared_at + LOOK {
            return;
        }
        self.spared_at = now;
        let mut sites: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for agent in self.agents.values() {
            sites.entry(&agent.site).or_default().extend(agent.uplink);
        }
        let medians: BTreeMap<String, u64> = sites
            .into_iter()
            .filter_map(|(site, mut uplinks)| Some((site.to_owned(), median(&mut uplinks)?)))
            .collect();
        for (key, agent) in &mut self.agents {
            let spared = medians.get(&agent.site).is_some_and(|median| slow(agent, *median));
            if spared != agent.spared {
                agent.spared = spared;
                effects.push(Effect::Spare { agent: *key, spared });
            }
        }
    }
}

fn slow(agent: &Agent, median: u64) -> bool {
    let times = if agent.spared { NOT_SLOWER } else { SLOWER };
    agent.uplink.is_some_and(|uplink| uplink.saturating_mul(times) < median)
}

/// The upper median.
pub(super) fn median(values: &mut [u64]) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
