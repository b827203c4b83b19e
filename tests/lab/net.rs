//! Owns the rack's network: one network namespace with a bridge for each segment. The bridge's own address is the
//! server's, so a server in the namespace has one interface for each segment; machines are connected by taps. Needs
//! root; touches nothing outside its namespace.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::names;
use crate::process;

/// The rack's network. Dropping it removes it, and ends everything that runs in it.
#[derive(Debug)]
pub struct Net {
    namespace: String,
    segments: RefCell<u8>,
    taps: RefCell<u32>,
}

/// One segment: a bridge. Copies mean the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment(u8);

impl Segment {
    /// The bridge's name, which is the server's interface on this segment.
    #[must_use]
    pub fn interface(self) -> String {
        format!("br{}", self.0)
    }

    /// The address on this segment that ends in `last`. The server's ends in 1.
    #[must_use]
    pub fn address(self, last: u8) -> String {
        format!("10.77.{}.{last}", self.0)
    }

    /// The range of addresses from `first` to `last`, for the DHCP server: `FIRST-LAST`.
    #[must_use]
    pub fn range(self, first: u8, last: u8) -> String {
        format!("{}-{}", self.address(first), self.address(last))
    }
}

/// The traffic of an interface, counted at the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received from the machine.
    pub from_machine: u64,
    /// Bytes sent to the machine.
    pub to_machine: u64,
}

impl Net {
    /// A namespace without segments.
    ///
    /// # Errors
    /// When this is not root, or the kernel has no network namespaces.
    pub fn new() -> Result<Self> {
        let namespace = names::name();
        process::output("ip", ["netns", "add", &namespace]).context("cannot make a network namespace")?;
        let net = Self { namespace, segments: RefCell::new(0), taps: RefCell::new(0) };
        net.ip("link set lo up")?;
        Ok(net)
    }

    /// A namespace with one segment, for most flows.
    ///
    /// # Errors
    /// As for [`Net::new`].
    pub fn with_segment() -> Result<(Self, Segment)> {
        let net = Self::new()?;
        let segment = net.segment()?;
        Ok((net, segment))
    }

    /// Adds a segment: `br0` with 10.77.0.1/24, then `br1` with 10.77.1.1/24, and so on.
    ///
    /// # Errors
    /// When the kernel has no bridges.
    pub fn segment(&self) -> Result<Segment> {
        let number = *self.segments.borrow();
        self.segments.replace(number.checked_add(1).context("too many segments")?);
        let segment = Segment(number);
        let bridge = segment.interface();
        // A port forwards at once, as on a switch with portfast: firmware gives up on DHCP before a bridge has learned.
        self.ip(&format!("link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
        self.ip(&format!("address add {}/24 dev {bridge}", segment.address(1)))?;
        self.ip(&format!("link set {bridge} up"))?;
        Ok(segment)
    }

    /// Adds a tap to `segment`, for one NIC of a machine; its name.
    ///
    /// # Errors
    /// When the kernel has no taps.
    pub fn tap(&self, segment: Segment) -> Result<String> {
        let number = *self.taps.borrow();
        self.taps.replace(number + 1);
        let tap = format!("tap{number}");
        self.ip(&format!("tuntap add dev {tap} mode tap"))?;
        self.ip(&format!("link set {tap} master {} up", segment.interface()))?;
        Ok(tap)
    }

    /// A command to run `program` inside the namespace, not started yet.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// The command with which a person gets a shell inside the namespace.
    #[must_use]
    pub fn shell(&self) -> String {
        format!("ip netns exec {} bash", self.namespace)
    }

    /// Takes the link of `interface` down, like a pulled cable, or up again.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn plug(&self, interface: &str, plugged: bool) -> Result<()> {
        self.ip(&format!("link set {interface} {}", if plugged { "up" } else { "down" }))
    }

    /// Limits what is sent out of `interface` to `mbit` Mbit/s: on a tap, what its machine receives.
    ///
    /// # Errors
    /// When the kernel has no token bucket filter.
    pub fn limit(&self, interface: &str, mbit: u32) -> Result<()> {
        // Offloaded packets are up to 64 KiB; a smaller bucket would drop each of them.
        let rate = format!("{mbit}mbit");
        let words =
            ["-n", &self.namespace, "qdisc", "replace", "dev", interface, "root", "tbf", "rate", &rate];
        process::output("tc", words.iter().chain(&["burst", "128k", "latency", "50ms"])).map(drop)
    }

    /// The traffic of `interface` so far.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn traffic(&self, interface: &str) -> Result<Traffic> {
        let words = ["-n", &self.namespace, "-json", "-statistics", "link", "show", "dev", interface];
        let links: serde_json::Value = serde_json::from_str(&process::output("ip", words)?)?;
        let bytes = |way: &str| links[0]["stats64"][way]["bytes"].as_u64().context("ip shows no counters");
        Ok(Traffic { from_machine: bytes("rx")?, to_machine: bytes("tx")? })
    }

    /// The namespace's name in this system.
    pub(crate) fn name(&self) -> &str {
        &self.namespace
    }

    /// Runs `ip` inside the namespace with arguments that contain no spaces.
    pub(crate) fn ip(&self, words: &str) -> Result<()> {
        ensure!(!words.contains(['"', '\'']), "words only");
        let arguments = ["-n", &self.namespace].into_iter().chain(words.split(' '));
        process::output("ip", arguments).map(drop)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        remove_namespace(&self.namespace);
    }
}

/// Ends the processes in a namespace of ours and removes it, with its bridges and taps.
pub(crate) fn remove_namespace(namespace: &str) {
    debug_assert!(namespace.starts_with(names::PREFIX), "{namespace} is not ours");
    let ids = process::output("ip", ["netns", "pids", namespace]).unwrap_or_default();
    for id in ids.split_whitespace().filter_map(|id| id.parse().ok()) {
        let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = process::output("ip", ["netns", "delete", namespace]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_segment() {
        assert_eq!(Segment(0).address(1), "10.77.0.1");
        assert_eq!(Segment(3).range(100, 200), "10.77.3.100-10.77.3.200");
    }

    #[test]
    fn nothing_remains_of_a_network() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (net, segment) = Net::with_segment().unwrap();
        let tap = net.tap(segment).unwrap();
        assert_eq!(net.traffic(&tap).unwrap().from_machine, 0);
        let inside = process::output_of(net.command("ip").args(["-brief", "address"])).unwrap();
        assert!(inside.contains("10.77.0.1/24"), "{inside}");
        let namespace = net.namespace.clone();
        drop(net);
        assert!(!process::output("ip", ["netns", "list"]).unwrap().contains(&namespace));
    }
}
