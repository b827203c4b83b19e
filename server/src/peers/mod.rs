//! Which machines of a site take their boot files from each other, and which wait for one that fetches them. One lock
//! around the core [`Sites`], held for microseconds and never across an await; the clock; and the setting. Used by the
//! boot scripts, the plans and the swarm's node. Touches the traffic's sites and rates.

// Core: the words of requests and answers.
mod words;

// Core: one site's agents, and what they hold.
mod holders;

// Core: the gate of one site.
mod scouts;

// Core: all sites.
mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use common::id::{Hash, Mac};
use common::trust::PublicKey;
use common::wire::objects::{Object, PeerFault};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::traffic::Traffic;

pub use sites::Sites;
pub use words::{Advice, Asking, Hold, Who};

/// Whether firmware takes kernel and loader from neighbours. Bundles and manifests always may come from one: whoever
/// fetches those checks them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootPeers {
    /// Where the firmware's iPXE can check them against the hash in the server's script.
    #[default]
    Verified,
    /// Also where it cannot: whoever is on that network can then hand it another kernel.
    Any,
    /// Never.
    Off,
}

/// Says whether further machines of a site are to take what agents there hold.
struct Expects(Box<dyn Fn(&str) -> bool + Send + Sync>);

impl std::fmt::Debug for Expects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expects")
    }
}

/// The handle of this room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {
    sites: Arc<Mutex<Sites>>,
    expects: Arc<OnceLock<Expects>>,
    began: Instant,
    mode: BootPeers,
    traffic: Traffic,
    own: Option<Ipv4Net>,
}

impl Default for Peers {
    fn default() -> Self {
        Self::new(BootPeers::default(), Traffic::default(), None)
    }
}

impl Peers {
    /// Nobody holds anything yet. `own` is the server's network: its machines have no thin line, and are never told of
    /// neighbours or made to wait.
    #[must_use]
    pub fn new(mode: BootPeers, traffic: Traffic, own: Option<Ipv4Net>) -> Self {
        let (sites, expects) = (Arc::default(), Arc::default());
        Self { sites, expects, began: Instant::now(), mode, traffic, own }
    }

    /// From now on `expects` says whether further machines of a site are to come. Without this, and when it was said
    /// before, nothing changes.
    pub fn expect(&self, expects: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let _ = self.expects.set(Expects(Box::new(expects)));
    }

    /// The admin's setting.
    #[must_use]
    pub fn mode(&self) -> BootPeers {
        self.mode
    }

    /// The site of `address`, if machines there share; `None` on the server's own network, over IPv6, and when the admin
    /// wants none of it.
    #[must_use]
    pub fn site(&self, address: IpAddr) -> Option<String> {
        let IpAddr::V4(ip) = address.to_canonical() else { return None };
        let near = ip.is_loopback() || self.own.is_some_and(|own| own.contains(&ip));
        (self.mode != BootPeers::Off && !near).then(|| self.traffic.site_of(address))
    }

    /// What the line into `site` carries, in bytes a second; `None` while it was never busy.
    #[must_use]
    pub fn rate(&self, site: &str) -> Option<u64> {
        // TCP, IP and Ethernet take 66 of 1514 bytes.
        self.traffic.rate_of(site).map(|rate| u64::from(rate) / 8 * 95 / 100)
    }

    /// See [`Sites::ask`].
    #[must_use]
    pub fn ask(&self, site: &str, asking: &Asking<'_>) -> Advice {
        self.sites.lock().ask(site, asking, self.now())
    }

    /// Neighbours of `who` that have `file`, which it checks by its hash.
    #[must_use]
    pub fn of(&self, file: Object, who: Who) -> Vec<SocketAddr> {
        let Some(site) = self.site(who.address) else { return vec![] };
        self.sites.lock().offer(&site, &[file], who, self.now())
    }

    /// Notes that `who` fetches `file`, as others of its site may.
    pub fn want(&self, file: Object, who: Who) {
        if let Some(site) = self.site(who.address) {
            self.sites.lock().want(&site, &[file], who, self.now());
        }
    }

    /// See [`Sites::sign`].
    pub fn sign(&self, address: IpAddr) {
        if let Some(site) = self.site(address) {
            self.sites.lock().sign(&site, address, self.now());
        }
    }

    /// The machine at `by` says that its neighbour at `peer` failed it: the words for the log, once for each two.
    #[must_use]
    pub fn complain(&self, by: IpAddr, peer: SocketAddr, fault: PeerFault) -> Option<String> {
        let site = self.site(by)?;
        if !self.sites.lock().complain(&site, by, peer, self.now()) {
            return None;
        }
        let what = match fault {
            PeerFault::Slow => "does not give out the boot files that it holds, or is slow",
            PeerFault::Wrong => "gave out a boot file with a wrong hash",
        };
        tracing::warn!(site, machine = %by, neighbour = %peer, "a neighbour {what}");
        Some(format!(
            "the neighbour {peer} {what}; this machine goes on with another one, or with the server"
        ))
    }

    /// The agent `key` of the machine `mac` gives out `held` at `at`.
    pub fn holding(&self, key: PublicKey, mac: Option<Mac>, at: SocketAddr, held: BTreeSet<Hash>) {
        if let Some(site) = self.site(at.ip()) {
            let who = Who { mac, address: at.ip() };
            self.sites.lock().holding(&site, key, who, at, held, self.now());
        }
    }

    /// See [`Sites::gone`].
    pub fn gone(&self, key: &PublicKey) {
        self.sites.lock().gone(key, self.now());
    }

    /// What agents are to be told now, and which of them should stay for how long; see [`Sites::tick`] and
    /// [`Sites::needed`].
    #[must_use]
    pub fn tick(&self) -> (Vec<Hold>, BTreeMap<PublicKey, Duration>) {
        let now = self.now();
        let expects = |site: &str| self.expects.get().is_some_and(|expects| expects.0(site));
        let mut sites = self.sites.lock();
        (sites.tick(now), sites.needed(expects, now))
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_on_the_servers_own_network_is_sent_to_a_neighbour() {
        let own = "10.0.0.1/24".parse().ok();
        let peers = |mode| Peers::new(mode, Traffic::default(), own);
        let site = |mode, ip: &str| peers(mode).site(ip.parse().unwrap());
        assert_eq!(site(BootPeers::Verified, "10.0.0.77"), None);
        assert_eq!(site(BootPeers::Any, "127.0.0.1"), None);
        assert_eq!(site(BootPeers::Any, "fe80::1"), None);
        assert_eq!(site(BootPeers::Off, "10.0.1.77"), None);
        assert_eq!(site(BootPeers::Verified, "10.0.1.77").as_deref(), Some("10.0.1.0/24"));
    }

    #[test]
    fn one_stays_where_the_fleet_expects_others() {
        let peers = Peers::default();
        let at: SocketAddr = "10.0.1.50:8069".parse().unwrap();
        let key = common::trust::KeyPair::from_secret([5; 32]).public();
        peers.holding(key, None, at, BTreeSet::new());
        assert!(peers.tick().1.is_empty());
        peers.expect(|site| site == "10.0.1.0/24");
        assert_eq!(peers.tick().1.into_keys().collect::<Vec<_>>(), [key]);
    }
}
