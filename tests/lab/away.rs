//! Owns a branch of virtual machines far from the server: the rack's segment with its router, an office with a DHCP
//! server that knows nothing of us, and a line with a rate, at whose other end the server's own network is. Touches the
//! namespaces of both ends.

use std::path::Path;

use anyhow::Result;

use crate::branch::{Addresses, Branch};
use crate::net::{Net, Segment, Traffic};
use crate::process;
use crate::wires::{self, Mbit};

/// The server's address, and the router's at its end of the line.
pub const SERVER: &str = "10.90.0.1";
const ROUTER: &str = "10.90.0.2";

/// A branch. Dropping it removes the line and the office.
#[derive(Debug)]
pub struct Away {
    /// The network in which the server runs; its interface is `eth0`, its address [`SERVER`].
    pub server: Net,
    /// The branch's office, in which other programs of the branch run; its interface is `eth0`.
    pub dhcp_host: Net,
    _addresses: Branch,
    relay_agent: Option<Branch>,
}

impl Away {
    /// Makes `segment` of `net` a branch whose line to the server carries `rate` in both directions. Its router passes
    /// DHCP on to the server. Files go to `folder`.
    ///
    /// # Errors
    /// When a namespace cannot be made, or dnsmasq is not installed.
    pub fn new(net: &Net, segment: Segment, rate: Mbit, folder: &Path) -> Result<Self> {
        let server = Net::new()?;
        net.ip(&format!("link add wan type veth peer name eth0 netns {}", server.name()))?;
        net.ip(&format!("address add {ROUTER}/24 dev wan"))?;
        net.ip("link set wan up")?;
        server.ip(&format!("address add {SERVER}/24 dev eth0"))?;
        server.ip("link set eth0 up")?;
        server.ip(&format!("route add {}/24 via {ROUTER}", segment.address(0)))?;
        process::output_of(net.command("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"]))?;
        wires::shape(net, "wan", rate)?;
        wires::shape(&server, "eth0", rate)?;
        let dhcp_host = host(net, segment, 2)?;
        let (first, last, router) = (segment.address(100), segment.address(199), segment.address(1));
        let given = Addresses { range: (&first, &last), router: &router, fixed: vec![] };
        let addresses = Branch::addresses(&dhcp_host, "eth0", &given, folder)?;
        let relay_agent = Some(Branch::relay_agent(net, &router, SERVER, folder)?);
        Ok(Self { server, dhcp_host, _addresses: addresses, relay_agent })
    }

    /// Stops the router's relay agent: what answers DHCP besides the office's server has to be at the branch.
    pub fn without_relay_agent(&mut self) {
        self.relay_agent = None;
    }

    /// What the line has carried so far: `from_machine` into the branch, `to_machine` out of it.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn line(&self, net: &Net) -> Result<Traffic> {
        net.traffic("wan")
    }
}

/// Adds a host to `segment` of `net`: a namespace with the interface `eth0`, whose address there ends in `last`.
///
/// # Errors
/// When the namespace cannot be made.
pub fn host(net: &Net, segment: Segment, last: u8) -> Result<Net> {
    let host = Net::new()?;
    let port = format!("host{last}");
    net.ip(&format!("link add {port} type veth peer name eth0 netns {}", host.name()))?;
    net.ip(&format!("link set {port} master {} up", segment.interface()))?;
    host.ip(&format!("address add {}/24 dev eth0", segment.address(last)))?;
    host.ip("link set eth0 up")?;
    host.ip(&format!("route add default via {}", segment.address(1)))?;
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_office_reaches_the_server_over_the_line() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (net, segment) = Net::with_segment().unwrap();
        let away = Away::new(&net, segment, Some(20.0), folder.path()).unwrap();
        let knock = format!("echo > /dev/tcp/{SERVER}/9");
        // Nobody listens there: what comes back is a reset, which has crossed the line.
        assert!(process::output_of(away.dhcp_host.command("bash").args(["-c", &knock])).is_err());
        let carried = away.line(&net).unwrap();
        assert!(carried.from_machine > 0 && carried.to_machine > 0, "{carried:?}");
    }
}
