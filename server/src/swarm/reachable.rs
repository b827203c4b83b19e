//! Core: at which addresses an agent's peers are told to reach it, and whom it serves boot files. Owns that choice;
//! touches nothing but addresses.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use libp2p::multiaddr::{Multiaddr, Protocol};

use common::swarm::behaviour::ip;

/// A subnet that belongs to a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteNet {
    /// The site's name, as in an admission.
    pub site: String,
    /// Its agents may be told to peers at addresses of this subnet.
    pub subnet: Ipv4Net,
}

/// The subnets, address and prefix length, of the site that `address` is at: those of the configuration, else its /24.
/// An agent there gives out boot files to no others.
pub(super) fn nets_around(address: IpAddr, sites: &[SiteNet]) -> Vec<(Ipv4Addr, u8)> {
    let IpAddr::V4(address) = address.to_canonical() else { return vec![] };
    let around = sites.iter().filter(|net| net.subnet.contains(&address));
    let site = around.max_by_key(|net| net.subnet.prefix_len()).map(|net| net.site.as_str());
    let nets = sites.iter().filter(|net| Some(net.site.as_str()) == site);
    let nets: Vec<(Ipv4Addr, u8)> =
        nets.map(|net| (net.subnet.network(), net.subnet.prefix_len())).take(ADDRESSES_MAX).collect();
    if nets.is_empty() { vec![(address, 24)] } else { nets }
}

/// Addresses of one agent that are read, and that its peers are told, at the most.
const ADDRESSES_MAX: usize = 8;

/// Where peers can reach an agent that connected from `remote`: at the address it connected from, on the ports it
/// listens on; then at the addresses it names itself, as far as they are in the subnets `nets` of its site (behind a
/// NAT, peers reach each other at addresses that the server does not see). Any other address is dropped, or an agent
/// could make its peers connect to hosts that have nothing to do with the swarm.
pub(super) fn reachable(remote: &Multiaddr, own: &[String], nets: &[Ipv4Net]) -> Vec<String> {
    let own: Vec<Multiaddr> =
        own.iter().take(ADDRESSES_MAX).filter_map(|address| address.parse().ok()).collect();
    let seen = ip(remote);
    let mut list: Vec<Multiaddr> = Vec::new();
    for address in &own {
        if let (Some(seen), Some(port)) = (seen, port(address)) {
            list.push(Multiaddr::from(seen).with(Protocol::Tcp(port)));
        }
    }
    // A loopback address is of use only to agents on the server's own host.
    let local = seen.is_some_and(|seen| seen.is_loopback());
    let near = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => nets.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(_) => false,
    };
    list.extend(own.into_iter().filter(|own| {
        ip(own).is_some_and(|ip| if ip.is_loopback() { local } else { Some(ip) == seen || near(ip) })
    }));
    let mut known = HashSet::new();
    list.retain(|address| known.insert(address.clone()));
    list.truncate(ADDRESSES_MAX);
    list.iter().map(ToString::to_string).collect()
}

fn port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_reached_where_it_came_from() {
        let remote: Multiaddr = "/ip4/10.0.0.7/tcp/51234".parse().unwrap();
        let own = ["/ip4/127.0.0.1/tcp/4001", "/ip4/10.0.0.7/tcp/4001", "/ip4/172.17.0.1/tcp/4001", "x"]
            .map(ToOwned::to_owned);
        assert_eq!(reachable(&remote, &own, &[]), ["/ip4/10.0.0.7/tcp/4001"]);
        let near = ["172.17.0.0/16".parse().unwrap()];
        assert_eq!(reachable(&remote, &own, &near), ["/ip4/10.0.0.7/tcp/4001", "/ip4/172.17.0.1/tcp/4001"]);
        let local: Multiaddr = "/ip4/127.0.0.1/tcp/51234".parse().unwrap();
        assert_eq!(reachable(&local, &own[..1], &[]), ["/ip4/127.0.0.1/tcp/4001"]);
    }

    #[test]
    fn boot_files_are_for_the_site() {
        let net =
            |site: &str, subnet: &str| SiteNet { site: site.to_owned(), subnet: subnet.parse().unwrap() };
        let sites = [net("a", "10.1.0.0/16"), net("a", "10.9.0.0/24"), net("lab", "10.1.2.0/24")];
        let around = |ip: &str| nets_around(ip.parse().unwrap(), &sites);
        assert_eq!(around("10.9.0.7"), [([10, 1, 0, 0].into(), 16), ([10, 9, 0, 0].into(), 24)]);
        assert_eq!(around("10.1.2.7"), [([10, 1, 2, 0].into(), 24)]);
        assert_eq!(around("192.0.2.7"), [([192, 0, 2, 7].into(), 24)]);
        assert!(around("fe80::1").is_empty());
    }

    #[test]
    fn nobody_is_sent_to_an_address_that_an_agent_only_names() {
        let remote: Multiaddr = "/ip4/10.0.0.7/tcp/51234".parse().unwrap();
        let own =
            ["/ip4/192.0.2.9/tcp/22", "/ip4/10.0.0.8/tcp/445", "/dns4/example.com/tcp/80", "/ip6/::1/tcp/9"]
                .map(ToOwned::to_owned);
        let reached = reachable(&remote, &own, &[]);
        assert!(reached.iter().all(|address| address.starts_with("/ip4/10.0.0.7/")), "{reached:?}");
    }
}
