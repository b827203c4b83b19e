//! Core: at which addresses an agent's peers are told to reach it. Owns that choice; touches nothing but addresses.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::Ipv4Net;
use libp2p::multiaddr::{Multiaddr, Protocol};

use common::swarm::behaviour::ip;

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
    fn nobody_is_sent_to_an_address_that_an_agent_only_names() {
        let remote: Multiaddr = "/ip4/10.0.0.7/tcp/51234".parse().unwrap();
        let own =
            ["/ip4/192.0.2.9/tcp/22", "/ip4/10.0.0.8/tcp/445", "/dns4/example.com/tcp/80", "/ip6/::1/tcp/9"]
                .map(ToOwned::to_owned);
        let reached = reachable(&remote, &own, &[]);
        assert!(reached.iter().all(|address| address.starts_with("/ip4/10.0.0.7/")), "{reached:?}");
    }
}
