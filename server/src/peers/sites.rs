//! Core: all sites with their agents, the files that these hold, and the machines that wait for them. Answers requests
//! for boot files, tells agents what to hold, and takes complaints. Driven by `peers` over a lock, and by `tests/sim`.
//! Touches `common`; time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::id::Hash;
use common::trust::PublicKey;
use common::wire::objects::Object;

use super::holders::Holders;
use super::scouts::{Gate, Request, Scouts};
use super::words::{Advice, Asking, Hold, Who};

/// Sites that are remembered. Strangers can make up addresses, but no connection from them: a site is remembered once
/// one of its machines has asked over TCP.
const SITES_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Site {
    holders: Holders,
    scouts: Scouts,
}

/// All sites.
#[derive(Debug, Default)]
pub struct Sites {
    sites: BTreeMap<String, Site>,
    /// The site of each agent that gives out files.
    agents: BTreeMap<PublicKey, String>,
}

impl Sites {
    /// Where a machine of `site` takes its boot files from, or that it waits.
    pub fn ask(&mut self, site: &str, asking: &Asking<'_>, now: Duration) -> Advice {
        let Some(site) = self.site(site, now) else { return Advice::Server };
        if !asking.may_share || asking.files.is_empty() {
            return Advice::Server;
        }
        let peers = site.holders.offer(asking.files, asking.who, now);
        if !peers.is_empty() {
            site.scouts.served();
            Self::note(site, asking.files, asking.who, false, now);
            return Advice::Peers(peers);
        }
        let request = Request {
            who: asking.who,
            ordered: asking.ordered,
            expected: asking.expected,
            bytes: asking.files.iter().map(|file| file.bytes).sum(),
            missing: site.holders.missing(asking.files),
            rate: asking.rate,
            agent: site.holders.any_but(asking.who),
        };
        let gate = site.scouts.ask(&request, now);
        Self::note(site, asking.files, asking.who, gate == Gate::Waits, now);
        if gate == Gate::Waits { Advice::Wait(Scouts::again(request.agent)) } else { Advice::Server }
    }

    fn note(site: &mut Site, files: &[Object], who: Who, waits: bool, now: Duration) {
        for file in files {
            site.holders.want(*file, who, waits, now);
        }
    }

    /// Neighbours of `who` that hold `files`: for its loader and its agent, which check them by hash.
    pub fn offer(&mut self, site: &str, files: &[Object], who: Who, now: Duration) -> Vec<SocketAddr> {
        self.site(site, now).map(|site| site.holders.offer(files, who, now)).unwrap_or_default()
    }

    /// Notes that `who` fetches `files`, as others of its site may.
    pub fn want(&mut self, site: &str, files: &[Object], who: Who, now: Duration) {
        if let Some(site) = self.site(site, now) {
            Self::note(site, files, who, false, now);
        }
    }

    /// Something came from the machine at `address`, or was sent to it whole.
    pub fn sign(&mut self, site: &str, address: IpAddr, now: Duration) {
        if let Some(site) = self.sites.get_mut(site) {
            site.scouts.sign(address, now);
        }
    }

    /// The agent `key` of `site` gives out `held` at `at`.
    pub fn holding(
        &mut self,
        site: &str,
        key: PublicKey,
        who: Who,
        at: SocketAddr,
        held: BTreeSet<Hash>,
        now: Duration,
    ) {
        self.left(&key, now, |old| old != site);
        let Some(place) = self.site(site, now) else { return };
        place.holders.holding(key, who, at, held);
        place.scouts.arrived();
        self.agents.insert(key, site.to_owned());
    }

    /// The agent's connection has ended, or it gives out nothing any more.
    pub fn gone(&mut self, key: &PublicKey, now: Duration) {
        self.left(key, now, |_| true);
    }

    fn left(&mut self, key: &PublicKey, now: Duration, of: impl Fn(&str) -> bool) {
        let Some(site) = self.agents.get(key).filter(|site| of(site)).cloned() else { return };
        self.agents.remove(key);
        if let Some(site) = self.sites.get_mut(&site) {
            site.holders.left(key);
            if !site.holders.any() {
                site.scouts.deserted(now);
            }
        }
    }

    /// The machine at `by` says that its neighbour at `peer` failed it. Whether that is news, for the log.
    pub fn complain(&mut self, site: &str, by: IpAddr, peer: SocketAddr, now: Duration) -> bool {
        self.sites.get_mut(site).is_some_and(|site| site.holders.complain(by, peer, now))
    }

    /// What agents are to be told now. To be called every second or so.
    pub fn tick(&mut self, now: Duration) -> Vec<Hold> {
        let holds = self.sites.values_mut().flat_map(|site| site.holders.tick(now)).collect();
        self.sites.retain(|_, site| !site.holders.is_empty() || !site.scouts.is_idle(now));
        holds
    }

    /// The agents that should go on serving although their own job is done, and for how long after that at the most;
    /// `expects` says whether further machines are to come to a site.
    #[must_use]
    pub fn needed(&self, expects: impl Fn(&str) -> bool, now: Duration) -> BTreeMap<PublicKey, Duration> {
        let sites = self.sites.iter().filter(|(_, site)| site.holders.any());
        sites.flat_map(|(name, site)| site.holders.needed(expects(name), now)).collect()
    }

    /// The site, made if there is room. Of too many, those that are idle go.
    fn site(&mut self, name: &str, now: Duration) -> Option<&mut Site> {
        if !self.sites.contains_key(name) && self.sites.len() >= SITES_MAX {
            self.sites.retain(|_, site| site.holders.any() || !site.scouts.is_idle(now));
            if self.sites.len() >= SITES_MAX {
                return None;
            }
        }
        Some(self.sites.entry(name.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests;
