//! Core: which agents are spared: their peers ask them only for chunks that no other holds. Touches the injection's
//! state alone.
//!
//! An uplink that is full of chunks delays and drops the acknowledgements and requests of its machine's own downloads.
//! Two machines of eight that sent at 5 Mbit/s and received at 100 fetched at 20 as long as the others asked them for
//! chunks, and had a round trip of 230 ms to their neighbours instead of one; their uplinks were one part in seventy of
//! the sum of all.

use std::collections::BTreeMap;
use std::time::Duration;

use common::trust::PublicKey;

use super::{Agent, Effect, Injector};

/// An agent that sends so many times more slowly than the median of its site is spared until...
const SLOWER: u64 = 8;

/// ...it sends at most this many times more slowly. Sparing does not end when it has everything: with eight agents, the
/// last one then waited two seconds for a chunk that it had requested from a slow one and that all others had.
const NOT_SLOWER: u64 = 4;

/// The interval at which it is decided who is spared. Each change is sent to all of a site.
const LOOK: Duration = Duration::from_secs(1);

impl Injector {
    /// Whether the peers of `agent` are to ask it only for chunks that no other holds.
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

/// The upper median of `values`, which are sorted in place; `None` when there are none.
pub(super) fn median(values: &mut [u64]) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
