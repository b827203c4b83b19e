//! Owns the rack's cables: one network namespace with a bridge for each segment. The bridge's own address is the
//! server's side, so a server that runs in the namespace has one interface for each segment; machines hang on taps.
//! Touches nothing outside its namespace, and is root's affair.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::names;
use crate::process;

/// The rack's network. It goes away, with everything that runs in it, when this is dropped.
#[derive(Debug)]
pub struct Net {
    namespace: String,
    segments: RefCell<u8>,
    taps: RefCell<u32>,
}

/// One segment: a bridge. Copies name the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment(u8);

impl Segment {
    /// The bridge, which is the server's interface on this segment.
    #[must_use]
    pub fn interface(self) -> String {
        format!("br{}", self.0)
    }

    /// An address on this segment. The server's ends in 1.
    #[must_use]
    pub fn address(self, last: u8) -> String {
        format!("10.77.{}.{last}", self.0)
    }

    /// A range of addresses to give out: `FIRST-LAST`.
    #[must_use]
    pub fn range(self, first: u8, last: u8) -> String {
        format!("{}-{}", self.address(first), self.address(last))
    }
}

/// What has passed an interface, seen from the bridge: what was received came from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that came in from the machine.
    pub from_machine: u64,
    /// Bytes that went out to the machine.
    pub to_machine: u64,
}

impl Net {
    /// A namespace without any segment yet.
    ///
    /// # Errors
    /// When this is not root, or the kernel has no namespaces.
    pub fn new() -> Result<Self> {
        let namespace = names::name();
        process::output("ip", ["netns", "add", &namespace]).context("cannot make a network namespace")?;
        let net = Self { namespace, segments: RefCell::new(0), taps: RefCell::new(0) };
        net.ip("link set lo up")?;
        Ok(net)
    }

    /// A namespace with one segment, which is what most flows want.
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

    /// A new tap on `segment`, for one NIC of a machine.
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

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// What a person types to get a shell inside the namespace.
    #[must_use]
    pub fn shell(&self) -> String {
        format!("ip netns exec {} bash", self.namespace)
    }

    /// Lets at most `mbit` Mbit/s go out of `interface`: from a tap to its machine, from a bridge to nobody.
    ///
    /// # Errors
    /// When the kernel has no token bucket.
    pub fn limit(&self, interface: &str, mbit: u32) -> Result<()> {
        // Offloaded packets are up to 64 KiB; a smaller bucket would drop each of them.
        let rate = format!("{mbit}mbit");
        let words =
            ["-n", &self.namespace, "qdisc", "replace", "dev", interface, "root", "tbf", "rate", &rate];
        process::output("tc", words.iter().chain(&["burst", "128k", "latency", "50ms"])).map(drop)
    }

    /// What has passed `interface` so far.
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

    /// `ip` inside the namespace, with plain words.
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

/// Ends what runs in a namespace of ours and removes it; its bridges and taps go with it.
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
