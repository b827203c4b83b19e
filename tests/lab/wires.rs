//! Owns a network of shaped lines: hosts, each with a namespace and a line with rates of its own, at sites behind slow
//! lines of theirs. Hosts and lines are real to the kernel; only delay is missing, as the kernels here have no netem.
//!
//! The core is the server's LAN, 10.88.0.0/24. A site behind a line has a router in a namespace of its own and the
//! network 10.88.N.0/24.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::net::Net;
use crate::process;

/// The size of a token bucket, in bytes: offloaded packets are up to 64 KiB, and a smaller bucket takes them apart.
const BURST: f64 = 131_072.0;
/// Its size on a line below `SLOW` Mbit/s, where the larger one would be a queue by itself: 210 ms at 5 Mbit/s.
const SLOW_BURST: f64 = 16_384.0;
const SLOW: f64 = 10.0;
/// How long a packet may wait for tokens before it is dropped, in ms, beyond the bucket's own size: about the buffer of
/// an ordinary router.
const LATENCY: f64 = 100.0;

/// The TCP congestion control that Debian's kernel uses by default, whatever the host here is set to.
const CONGESTION: &str = "cubic";
/// The file of the ones that namespaces may choose. A host that is set to another may lack `CONGESTION` in here.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// A rate in Mbit/s; none for no limit.
pub type Mbit = Option<f64>;

/// The rates of a line, seen from the host at its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// The rate at which the host can send.
    pub up: Mbit,
    /// The rate at which it can receive.
    pub down: Mbit,
    /// Packets of a thousand that are lost on their way from the host.
    pub lost: u32,
}

impl Line {
    /// A line that loses nothing.
    #[must_use]
    pub fn new(up: Mbit, down: Mbit) -> Self {
        Self { up, down, lost: 0 }
    }
}

/// The lines and the sites. Hosts are made by it and belong to the caller.
#[derive(Debug)]
pub struct Wires {
    core: Net,
    sites: Vec<Net>,
    hosts: std::cell::Cell<u8>,
    _allowed: Allowed,
}

/// One computer: a namespace with the interface `eth0`.
#[derive(Debug)]
pub struct Host {
    /// The namespace in which its programs run.
    pub net: Net,
    /// Its IPv4 address.
    pub address: String,
    /// The far end of its line: the number of the site that it is in, 0 for the core, and the interface's name.
    far: (usize, String),
}

/// What a line has carried, in bytes on the wire, headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes from the host, or out of the site.
    pub up: u64,
    /// Bytes to the host, or into the site.
    pub down: u64,
}

impl Wires {
    /// A core, and a site behind a line of each of these rates, the same in both directions.
    ///
    /// # Errors
    /// When this is not root, or the kernel lacks a feature that is needed.
    pub fn new(wan: &[Mbit]) -> Result<Self> {
        let allowed = Allowed::new()?;
        let core = lan(0)?;
        let mut sites = vec![];
        for (number, rate) in (1u8..).zip(wan) {
            let site = lan(number)?;
            let port = format!("wan{number}");
            let ends = format!("link add {port} type veth peer name wan netns {}", site.name());
            core.ip(&ends)?;
            core.ip(&format!("address add 10.89.{number}.1/24 dev {port}"))?;
            core.ip(&format!("link set {port} up"))?;
            site.ip(&format!("address add 10.89.{number}.2/24 dev wan"))?;
            site.ip("link set wan up")?;
            core.ip(&format!("route add 10.88.{number}.0/24 via 10.89.{number}.2"))?;
            site.ip(&format!("route add default via 10.89.{number}.1"))?;
            shape(&core, &port, *rate)?;
            shape(&site, "wan", *rate)?;
            sites.push(site);
        }
        Ok(Self { core, sites, hosts: std::cell::Cell::new(0), _allowed: allowed })
    }

    /// The router of `site`, with its LAN on `br0` and, behind a line, the line on `wan`.
    ///
    /// # Errors
    /// When there is no such site.
    pub fn router(&self, site: usize) -> Result<&Net> {
        self.site(site)
    }

    fn site(&self, site: usize) -> Result<&Net> {
        match site {
            0 => Ok(&self.core),
            number => self.sites.get(number - 1).with_context(|| format!("there is no site {number}")),
        }
    }

    /// Adds a host at `site`: 0 is the core, the sites behind lines count from 1.
    ///
    /// # Errors
    /// When there is no such site, or its addresses are used up.
    pub fn host(&self, site: usize, line: Line) -> Result<Host> {
        let number = self.hosts.get();
        ensure!(number < 240, "too many hosts");
        self.hosts.set(number + 1);
        let (net, lan) = (Net::new()?, self.site(site)?);
        let port = format!("host{number}");
        lan.ip(&format!("link add {port} type veth peer name eth0 netns {}", net.name()))?;
        lan.ip(&format!("link set {port} master br0 up"))?;
        let address = format!("10.88.{site}.{}", number + 10);
        net.ip(&format!("address add {address}/24 dev eth0"))?;
        net.ip("link set eth0 up")?;
        net.ip(&format!("route add default via 10.88.{site}.1"))?;
        let congestion = format!("net.ipv4.tcp_congestion_control={CONGESTION}");
        process::output_of(net.command("sysctl").args(["-q", "-w", &congestion]))?;
        if line.lost > 0 {
            // A loss drops single packets, not the 64 KiB that offloading makes of forty of them.
            net.ip("link set eth0 gso_max_segs 1")?;
            lose(lan, &port, line.lost)?;
        }
        shape(&net, "eth0", line.up)?;
        shape(lan, &port, line.down)?;
        Ok(Host { net, address, far: (site, port) })
    }

    /// What a host's line has carried so far.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn of_host(&self, host: &Host) -> Result<Carried> {
        let (site, port) = &host.far;
        carried(self.site(*site)?, port)
    }

    /// What the line of a site has carried so far.
    ///
    /// # Errors
    /// When there is no such site behind a line.
    pub fn of_site(&self, site: usize) -> Result<Carried> {
        ensure!(site > 0, "the core is behind no line");
        carried(&self.core, &format!("wan{site}"))
    }
}

/// Lets namespaces choose `CONGESTION`, until it is dropped.
#[derive(Debug)]
struct Allowed {
    /// The host's setting before, where it had to be changed.
    before: Option<String>,
}

impl Allowed {
    fn new() -> Result<Self> {
        let before = fs::read_to_string(ALLOWED).with_context(|| ALLOWED.to_owned())?;
        if before.split_whitespace().any(|name| name == CONGESTION) {
            return Ok(Self { before: None });
        }
        fs::write(ALLOWED, format!("{} {CONGESTION}", before.trim())).with_context(|| {
            format!("this computer's namespaces may not use TCP's {CONGESTION}: {ALLOWED}")
        })?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            fs::write(ALLOWED, before).ok();
        }
    }
}

/// A namespace with the bridge `br0` of site `number`, which forwards packets.
fn lan(number: u8) -> Result<Net> {
    let net = Net::new()?;
    net.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
    net.ip(&format!("address add 10.88.{number}.1/24 dev br0"))?;
    net.ip("link set br0 up")?;
    process::output_of(net.command("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"]))?;
    Ok(net)
}

/// Limits what `interface` of `net` sends to `rate`.
pub(crate) fn shape(net: &Net, interface: &str, rate: Mbit) -> Result<()> {
    let Some(rate) = rate else { return Ok(()) };
    let (burst, latency) = if rate < SLOW {
        (SLOW_BURST, LATENCY - SLOW_BURST * 8.0 / (rate * 1000.0))
    } else {
        (BURST, LATENCY)
    };
    let rate = format!("{}kbit", (rate * 1000.0).round());
    let (burst, latency) = (format!("{burst}b"), format!("{:.0}ms", latency.max(1.0)));
    let words = ["qdisc", "add", "dev", interface, "root", "tbf", "rate", &rate];
    process::output_of(net.command("tc").args(words).args(["burst", &burst, "latency", &latency])).map(drop)
}

/// Drops `lost` packets of a thousand that come from the host behind `port`.
fn lose(lan: &Net, port: &str, lost: u32) -> Result<()> {
    let rules = format!(
        "add table netdev loss\n\
         add chain netdev loss {port} {{ type filter hook ingress device {port} priority 0; }}\n\
         add rule netdev loss {port} numgen random mod 1000 < {lost} drop"
    );
    process::output_of(lan.command("nft").arg(rules)).map(drop)
}

fn carried(net: &Net, port: &str) -> Result<Carried> {
    let traffic = net.traffic(port)?;
    Ok(Carried { up: traffic.from_machine, down: traffic.to_machine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_fast_as_it_was_ordered() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let wires = Wires::new(&[Some(20.0)]).unwrap();
        let here = wires.host(0, Line::new(Some(50.0), Some(50.0))).unwrap();
        let there = wires.host(1, Line::new(None, None)).unwrap();
        // No process listens on that port: the packet that comes back over the line is the reset.
        let knock = format!("echo > /dev/tcp/{}/9", there.address);
        assert!(process::output_of(here.net.command("bash").args(["-c", &knock])).is_err());
        let carried = wires.of_site(1).unwrap();
        assert!(carried.down > 0 && carried.up > 0, "{carried:?}");
        assert!(wires.of_host(&here).unwrap().up > 0);
        let rate = |net: &Net, port: &str| {
            process::output_of(net.command("tc").args(["qdisc", "show", "dev", port])).unwrap()
        };
        assert!(rate(&here.net, "eth0").contains("rate 50Mbit"));
        assert!(rate(&wires.core, "wan1").contains("rate 20Mbit"));
    }
}
