//! Core: which agent gets the next chunk, and how many chunks are leased at once. Touches the injection's state alone.

use std::collections::BTreeMap;
use std::time::Duration;

use common::chunk::ChunkIndex;
use common::limits::CHUNK_BYTES;
use common::trust::PublicKey;

use super::spare::median;
use super::{Agent, Effect, Injector, SENDING_PER_SITE, Site};

/// As many chunks are leased to a site at once as the server sends there in this time...
const AHEAD: Duration = Duration::from_millis(800);

/// ...and at least so many: one more than are sent at the same time. Chunks that share a line end together, and it
/// would be idle until the next ones are requested (with four leased and sent at once, one part in twenty of 50
/// Mbit/s).
const SITE_CHUNKS_MIN: usize = SENDING_PER_SITE + 1;

/// The minimum as long as no uplink of the site is known: a chunk leased to a slow agent before that is noticed costs
/// seconds (two slow agents of eight, in tests/sim: 1.78 of the lower bound with six at first, 1.03 with two).
const SITE_CHUNKS_UNKNOWN: usize = 2;

/// A site has only one agent when no second one has joined for so long.
const COMPANY: Duration = Duration::from_secs(1);

/// Chunks leased to one agent at once, when others are there and when it is alone at its site.
pub(super) const AGENT_CHUNKS: usize = 4;
const AGENT_CHUNKS_ALONE: usize = 16;

/// An agent that has sent nothing to its peers this long after it joined, and alone holds as many chunks as are leased
/// to one at once, may be unreachable for them: what it gets is not passed on. Longer than a first report takes.
const UNPROVEN: Duration = Duration::from_secs(6);

impl Injector {
    pub(super) fn lease(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut given: BTreeMap<PublicKey, Vec<ChunkIndex>> = BTreeMap::new();
        let has_room = |site: &Site| (site.leased.count() as usize) < site_window(site, now);
        let names: Vec<String> =
            self.sites.iter().filter(|(_, site)| has_room(site)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let window = self.sites.get(&name).map_or(0, |site| site_window(site, now));
            while self.sites.get(&name).is_some_and(|site| (site.leased.count() as usize) < window) {
                let Some(chunk) = self.next_open(&name) else { break };
                let Some(agent) = self.taker(&name, chunk, now) else {
                    self.sites.entry(name.clone()).and_modify(|site| site.reopen(chunk));
                    break;
                };
                self.grant(agent, chunk, now);
                given.entry(agent).or_default().push(chunk);
            }
        }
        effects.extend(given.into_iter().map(|(agent, chunks)| Effect::Lease { agent, chunks }));
    }

    /// Takes the next chunk off the site's list that nobody there holds or leases and that the server can read.
    fn next_open(&mut self, site: &str) -> Option<ChunkIndex> {
        let (lost, site) = (&self.lost, self.sites.get_mut(site)?);
        loop {
            let chunk = site.pop()?;
            if site.copies[chunk.at()] == 0 && !site.leased.contains(chunk) && !lost.contains(chunk) {
                return Some(chunk);
            }
        }
    }

    pub(super) fn grant(&mut self, key: PublicKey, chunk: ChunkIndex, now: Duration) {
        if let Some(agent) = self.agents.get_mut(&key) {
            if agent.leases.is_empty() {
                agent.moved = now;
            }
            agent.leases.insert(chunk);
            if let Some(site) = self.sites.get_mut(&agent.site) {
                site.leased.insert(chunk);
            }
        }
    }

    /// The agent to lease `chunk` to: the one with the fewest leases and chunks that it alone holds, in proportion to
    /// its uplink. An agent whose uplink is below a quarter of the median, whose last lease expired, that is not
    /// trusted or that has passed nothing on so far is taken only if there is no other. A relay comes first, as long as
    /// it sends as fast as the site's line brings: it stays, and it is not busy with a disk of a machine that waits.
    /// Where any can take the chunk as a delta, only such an agent gets it, even if it has to wait until one has room.
    pub(super) fn taker(&mut self, site: &str, chunk: ChunkIndex, now: Duration) -> Option<PublicKey> {
        let here: Vec<(&PublicKey, &Agent)> = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.site == site && !agent.held.contains(chunk))
            .collect();
        let mut uplinks: Vec<u64> = here.iter().filter_map(|(_, agent)| agent.uplink).collect();
        let median = median(&mut uplinks).unwrap_or(1);
        let uplink = |agent: &Agent| agent.uplink.unwrap_or(median).max(1);
        let unproven = |agent: &Agent| {
            agent.uplink.is_none() && now >= agent.joined + UNPROVEN && agent.sole >= AGENT_CHUNKS
        };
        let bad = |agent: &Agent| {
            now < agent.penalty_until
                || !agent.trusted
                || uplink(agent) < median.div_ceil(4)
                || unproven(agent)
        };
        let any_good = here.iter().any(|(_, agent)| !bad(agent));
        let able = here.iter().filter(|(_, agent)| !bad(agent) && agent.deltas.contains(chunk)).count();
        let most = if here.len() == 1 || able == 1 { AGENT_CHUNKS_ALONE } else { AGENT_CHUNKS };
        let rank = |agent: &Agent| {
            let load = u64::try_from(agent.sole + agent.leases.len() + 1).unwrap_or(u64::MAX);
            // Load per uplink, in thousandths of the median's.
            load.saturating_mul(1000).saturating_mul(median) / uplink(agent)
        };
        let line = self.sites.get(site).map_or(0, |site| site.rate);
        let leads = |agent: &Agent| agent.is_relay && agent.uplink.is_none_or(|uplink| uplink >= line);
        let may = |agent: &Agent| agent.leases.len() < if leads(agent) { AGENT_CHUNKS_ALONE } else { most };
        let fitting: Vec<(u64, PublicKey)> = here
            .into_iter()
            .filter(|(_, agent)| may(agent) && (!any_good || !bad(agent)))
            .filter(|(_, agent)| able == 0 || agent.deltas.contains(chunk))
            .map(|(key, agent)| (if leads(agent) { 0 } else { rank(agent).max(1) }, *key))
            .collect();
        let best = fitting.iter().map(|(rank, _)| *rank).min()?;
        let equal: Vec<PublicKey> =
            fitting.into_iter().filter(|(rank, _)| *rank == best).map(|(_, key)| key).collect();
        equal.get(self.rng.below(equal.len())).copied()
    }
}

pub(super) fn site_window(site: &Site, now: Duration) -> usize {
    let ahead = u128::from(site.rate) * AHEAD.as_millis() / 1000 / u128::from(CHUNK_BYTES);
    let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
    let alone = site.agents == 1 && now >= site.began + COMPANY;
    ahead.max(if alone || site.uplink_known { SITE_CHUNKS_MIN } else { SITE_CHUNKS_UNKNOWN })
}
