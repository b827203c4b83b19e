//! Core: who asks for boot files, and what it is told: the words between the scripts, the agents and this room. Touches
//! `common`.

use std::net::{IpAddr, SocketAddr};

use common::id::Mac;
use common::trust::PublicKey;
use common::wire::objects::Object;

/// A machine as its requests show it: by its Ethernet address where that is known, else by its IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// The Ethernet address that it boots from.
    pub mac: Option<Mac>,
    /// Where the request came from. Firmware and loader of one machine may have different ones.
    pub address: IpAddr,
}

impl Who {
    /// Whether both are the same machine, as far as that can be told.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self.mac, other.mac) {
            (Some(one), Some(two)) => one == two,
            _ => self.address == other.address,
        }
    }
}

/// A request for the boot script.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The machine.
    pub who: Who,
    /// The files that it would boot with.
    pub files: &'a [Object],
    /// Whether a neighbour may give them to it: it can check them, or the admin lets it take them unchecked.
    pub may_share: bool,
    /// Whether its agent will join the swarm after this boot. A machine without an order waits in its loader, which
    /// serves nobody.
    pub ordered: bool,
    /// Machines of its site with an order that have not begun it, this one included.
    pub expected: usize,
    /// What the site's line carries, in bytes a second; `None` while that is not known.
    pub rate: Option<u64>,
}

/// What a machine is told that asks for boot files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Take them from the server.
    Server,
    /// Take them from these neighbours, the first first, and else from the server. Never empty.
    Peers(Vec<SocketAddr>),
    /// Ask again after so many seconds: a neighbour is fetching them.
    Wait(u32),
}

/// What an agent is told: hold these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The agent.
    pub agent: PublicKey,
    /// The files that it lacks.
    pub objects: Vec<Object>,
    /// Neighbours that have them; empty when it is to fetch them from the server, for its site.
    pub peers: Vec<SocketAddr>,
}
