//! Core: who is told of whom: all of a site as long as they are few, else a ring with short cuts. Touches the swarm's
//! state alone.

use std::collections::BTreeMap;

use common::trust::PublicKey;
use common::wire::swarm::{Neighbour, ToAgent};

use super::{ImageSwarm, Out};

/// Up to so many agents of a site all know each other; beyond, each knows about 2 log2 of them: more than
/// the natural logarithm keeps the graph whole when some leave.
const FULL_MESH_MAX: usize = 16;

impl ImageSwarm {
    /// Tells everybody who is here of its neighbours, if that is news to it.
    pub(super) fn tell_neighbours(&mut self) -> Vec<Out> {
        let mut sites: BTreeMap<String, Vec<PublicKey>> = BTreeMap::new();
        for (key, member) in &self.members {
            if member.presence.connected && member.expelled.is_none() && !member.presence.released {
                sites.entry(member.admission.site.clone()).or_default().push(*key);
            }
        }
        let mut out = Vec::new();
        for keys in sites.values() {
            for (at, key) in keys.iter().enumerate() {
                let others = neighbours_of(at, keys.len()).into_iter().filter_map(|at| keys.get(at));
                let list: Vec<Neighbour> = others.filter_map(|other| self.neighbour(other)).collect();
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

/// Whom the `at`th of `len` agents knows: all, or those at distances of powers of two around the ring, both
/// ways, so that knowing is mutual.
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
