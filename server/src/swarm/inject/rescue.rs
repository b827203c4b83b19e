//! Core: what is done when a transfer makes no progress: leases expire, chunks that are stuck at one agent are leased
//! again, and agents that starve because their peers send them nothing are served directly. Touches the injection's
//! state alone.

use std::collections::BTreeMap;
use std::time::Duration;

use common::chunk::{ChunkIndex, ChunkSet};
use common::limits::CHUNK_BYTES;
use common::trust::PublicKey;

use super::lease::{AGENT_CHUNKS, site_window};
use super::{Agent, Effect, Injector, Site};

/// Lease timeout: a lease without progress for this long, or three times as long as usual, expires.
const LEASE_PATIENCE: Duration = Duration::from_secs(5);

/// An agent whose lease expired gets no other for this long, as long as others can take it.
const PENALTY: Duration = Duration::from_secs(15);

/// An agent that lacks chunks and gets none from peers for this long is leased one at a time directly...
const STARVING: Duration = Duration::from_secs(6);

/// ...as long as that adds less than this share (in per cent) to what one copy costs...
const RESCUE_PERCENT: u64 = 3;

/// ...and after this long `AGENT_CHUNKS` at once: its peers are unreachable. Counted from when a peer had something
/// that it lacks: an agent that was alone until now is not cut off when the second one joins.
const CUT_OFF: Duration = Duration::from_secs(15);

/// The interval at which it is checked whether the peers of a starving agent hold something that it lacks.
const LOOK: Duration = Duration::from_millis(500);

/// Chunks that a slow agent alone holds are stuck there when passing them on takes longer than this. The server sends
/// them again once its line to the site had nothing else to send for so long...
const STUCK: Duration = Duration::from_secs(5);

/// ...or, where that is less, for this part of the time since the site's first agent joined, but at least `STUCK_MIN`.
/// Five seconds are little in an hour, and as long as all of 64 MiB takes at 100 Mbit/s: with two of eight agents that
/// send at 5 Mbit/s, tests/sim has 1.92 of the lower bound with five seconds, 1.31 with a quarter of the time, 1.26
/// with an eighth, 1.24 with this.
const STUCK_PART: u32 = 16;
const STUCK_MIN: Duration = Duration::from_millis(500);

/// Chunks are sent to a site again only when its agents send so many times more slowly than the server could; below
/// that, saving the server's line counts for more.
const SLOWER: u64 = 8;

impl Injector {
    pub(super) fn expire(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let chunk = u64::from(CHUNK_BYTES);
        let patience: BTreeMap<&String, Duration> = self
            .sites
            .iter()
            .map(|(name, site)| {
                let queued = u64::from(site.leased.count()) * chunk;
                let expected = Duration::from_millis(queued.saturating_mul(1000) / site.rate.max(1));
                let patience = if site.rate == 0 { LEASE_PATIENCE * 3 } else { expected * 3 };
                (name, patience.clamp(LEASE_PATIENCE, LEASE_PATIENCE * 12))
            })
            .collect();
        let late: Vec<PublicKey> = self
            .agents
            .iter()
            .filter(|(_, agent)| {
                let patience = patience.get(&agent.site).copied().unwrap_or(LEASE_PATIENCE);
                !agent.leases.is_empty() && now >= agent.moved + patience
            })
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            let Some(agent) = self.agents.get_mut(&key) else { continue };
            agent.penalty_until = now + PENALTY;
            let chunks: Vec<ChunkIndex> = agent.leases.iter().copied().collect();
            self.end_leases(key, &chunks);
            effects.push(Effect::Revoke { agent: key, chunks });
        }
    }

    /// An agent joined at `now`: the search for starving agents begins after `STARVING` at the latest.
    pub(super) fn may_starve(&mut self, now: Duration) {
        self.starving_from = self.starving_from.min(now + STARVING);
    }

    /// Leases chunks to starving agents directly, even if others at their site hold them.
    pub(super) fn rescue(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if now < self.starving_from {
            return;
        }
        let lacking = self.agents.iter().filter(|(_, agent)| self.lacking(agent));
        let starves = |agent: &Agent| (agent.gained + STARVING).max(agent.alone + LOOK);
        let from: Vec<(Duration, PublicKey)> = lacking.map(|(key, agent)| (starves(agent), *key)).collect();
        // A chunk that an agent gets makes this time later, never earlier.
        self.starving_from = from.iter().map(|(from, _)| *from).min().unwrap_or(Duration::MAX);
        let starving: Vec<PublicKey> =
            from.into_iter().filter(|(from, _)| now >= *from).map(|(_, key)| key).collect();
        for key in starving {
            let Some(agent) = self.agents.get_mut(&key) else { continue };
            let offered = self.sites.get(&agent.site).is_some_and(|site| offers(site, agent, &self.wanted));
            if !offered {
                agent.alone = now;
                continue;
            }
            let cut_off = now >= agent.gained.max(agent.alone) + CUT_OFF;
            let within = self.rescued_bytes * 100 < self.wire_bytes * RESCUE_PERCENT;
            let most = if cut_off { AGENT_CHUNKS } else { usize::from(within) };
            if agent.leases.len() >= most || now < agent.penalty_until {
                continue;
            }
            let free = most - agent.leases.len();
            let Some(site) = self.sites.get(&agent.site) else { continue };
            let lost = &self.lost;
            let lacks = |chunk: &ChunkIndex| {
                !agent.held.contains(*chunk) && !site.leased.contains(*chunk) && !lost.contains(*chunk)
            };
            // Chunks that nobody at the site holds are left to ordinary leases.
            let chunks: Vec<ChunkIndex> =
                self.wanted.iter().filter(lacks).filter(|c| site.copies[c.at()] > 0).take(free).collect();
            if chunks.is_empty() {
                continue;
            }
            if cut_off && !agent.cut_off {
                agent.cut_off = true;
                effects.push(Effect::CutOff { agent: key });
            }
            self.rescued_bytes += chunks.len() as u64 * u64::from(CHUNK_BYTES);
            chunks.iter().for_each(|chunk| self.grant(key, *chunk, now));
            effects.push(Effect::Lease { agent: key, chunks });
        }
    }

    /// Leases chunks again that the agents of a site do not pass on in time: the first agent there may alone hold all
    /// that others want, and have a slow uplink or none. Only where the server's line had nothing else to send for a
    /// while.
    pub(super) fn loosen(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for site in self.sites.values_mut() {
            let idle = site.open.is_empty();
            site.idle_since = idle.then(|| site.idle_since.unwrap_or(now));
        }
        let waits = |site: &Site| {
            site.idle_since.is_some_and(|since| now >= since + patience(site, now))
                && (site.leased.count() as usize) < site_window(site, now)
        };
        let names: Vec<String> =
            self.sites.iter().filter(|(_, site)| waits(site)).map(|(name, _)| name.clone()).collect();
        for name in names {
            for chunk in self.stuck_at(&name, now) {
                let Some(agent) = self.taker(&name, chunk, now) else { continue };
                self.grant(agent, chunk, now);
                effects.push(Effect::Lease { agent, chunks: vec![chunk] });
            }
        }
    }

    /// The chunks to be leased again at `site`, as many as its window has room for.
    fn stuck_at(&mut self, site: &str, now: Duration) -> Vec<ChunkIndex> {
        let Some(place) = self.sites.get(site) else { return vec![] };
        let here: Vec<&Agent> = self.agents.values().filter(|agent| agent.site == site).collect();
        let lacking: Vec<&Agent> = here.iter().copied().filter(|agent| self.lacking(agent)).collect();
        let mut stuck: Vec<ChunkIndex> = if all_slow(place, &here, &lacking, now) {
            let lacks = |chunk: &ChunkIndex| lacking.iter().any(|agent| !agent.held.contains(*chunk));
            self.wanted.iter().filter(lacks).collect()
        } else if let Some(holder) = here.iter().find(|agent| jams(place, agent, &lacking, now)) {
            holder.held.iter().filter(|chunk| place.copies[chunk.at()] == 1).collect()
        } else {
            return vec![];
        };
        stuck.retain(|chunk| !place.leased.contains(*chunk) && !self.lost.contains(*chunk));
        self.rng.shuffle(&mut stuck);
        // Rarest first.
        stuck.sort_by_key(|chunk| place.copies[chunk.at()]);
        stuck.truncate(site_window(place, now).saturating_sub(place.leased.count() as usize));
        stuck
    }
}

/// Whether others at `site` hold a chunk that `agent` lacks.
fn offers(site: &Site, agent: &Agent, wanted: &ChunkSet) -> bool {
    wanted.iter().any(|chunk| site.copies[chunk.at()] > 0 && !agent.held.contains(chunk))
}

/// Whether all agents that hold something for the `lacking` ones of a site together send much more slowly than the
/// server could, after long enough to tell.
fn all_slow(site: &Site, here: &[&Agent], lacking: &[&Agent], now: Duration) -> bool {
    let settled: Vec<&&Agent> = lacking.iter().filter(|agent| now >= agent.joined + STUCK).collect();
    if settled.is_empty() || site.idle_since.is_none_or(|since| now < since + STUCK) {
        return false;
    }
    // An agent that holds only chunks which all the lacking ones hold is of no help to them.
    let common = settled
        .into_iter()
        .map(|agent| agent.held.words().to_vec())
        .reduce(|one, other| one.iter().zip(other).map(|(one, other)| one & other).collect());
    let common = common.unwrap_or_default();
    let helps = |agent: &&&Agent| {
        agent.trusted && agent.held.words().iter().zip(&common).any(|(held, common)| held & !common != 0)
    };
    let supply: u64 = here.iter().filter(helps).filter_map(|agent| agent.uplink).sum();
    supply.saturating_mul(SLOWER) < site.rate
}

/// Whether `agent` needs long to pass on the chunks that it alone holds, and much longer than the server would. For one
/// whose uplink is not known yet, that is decided only after `STUCK`.
fn jams(site: &Site, agent: &Agent, lacking: &[&Agent], now: Duration) -> bool {
    let patience = if agent.uplink.is_some() { patience(site, now) } else { STUCK };
    let bytes = u128::from(CHUNK_BYTES) * agent.sole as u128;
    let uplink = agent.uplink.unwrap_or(0);
    site.idle_since.is_some_and(|since| now >= since + patience)
        // An agent that has just joined may not have requested anything yet.
        && lacking.iter().any(|other| now >= other.joined + patience)
        && bytes * 1000 > u128::from(uplink) * patience.as_millis()
        && uplink.saturating_mul(SLOWER) < site.rate
}

/// How long the server's line to `site` must have had nothing else to send before chunks are sent again.
fn patience(site: &Site, now: Duration) -> Duration {
    (now.saturating_sub(site.began) / STUCK_PART).clamp(STUCK_MIN, STUCK)
}
