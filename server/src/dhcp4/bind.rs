//! The configuration of DHCP, and everything that can fail for a reason outside the network: interface, range and
//! ports, before anything runs. Touches sockets, which are opened here and used in `socket`.

use std::io;
use std::sync::Arc;

use common::limits::DHCP_RANGE_MAX;
use ipnet::Ipv4Net;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::arp::Arp;
use super::decide::{Mode, ServerProfile};
use super::networks::Networks;
use super::place::Range;
use super::rivals::{Ears, Rival};
use super::wire::{self, Frames, Interface, InterfaceError, Routed};
use crate::boot::choose::Programs;
use crate::boot::tftp::{Served, roomy};
use crate::metrics::Metrics;
use crate::traffic::Traffic;

/// The configuration of DHCP.
#[derive(Debug, Clone)]
pub struct Config {
    /// The interface's name. No other is received from or sent to.
    pub interface: String,
    /// Whether this is the network's DHCP server, or a proxy beside one.
    pub mode: Mode,
    /// The TCP port of the machines' HTTP.
    pub http_port: u16,
    /// Whether machines are answered that no admin has named, approved or ordered anything for; a relay's server may change
    /// it.
    pub discovery: watch::Receiver<bool>,
    /// The boot programs that TFTP and HTTP serve; changes when a boot kit is imported.
    pub programs: watch::Receiver<Programs>,
    /// The networks of configured sites, which are served besides the interface's own.
    pub sites: Vec<Ipv4Net>,
    /// Whether no other DHCP server serves this link, so that clients with addresses of other networks may be refused.
    pub authoritative: bool,
}

/// Why DHCP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// The interface does not exist or has no IPv4 address.
    #[error("DHCP cannot be served on interface {name}")]
    Interface {
        /// The interface's name, as it was asked for.
        name: String,
        /// The error underneath.
        #[source]
        source: InterfaceError,
    },
    /// The range is not within the interface's network, is too large, or ends before it starts.
    #[error("the DHCP range {}-{} cannot be used: {why}", .range.start, .range.end)]
    Range {
        /// First and last address, as they were asked for.
        range: Range,
        /// What is wrong with it.
        why: String,
    },
    /// A port cannot be opened.
    #[error("UDP port {port} cannot be opened on {interface}")]
    Port {
        /// 67 or 4011, unless a test serves on others.
        port: u16,
        /// The name of the interface that it is opened on.
        interface: String,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// Receiving from a socket failed.
    #[error("UDP port {port} failed")]
    Receive {
        /// 67 or 4011, unless a test serves on others.
        port: u16,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
}

impl DhcpError {
    /// What an admin can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Interface { source: InterfaceError::NoAddress { name }, .. } => {
                format!("give it one: ip address add 10.0.0.1/24 dev {name}")
            }
            Self::Interface { .. } => "name one of this host's interfaces: ip -brief address".to_owned(),
            Self::Range { .. } => "choose addresses of the interface's own network".to_owned(),
            Self::Port { source, port, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    format!(
                        "another program has it, see: ss -lunp 'sport = :{port}'; stop it, or let it share the port"
                    )
                }
                io::ErrorKind::PermissionDenied => {
                    "run as root, or give the program CAP_NET_BIND_SERVICE and CAP_NET_RAW".to_owned()
                }
                _ => "see the cause".to_owned(),
            },
            Self::Receive { .. } => "was the interface taken away?".to_owned(),
        }
    }
}

/// The sockets and the configuration; nothing is received yet.
#[derive(Debug)]
pub struct Bound {
    pub(super) interface: Interface,
    pub(super) profile: ServerProfile,
    pub(super) dhcp: UdpSocket,
    pub(super) pxe: UdpSocket,
    pub(super) frames: Option<Frames>,
    pub(super) routed: Option<Routed>,
    pub(super) arp: Option<Arp>,
    pub(super) ears: Option<Ears>,
    pub(super) rivals: watch::Sender<Vec<Rival>>,
    pub(super) authoritative: bool,
    pub(super) client_port: u16,
    pub(super) programs: watch::Receiver<Programs>,
    pub(super) discovery: watch::Receiver<bool>,
    pub(super) networks: Networks,
    pub(super) served: watch::Sender<Served>,
    pub(super) traffic: Traffic,
    pub(super) metrics: Metrics,
}

/// Opens both ports on the interface. Must be called inside a tokio runtime.
///
/// # Errors
///
/// When the interface, the range or a port cannot be used; see [`DhcpError::hint`].
pub fn bind(config: Config) -> Result<Bound, DhcpError> {
    bind_at(config, 67, 4011, 68)
}

pub(super) fn bind_at(config: Config, dhcp: u16, pxe: u16, client_port: u16) -> Result<Bound, DhcpError> {
    let interface = wire::interface_address(&config.interface)
        .map_err(|source| DhcpError::Interface { name: config.interface.clone(), source })?;
    if let Mode::Full(network) = &config.mode {
        check_range(network.range, &interface)?;
    }
    let open = |port| {
        wire::udp_socket(&interface, port).map_err(|source| DhcpError::Port {
            port,
            interface: interface.name.clone(),
            source,
        })
    };
    let (dhcp, pxe) = (open(dhcp)?, open(pxe)?);
    roomy(&dhcp);
    let frames = Frames::open(&interface)
        .inspect_err(|error| tracing::info!(%error, "no raw frames: DHCP answers will be broadcast"))
        .ok();
    let routed = Routed::open(&interface).ok();
    let arp = match &config.mode {
        Mode::Full(_) => Arp::open(&interface)
            .inspect_err(
                |error| tracing::info!(%error, "no ARP: addresses are given without asking who has them"),
            )
            .ok(),
        Mode::Proxy => None,
    };
    let ears = Ears::open(&interface)
        .inspect_err(|error| tracing::info!(%error, "other servers on the wire will not be noticed"))
        .ok();
    let profile = ServerProfile {
        place: interface.place(),
        http_port: config.http_port,
        mode: config.mode,
        discovery: *config.discovery.borrow(),
        programs: config.programs.borrow().clone(),
    };
    let (programs, discovery) = (config.programs, config.discovery);
    let own = Ipv4Net::new(interface.address, interface.prefix).map(|network| network.trunc());
    let networks = Networks::new(own.into_iter().chain(config.sites).collect());
    let served = watch::Sender::new(Arc::new(networks.all()));
    let authoritative = config.authoritative;
    Ok(Bound {
        interface,
        profile,
        dhcp,
        pxe,
        frames,
        routed,
        arp,
        ears,
        rivals: watch::Sender::new(Vec::new()),
        authoritative,
        client_port,
        programs,
        discovery,
        networks,
        served,
        traffic: Traffic::default(),
        metrics: Metrics::default(),
    })
}

fn check_range(range: Range, interface: &Interface) -> Result<(), DhcpError> {
    let place = interface.place();
    let wrong = |why: String| Err(DhcpError::Range { range, why });
    if range.start > range.end {
        return wrong("it ends before it starts".to_owned());
    }
    if range.end.to_bits() - range.start.to_bits() >= DHCP_RANGE_MAX {
        return wrong(format!("it has more than {DHCP_RANGE_MAX} addresses"));
    }
    if !place.reaches(range.start) || !place.reaches(range.end) {
        return wrong(format!("{} is {}/{}", interface.name, interface.address, interface.prefix));
    }
    Ok(())
}
