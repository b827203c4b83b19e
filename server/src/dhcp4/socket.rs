//! Ports 67 and 4011: receive, decide, send. Owns the address pool while it runs; touches sockets, and reads
//! the latest policies without asking anybody, because iPXE waits two seconds for a proxy and no longer.
//!
//! Everything that can fail for a reason outside the network fails in [`bind`], before anything has started.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::id::Mac;
use common::limits::{DHCP_RANGE_MAX, DHCP_REQUEST_BYTES_MAX};
use ipnet::Ipv4Net;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::arp::Arp;
use super::checks::{CHECK_TIME, Checks, Held};
use super::clock::Clock;
use super::decide::{Mode, Port, ServerProfile};
use super::lease::{Lease, Manners, Range};
use super::networks::Networks;
use super::reply::Destination;
use super::rivals::{Ears, Rival, Rivals};
use super::server::{Outcome, Server, clocks, pool};
use super::transaction::Transactions;
use super::wire::{self, Frames, Interface, InterfaceError, Routed};
use crate::boot::choose::Programs;
use crate::boot::tftp::{Served, roomy};
use crate::fleet::boot_policy::{BootPolicies, Sighting};
use crate::noise::Noise;

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The interface's name. Nothing is heard or said on any other.
    pub interface: String,
    /// The network's DHCP server, or beside one.
    pub mode: Mode,
    /// The port of boot HTTP.
    pub http_port: u16,
    /// Whether machines that nobody knows are answered.
    pub discovery: bool,
    /// The boot programs that TFTP and HTTP serve; they change when a boot kit is imported.
    pub programs: watch::Receiver<Programs>,
    /// The networks of sites, which are served beside the interface's own.
    pub sites: Vec<Ipv4Net>,
    /// Whether no other DHCP server serves this wire, so that clients of other networks may be refused.
    pub authoritative: bool,
}

/// Why DHCP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// The interface will not do.
    #[error("DHCP cannot be served on interface {name}")]
    Interface {
        /// Its name.
        name: String,
        /// The error underneath.
        #[source]
        source: InterfaceError,
    },
    /// The range will not do.
    #[error("the DHCP range {}-{} cannot be used: {why}", .range.start, .range.end)]
    Range {
        /// The range.
        range: Range,
        /// What is wrong with it.
        why: String,
    },
    /// A port cannot be had.
    #[error("UDP port {port} cannot be opened on {interface}")]
    Port {
        /// The port.
        port: u16,
        /// The interface.
        interface: String,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// A socket stopped receiving.
    #[error("UDP port {port} failed")]
    Receive {
        /// The port.
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

/// Sockets that are bound, and nothing more yet.
#[derive(Debug)]
pub struct Bound {
    interface: Interface,
    profile: ServerProfile,
    dhcp: UdpSocket,
    pxe: UdpSocket,
    frames: Option<Frames>,
    routed: Option<Routed>,
    arp: Option<Arp>,
    ears: Option<Ears>,
    rivals: watch::Sender<Vec<Rival>>,
    authoritative: bool,
    client_port: u16,
    programs: watch::Receiver<Programs>,
    networks: Networks,
    served: watch::Sender<Served>,
}

/// Opens both ports on the interface. Must be called inside a tokio runtime.
///
/// # Errors
///
/// When interface, range or ports will not do; see [`DhcpError::hint`].
pub fn bind(config: Config) -> Result<Bound, DhcpError> {
    bind_at(config, 67, 4011, 68)
}

fn bind_at(config: Config, dhcp: u16, pxe: u16, client_port: u16) -> Result<Bound, DhcpError> {
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
        discovery: config.discovery,
        programs: config.programs.borrow().clone(),
    };
    let programs = config.programs;
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
        networks,
        served,
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

impl Bound {
    /// The interface that is served.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The networks whose machines are served, as they become known.
    #[must_use]
    pub fn served(&self) -> watch::Receiver<Served> {
        self.served.subscribe()
    }

    /// Other servers that were heard on the wire.
    #[must_use]
    pub fn rivals(&self) -> watch::Receiver<Vec<Rival>> {
        self.rivals.subscribe()
    }

    /// Serves until `cancel`. BootPolicies are read, never waited for; sightings and changed leases are sent
    /// without waiting, and what does not fit is counted in the log. `kept` are the leases of earlier runs, and
    /// every lease that comes over `changed` replaces the one of the same address there.
    ///
    /// # Errors
    ///
    /// When a socket fails.
    pub async fn run(
        mut self,
        policies: watch::Receiver<Arc<BootPolicies>>,
        sightings: mpsc::Sender<Sighting>,
        kept: Vec<Lease>,
        changed: mpsc::Sender<Lease>,
        cancel: CancellationToken,
    ) -> Result<(), DhcpError> {
        let began = tokio::time::Instant::now();
        let clock = Clock::new(clocks(began));
        let manners = Manners { authoritative: self.authoritative, checks: self.arp.is_some() };
        let pool = match &self.profile.mode {
            Mode::Full(network) => {
                let now = clock.now(clocks(began));
                Some(pool(network.range, network.router, &self.profile, kept, manners, now))
            }
            Mode::Proxy => None,
        };
        let mut server = Server {
            pool,
            policies,
            sightings,
            changed,
            networks: self.networks.clone(),
            served: self.served.clone(),
            transactions: Transactions::default(),
            clock,
            began,
            rivals: Rivals::new(self.profile.place.address),
            rivals_told: self.rivals.clone(),
            noise: Noise::default(),
        };
        let mut checks = Checks::default();
        let mut dhcp = [0; DHCP_REQUEST_BYTES_MAX + 1];
        let mut pxe = [0; DHCP_REQUEST_BYTES_MAX + 1];
        loop {
            let (port, received) = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                received = self.dhcp.recv_from(&mut dhcp) => (Port::Dhcp, received),
                received = self.pxe.recv_from(&mut pxe) => (Port::Pxe, received),
                (address, mac) = heard(self.arp.as_ref()) => {
                    if let Some(held) = checks.take(address) {
                        server.found(address, mac);
                        self.answer(&mut server, &mut checks, held);
                    }
                    continue;
                }
                rival = overheard(self.ears.as_ref()) => {
                    server.note_rival(rival, &self.profile);
                    continue;
                }
                () = checks.due() => {
                    for (address, held) in checks.pass(|address| self.ask(address)) {
                        server.free(address);
                        self.answer(&mut server, &mut checks, held);
                    }
                    continue;
                }
            };
            let (length, source) = match received {
                Ok(received) => received,
                // An unreachable client's ICMP answer is reported on the next receive; nothing is wrong here.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(source) => return Err(DhcpError::Receive { port: self.port(port), source }),
            };
            let SocketAddr::V4(source) = source else { continue };
            if self.programs.has_changed().unwrap_or(false) {
                self.profile.programs = self.programs.borrow_and_update().clone();
            }
            let packet = if port == Port::Dhcp { &dhcp[..length] } else { &pxe[..length] };
            self.answer(&mut server, &mut checks, Held { packet: packet.to_vec(), port, source });
        }
    }

    /// Answers a packet, or keeps it until its address has been looked for.
    fn answer(&self, server: &mut Server, checks: &mut Checks, held: Held) {
        let Held { packet, port, source } = &held;
        // No packet is known to panic here; one that did would otherwise stop every machine's boot.
        let outcome = catch_unwind(AssertUnwindSafe(|| server.handle(packet, *port, *source, &self.profile)));
        match outcome {
            Ok(Outcome::Answer(bytes, to)) => self.send(*port, &bytes, to, &mut server.noise),
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Check(address)) if checks.is_full() => {
                server.free(address);
                self.answer(server, checks, held);
            }
            Ok(Outcome::Check(address)) => {
                if checks.begin(address, held) {
                    self.ask(address);
                }
            }
            Err(_) => {
                tracing::error!(%source, packet = hex::encode(packet), "a DHCP packet caused a panic");
            }
        }
    }

    fn ask(&self, address: std::net::Ipv4Addr) {
        if let Some(Err(error)) = self.arp.as_ref().map(|arp| arp.ask(address)) {
            tracing::debug!(%error, %address, "the wire could not be asked");
        }
    }

    fn port(&self, port: Port) -> u16 {
        let socket = if port == Port::Dhcp { &self.dhcp } else { &self.pxe };
        socket.local_addr().map_or(0, |address| address.port())
    }

    fn send(&self, port: Port, bytes: &[u8], to: Destination, noise: &mut Noise) {
        let socket = if port == Port::Dhcp { &self.dhcp } else { &self.pxe };
        // Ports are the protocol's, except in tests that may not open those.
        let client = |port| if port == 68 { self.client_port } else { port };
        let everyone = |port| SocketAddrV4::new(std::net::Ipv4Addr::BROADCAST, client(port));
        let sent = match to {
            Destination::Unicast(to) => {
                let to = SocketAddrV4::new(*to.ip(), client(to.port()));
                match &self.routed {
                    Some(routed) => routed.send(bytes, self.port(port), to),
                    None => wire::send(socket, &self.interface, bytes, to),
                }
            }
            Destination::Broadcast(port) => wire::send(socket, &self.interface, bytes, everyone(port)),
            Destination::Frame { mac, address } => match &self.frames {
                Some(frames) => frames.send(bytes, mac, address, (self.port(port), self.client_port)),
                None => wire::send(socket, &self.interface, bytes, everyone(68)),
            },
        };
        if let Err(error) = sent {
            noise.warn(|unsaid| tracing::warn!(%error, ?to, unsaid, "a DHCP answer could not be sent"));
        }
    }
}

/// The next host that says which address it has; never, where the wire cannot be heard.
async fn heard(arp: Option<&Arp>) -> (std::net::Ipv4Addr, Mac) {
    let Some(arp) = arp else { return std::future::pending().await };
    loop {
        match arp.hear().await {
            Ok(said) => return said,
            // The interface went down, for example. It is said once for each time.
            Err(error) => {
                tracing::debug!(%error, "ARP could not be heard");
                tokio::time::sleep(CHECK_TIME).await;
            }
        }
    }
}

/// The next answer of another server; never, where the wire cannot be heard.
async fn overheard(ears: Option<&Ears>) -> Rival {
    let Some(ears) = ears else { return std::future::pending().await };
    loop {
        match ears.hear().await {
            Ok(rival) => return rival,
            Err(error) => {
                tracing::debug!(%error, "other servers could not be heard");
                tokio::time::sleep(CHECK_TIME).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::dhcp4::testing::{Packet, beside, full};

    fn config(interface: &str, mode: Mode) -> Config {
        let programs = watch::channel(beside().programs).1;
        Config {
            interface: interface.to_owned(),
            mode,
            http_port: 8069,
            discovery: true,
            programs,
            sites: vec![],
            authoritative: false,
        }
    }

    fn range(start: [u8; 4], end: [u8; 4]) -> Mode {
        let Mode::Full(mut network) = full().mode else { panic!("not full") };
        network.range = Range { start: start.into(), end: end.into() };
        Mode::Full(network)
    }

    #[tokio::test]
    async fn what_cannot_be_served_is_said_with_its_cause() {
        let refused = |config| bind_at(config, 0, 0, 68).map(|_| ()).unwrap_err();
        let error = refused(config("no such thing", Mode::Proxy));
        assert!(matches!(error, DhcpError::Interface { .. }) && error.hint().contains("ip -brief"));
        for (mode, why) in [
            (range([127, 0, 0, 9], [127, 0, 0, 8]), "ends before"),
            (range([127, 0, 0, 0], [127, 9, 0, 0]), "more than"),
            (range([10, 0, 0, 1], [10, 0, 0, 9]), "127.0.0.1/8"),
        ] {
            let error = refused(config("lo", mode)).to_string();
            assert!(error.contains(why), "{error}");
        }
        let taken = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind_at(config("lo", Mode::Proxy), port, 0, 68).map(|_| ()).unwrap_err();
        assert!(error.hint().contains("another program"), "{error:?}");
    }

    #[tokio::test]
    async fn a_rom_at_port_4011_is_answered_seen_and_cannot_be_disturbed_by_noise() {
        let bound = bind_at(config("lo", Mode::Proxy), 0, 0, 0).unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port(Port::Pxe)));
        let dhcp = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port(Port::Dhcp)));
        let (_publish, policies) = watch::channel(Arc::new(BootPolicies::default()));
        let (sightings, mut seen) = mpsc::channel(2);
        let (changed, _) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let server = tokio::spawn(bound.run(policies, sightings, vec![], changed, cancel.clone()));

        let rom = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 1500];
        for round in 0..3 {
            rom.send_to(&[round; 700], at).await.unwrap();
            rom.send_to(&Packet::new(1).bytes(), at).await.unwrap();
            rom.send_to(&Packet::pxe(7).kind(3).ciaddr(Ipv4Addr::LOCALHOST).bytes(), at).await.unwrap();
            let answer = tokio::time::timeout(Duration::from_secs(5), rom.recv_from(&mut buffer));
            let (length, from) = answer.await.unwrap().unwrap();
            assert_eq!(from, at);
            assert!(buffer[..length].windows(12).any(|part| part == b"snponly.efi\0"));
        }
        let Some(Sighting::PowerOn { firmware, answer, .. }) = seen.recv().await else { panic!("not seen") };
        assert_eq!(
            (firmware.to_string().as_str(), answer.to_string().as_str()),
            ("uefi x64", "proxy offer of snponly.efi")
        );
        let Some(Sighting::Address { address, .. }) = seen.recv().await else { panic!("no address") };
        assert_eq!(address, Ipv4Addr::LOCALHOST);
        // A BIOS never comes to 4011: it takes another server's offer by broadcast.
        let takes = Packet::pxe(0).kind(3).option(50, &[192, 0, 2, 40]).option(54, &[192, 0, 2, 1]);
        rom.send_to(&takes.bytes(), dhcp).await.unwrap();
        let taken = tokio::time::timeout(Duration::from_secs(5), seen.recv()).await.unwrap();
        let Some(Sighting::Address { address, asker }) = taken else { panic!("no address") };
        assert_eq!(address, Ipv4Addr::new(192, 0, 2, 40));
        assert!(asker.mac.is_some());
        cancel.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_full_server_gives_addresses_and_hands_over_what_to_save() {
        let bound = bind_at(config("lo", range([127, 0, 0, 100], [127, 0, 0, 110])), 0, 0, 0).unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port(Port::Dhcp)));
        let (_publish, policies) = watch::channel(Arc::new(BootPolicies::default()));
        let (sightings, _seen) = mpsc::channel(1);
        let (changed, mut saved) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let server = tokio::spawn(bound.run(policies, sightings, vec![], changed, cancel.clone()));
        let os = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let wish = Ipv4Addr::new(127, 0, 0, 105);
        let packet = Packet::new(3).option(50, &wish.octets());
        os.send_to(&packet.bytes(), at).await.unwrap();
        let lease = tokio::time::timeout(Duration::from_secs(5), saved.recv()).await.unwrap().unwrap();
        assert_eq!((lease.address, lease.holder.as_str()), (wish, "52:54:00:00:00:01"));
        cancel.cancel();
        server.await.unwrap().unwrap();
    }
}
