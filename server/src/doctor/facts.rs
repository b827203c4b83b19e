//! Core: what `doctor` finds out, and how it says what that means. Touches nothing.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Serialize;

use super::firewall::Passes;
use crate::dhcp4::Answer;
use crate::mistakes::Mistake;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Could not be found out; the cure says how it can.
    Unknown,
    /// It works, but not for all machines, or not for long.
    Warning,
    /// Machines will not be served.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub topic: &'static str,
    /// How it is to be taken.
    pub severity: Severity,
    /// What was found, as a sentence.
    pub text: String,
    /// What to do about it.
    pub cure: Option<String>,
}

/// All that was found out. What could not be is `None`, or a text that says why.
#[derive(Debug, Default)]
pub struct Facts {
    /// Whether this ran as root.
    pub root: bool,
    /// Whether a server of ours answers on this host, and its warnings.
    pub server: Option<Vec<String>>,
    /// The mistakes in the configuration.
    pub mistakes: Vec<Mistake>,
    /// Whether the server gives out addresses.
    pub gives_addresses: bool,
    /// The interface that machines are on.
    pub link: Link,
    /// Who answers machines there, or why that could not be asked.
    pub answers: Option<Result<Vec<Answer>, String>>,
    /// The ports that the server needs.
    pub ports: Vec<Port>,
    /// The boot kit that machines get.
    pub kit: Kit,
    /// The NICs of known machines that have no driver: machine and device.
    pub undriven: Vec<(String, String)>,
    /// The host itself.
    pub host: Host,
}

/// The interface.
#[derive(Debug, Default)]
pub struct Link {
    /// Its name; none where none is configured.
    pub name: Option<String>,
    /// The names of all interfaces that have an address.
    pub others: Vec<String>,
    /// Its first address with prefix.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Whether it is up and has a carrier; none where that cannot be read.
    pub carrier: Option<bool>,
    /// Its MTU, and those of the interfaces that it is made of.
    pub mtu: Option<u32>,
    /// The parts of a bridge, bond or VLAN: names and MTUs.
    pub parts: Vec<(String, u32)>,
}

/// A port that the server needs.
#[derive(Debug, Clone)]
pub struct Port {
    /// `udp` or `tcp`.
    pub protocol: &'static str,
    /// Its number.
    pub number: u16,
    /// What it is for.
    pub purpose: &'static str,
    /// The programs that have it: name and process, as far as they can be seen; empty when it is free.
    pub holders: Vec<String>,
    /// Whether it could be opened beside them.
    pub opens: Option<bool>,
    /// Whether the firewall lets packets to it in; none where that cannot be told.
    pub passes: Option<Passes>,
}

/// The boot kit that machines get.
#[derive(Debug, Default)]
pub enum Kit {
    /// The folder of kits cannot be read.
    #[default]
    Unknown,
    /// There is none.
    None,
    /// It is damaged, and why.
    Damaged(String),
    /// Its name, its boot programs, and what it lacks.
    There {
        /// The kit's name.
        name: String,
        /// The file names of its network boot programs.
        programs: Vec<String>,
        /// What it lacks, each with what to do about it.
        warnings: Vec<String>,
    },
}

/// The host itself.
#[derive(Debug, Default)]
pub struct Host {
    /// The year of its clock.
    pub year: i16,
    /// Whether its clock is set over the network.
    pub synchronised: Option<bool>,
    /// The state folder.
    pub state: PathBuf,
    /// Free bytes there.
    pub free: Option<u64>,
    /// The owner of the state folder, and the user that the service runs as, where they differ.
    pub foreign_owner: Option<(String, String)>,
    /// Bytes of memory that are free to use.
    pub memory: Option<u64>,
    /// How many files a server may have open.
    pub files: Option<u64>,
    /// Kernels in `/boot` that the service's user cannot read.
    pub closed_kernels: Vec<PathBuf>,
    /// Whether SELinux enforces its rules.
    pub selinux: bool,
}
