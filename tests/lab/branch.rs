//! Owns what a branch office has besides its machines: a DHCP server of its own that knows nothing of swarmboot, and the
//! DHCP relay agent of its router, which passes requests on to the server's network (`ip helper-address`). Both are
//! dnsmasq. Touches one network each.

use std::path::Path;

use anyhow::Result;

use crate::dnsmasq::Dnsmasq;
use crate::net::Net;

/// A dnsmasq of a branch, which runs until it is dropped.
#[derive(Debug)]
pub struct Branch(Dnsmasq);

/// The addresses that a branch's DHCP server gives out.
#[derive(Debug)]
pub struct Addresses<'a> {
    /// The first and the last one.
    pub range: (&'a str, &'a str),
    /// The branch's router.
    pub router: &'a str,
    /// Ethernet addresses that always get the same IPv4 address.
    pub fixed: Vec<(String, String)>,
}

impl Branch {
    /// The DHCP server of the branch, on `interface` of `net`. Its files go to `folder`.
    ///
    /// # Errors
    /// When dnsmasq is not installed, or the port is in use.
    pub fn addresses(net: &Net, interface: &str, given: &Addresses<'_>, folder: &Path) -> Result<Self> {
        let mut words = vec![
            format!("--interface={interface}"),
            format!("--dhcp-range={},{},255.255.255.0,1h", given.range.0, given.range.1),
            format!("--dhcp-option=option:router,{}", given.router),
            format!("--dhcp-leasefile={}", folder.join("branch.leases").display()),
            "--dhcp-authoritative".to_owned(),
        ];
        words.extend(given.fixed.iter().map(|(mac, address)| format!("--dhcp-host={mac},{address}")));
        Dnsmasq::run(net, "branch-dhcp", &words, folder).map(Self)
    }

    /// The relay agent of the branch's router, whose address there is `own`, to the DHCP server at `server`.
    ///
    /// # Errors
    /// When dnsmasq is not installed, or the port is in use.
    pub fn relay_agent(net: &Net, own: &str, server: &str, folder: &Path) -> Result<Self> {
        let words = [format!("--dhcp-relay={own},{server}")];
        Dnsmasq::run(net, "branch-relay-agent", &words, folder).map(Self)
    }

    /// Its whole log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.0.log()
    }
}
