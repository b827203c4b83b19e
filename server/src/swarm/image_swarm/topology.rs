//! Core: the topology of a site: which neighbours each agent is told of. A full mesh as long as the agents are few,
//! else a ring with short cuts. Touches the swarm's state alone.

use std::collections::BTreeMap;

use common::trust::PublicKey;
use common::wire::swarm::{Neighbour, ToAgent};

use super::{ImageSwarm, Out};

/// A relay is a neighbour of all agents of its site up to this many: each is a connection of it. Of more, it is one of
/// every second, third...: the others get its chunks from those.
const RELAY_NEIGHBOURS_MAX: usize = 128;

/// Up to so many agents of a site are all neighbours; of more, each has about 2 log2 of their number: more than the
/// natural logarithm, which keeps the graph connected when some leave.
const FULL_MESH_MAX: usize = 16;

impl ImageSwarm {
    /// Sends each connected agent its list of neighbours, if that has changed since it was last sent.
    pub(super) fn tell_neighbours(&mut self) -> Vec<Out> {
        let mut sites: BTreeMap<String, (Vec<PublicKey>, Vec<PublicKey>)> = BTreeMap::new();
        for (key, member) in &self.members {
            if member.presence.connected && member.expelled.is_none() && !member.presence.released {
                let (machines, relays) = sites.entry(member.admission.site.clone()).or_default();
                if member.presence.is_relay { relays } else { machines }.push(*key);
            }
        }
        let mut out = Vec::new();
        for (machines, relays) in sites.values() {
            let apart = machines.len().div_ceil(RELAY_NEIGHBOURS_MAX).max(1);
            let near = |at: usize| if at.is_multiple_of(apart) { &relays[..] } else { &[] };
            let of_machines = machines.iter().enumerate().map(|(at, key)| {
                let others = neighbours_of(at, machines.len()).into_iter().filter_map(|at| machines.get(at));
                (key, others.chain(near(at)).collect::<Vec<_>>())
            });
            let of_relays = relays.iter().map(|key| {
                let others = relays.iter().filter(|other| *other != key);
                (key, machines.iter().step_by(apart).chain(others).collect::<Vec<_>>())
            });
            for (key, others) in of_machines.chain(of_relays) {
                let list: Vec<Neighbour> =
                    others.into_iter().filter_map(|other| self.neighbour(other)).collect();
                let news = (list, self.is_spared(key));
                if let Some(member) = self.members.get_mut(key)
                    && member.told.as_ref() != Some(&news)
                {
                    member.told = Some(news.clone());
                    let (list, spared) = news;
                    out.push(Out::Tell(*key, ToAgent::Neighbours { list, spared }));
                }
            }
        }
        out
    }

    fn is_spared(&self, key: &PublicKey) -> bool {
        self.injector.as_ref().is_some_and(|injector| injector.is_spared(key))
    }

    fn neighbour(&self, key: &PublicKey) -> Option<Neighbour> {
        let member = self.members.get(key)?;
        Some(Neighbour {
            key: *key,
            name: member.admission.name.clone(),
            addresses: member.addresses.clone(),
            spared: self.is_spared(key),
        })
    }
}

/// The neighbours of agent number `at` of `len` agents: all others, or those at distances of powers of two around the
/// ring, in both directions, so that the relation is symmetric.
pub(super) fn neighbours_of(at: usize, len: usize) -> Vec<usize> {
    if len <= FULL_MESH_MAX {
        return (0..len).filter(|other| *other != at).collect();
    }
    let mut list: Vec<usize> = Vec::new();
    let mut distance = 1;
    while distance <= len / 2 {
        list.push((at + distance) % len);
        list.push((at + len - distance) % len);
        distance *= 2;
    }
    list.sort_unstable();
    list.dedup();
    list
}
