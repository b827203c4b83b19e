//! Ports 67 and 4011: receive, decide, send. Owns the address pool while it runs; touches sockets, and reads
//! the latest standings without asking anybody, because iPXE waits two seconds for a proxy and no longer.
//!
//! Everything that can fail for a reason outside the network fails in [`bind`], before anything has started.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::id::Mac;
use ipnet::Ipv4Net;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::arp::Arp;
use super::clock::{Clock, Clocks};
use super::decide::{Answer, BootFile, Decision, Door, Face, Mode, decide, firmware_of};
use super::lease::{LEASE_SECONDS_MAX, Lease, Manners, Pool, RANGE_MAX, Range, Verdict};
use super::networks::Networks;
use super::reply::{self, Destination};
use super::request::{Ask, BootRequest, REQUEST_BYTES_MAX};
use super::transaction::Transactions;
use super::wire::{self, Frames, Interface, InterfaceError, Routed};
use crate::boot::choose::Programs;
use crate::boot::tftp::{Served, roomy};
use crate::fleet::standing::{Answered, Sighting, Standing, Standings, Unanswered};
use crate::noise::Noise;

/// How long the wire is given to say that somebody has an address, asked twice: a host on a LAN answers within a
/// millisecond, one that sleeps within some hundred, and a ROM waits at least a second for its offer.
const CHECK_TIME: Duration = Duration::from_millis(300);
/// Addresses that are looked for at once; what comes beyond is offered unseen.
const CHECKS_MAX: usize = 2048;

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
        /// Why.
        #[source]
        source: InterfaceError,
    },
    /// The range will not do.
    #[error("the DHCP range {}-{} cannot be used: {why}", .range.start, .range.end)]
    Range {
        /// The range.
        range: Range,
        /// Why.
        why: String,
    },
    /// A port cannot be had.
    #[error("UDP port {port} cannot be opened on {interface}")]
    Port {
        /// The port.
        port: u16,
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket stopped receiving.
    #[error("UDP port {port} failed")]
    Receive {
        /// The port.
        port: u16,
        /// Why.
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
    face: Face,
    dhcp: UdpSocket,
    pxe: UdpSocket,
    frames: Option<Frames>,
    routed: Option<Routed>,
    arp: Option<Arp>,
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
    let face = Face {
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
        face,
        dhcp,
        pxe,
        frames,
        routed,
        arp,
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
    if range.end.to_bits() - range.start.to_bits() >= RANGE_MAX {
        return wrong(format!("it has more than {RANGE_MAX} addresses"));
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

    /// Serves until `cancel`. Standings are read, never waited for; sightings and changed leases are sent
    /// without waiting, and what does not fit is counted in the log. `kept` are the leases of earlier runs, and
    /// every lease that comes over `changed` replaces the one of the same address there.
    ///
    /// # Errors
    ///
    /// When a socket fails.
    pub async fn run(
        mut self,
        standings: watch::Receiver<Arc<Standings>>,
        sightings: mpsc::Sender<Sighting>,
        kept: Vec<Lease>,
        changed: mpsc::Sender<Lease>,
        cancel: CancellationToken,
    ) -> Result<(), DhcpError> {
        let began = tokio::time::Instant::now();
        let clock = Clock::new(clocks(began));
        let manners = Manners { authoritative: self.authoritative, checks: self.arp.is_some() };
        let pool = match &self.face.mode {
            Mode::Full(network) => {
                let now = clock.now(clocks(began));
                Some(pool(network.range, network.router, &self.face, kept, manners, now))
            }
            Mode::Proxy => None,
        };
        let mut server = Server {
            pool,
            standings,
            sightings,
            changed,
            networks: self.networks.clone(),
            served: self.served.clone(),
            transactions: Transactions::default(),
            clock,
            began,
            noise: Noise::default(),
        };
        let mut checks = Checks::default();
        let mut dhcp = [0; REQUEST_BYTES_MAX + 1];
        let mut pxe = [0; REQUEST_BYTES_MAX + 1];
        loop {
            let (door, received) = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                received = self.dhcp.recv_from(&mut dhcp) => (Door::Dhcp, received),
                received = self.pxe.recv_from(&mut pxe) => (Door::Pxe, received),
                (address, mac) = heard(self.arp.as_ref()) => {
                    if let Some(held) = checks.take(address) {
                        server.found(address, mac);
                        self.answer(&mut server, &mut checks, held);
                    }
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
                Err(source) => return Err(DhcpError::Receive { port: self.port(door), source }),
            };
            let SocketAddr::V4(source) = source else { continue };
            if self.programs.has_changed().unwrap_or(false) {
                self.face.programs = self.programs.borrow_and_update().clone();
            }
            let packet = if door == Door::Dhcp { &dhcp[..length] } else { &pxe[..length] };
            self.answer(&mut server, &mut checks, Held { packet: packet.to_vec(), door, source });
        }
    }

    /// Answers a packet, or keeps it until its address has been looked for.
    fn answer(&self, server: &mut Server, checks: &mut Checks, held: Held) {
        let Held { packet, door, source } = &held;
        // No packet is known to panic here; one that did would otherwise stop every machine's boot.
        let outcome = catch_unwind(AssertUnwindSafe(|| server.handle(packet, *door, *source, &self.face)));
        match outcome {
            Ok(Outcome::Answer(bytes, to)) => self.send(*door, &bytes, to, &mut server.noise),
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

    fn port(&self, door: Door) -> u16 {
        let socket = if door == Door::Dhcp { &self.dhcp } else { &self.pxe };
        socket.local_addr().map_or(0, |address| address.port())
    }

    fn send(&self, door: Door, bytes: &[u8], to: Destination, noise: &mut Noise) {
        let socket = if door == Door::Dhcp { &self.dhcp } else { &self.pxe };
        // Ports are the protocol's, except in tests that may not open those.
        let client = |port| if port == 68 { self.client_port } else { port };
        let everyone = |port| SocketAddrV4::new(std::net::Ipv4Addr::BROADCAST, client(port));
        let sent = match to {
            Destination::Unicast(to) => {
                let to = SocketAddrV4::new(*to.ip(), client(to.port()));
                match &self.routed {
                    Some(routed) => routed.send(bytes, self.port(door), to),
                    None => wire::send(socket, &self.interface, bytes, to),
                }
            }
            Destination::Broadcast(port) => wire::send(socket, &self.interface, bytes, everyone(port)),
            Destination::Frame { mac, address } => match &self.frames {
                Some(frames) => frames.send(bytes, mac, address, (self.port(door), self.client_port)),
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

fn clocks(began: tokio::time::Instant) -> Clocks {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Clocks { wall, running: began.elapsed().as_secs() }
}

fn pool(
    range: Range,
    router: Option<std::net::Ipv4Addr>,
    face: &Face,
    kept: Vec<Lease>,
    manners: Manners,
    now: u64,
) -> Pool {
    let mask = u32::MAX.checked_shl(32 - u32::from(face.place.prefix)).unwrap_or(0);
    let network = face.place.address.to_bits() & mask;
    let ends = [network, network | !mask].map(std::net::Ipv4Addr::from_bits);
    let set_aside = ends.into_iter().chain(router).chain([face.place.address]).collect();
    // A clock that was years ahead when a lease was written down must not keep its address for years.
    let kept =
        kept.into_iter().map(|lease| Lease { until: lease.until.min(now + LEASE_SECONDS_MAX), ..lease });
    Pool::new(range, face.place, set_aside, kept.collect(), manners)
}

/// A packet that waits for its address to be looked for.
#[derive(Debug)]
struct Held {
    packet: Vec<u8>,
    door: Door,
    source: SocketAddrV4,
}

/// The addresses that are being looked for, each with the newest packet that it is for.
#[derive(Debug, Default)]
struct Checks {
    waiting: BTreeMap<std::net::Ipv4Addr, Check>,
}

#[derive(Debug)]
struct Check {
    held: Held,
    due: tokio::time::Instant,
    again: bool,
}

impl Checks {
    fn is_full(&self) -> bool {
        self.waiting.len() >= CHECKS_MAX
    }

    /// Keeps `held` until `address` has been looked for. Whether that begins now.
    fn begin(&mut self, address: std::net::Ipv4Addr, held: Held) -> bool {
        if let Some(check) = self.waiting.get_mut(&address) {
            check.held = held;
            return false;
        }
        let due = tokio::time::Instant::now() + CHECK_TIME / 2;
        self.waiting.insert(address, Check { held, due, again: true });
        true
    }

    /// The packet that waits for `address`, which waits no more.
    fn take(&mut self, address: std::net::Ipv4Addr) -> Option<Held> {
        self.waiting.remove(&address).map(|check| check.held)
    }

    /// Returns when the next one is to be looked at.
    async fn due(&self) {
        match self.waiting.values().map(|check| check.due).min() {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Asks a second time where it is time for that; gives those for which nobody answered.
    fn pass(&mut self, ask: impl Fn(std::net::Ipv4Addr)) -> Vec<(std::net::Ipv4Addr, Held)> {
        let now = tokio::time::Instant::now();
        let mut free = Vec::new();
        for (address, check) in &mut self.waiting {
            if check.due <= now && check.again {
                (check.again, check.due) = (false, now + CHECK_TIME / 2);
                ask(*address);
            } else if check.due <= now {
                free.push(*address);
            }
        }
        free.into_iter().filter_map(|address| Some((address, self.take(address)?))).collect()
    }
}

/// What follows from a packet.
enum Outcome {
    Answer(Vec<u8>, Destination),
    Check(std::net::Ipv4Addr),
    Nothing,
}

/// What the loop keeps between packets.
struct Server {
    pool: Option<Pool>,
    standings: watch::Receiver<Arc<Standings>>,
    sightings: mpsc::Sender<Sighting>,
    changed: mpsc::Sender<Lease>,
    networks: Networks,
    served: watch::Sender<Served>,
    transactions: Transactions,
    clock: Clock,
    began: tokio::time::Instant,
    noise: Noise,
}

impl Server {
    fn handle(&mut self, packet: &[u8], door: Door, source: SocketAddrV4, face: &Face) -> Outcome {
        let mut request = match BootRequest::parse(packet) {
            Ok(request) => request,
            Err(why) => {
                tracing::debug!(%source, %why, "not a DHCP request");
                return Outcome::Nothing;
            }
        };
        let now = self.now();
        self.transactions.heed(&mut request, now);
        let (_, standing) = self.standings.borrow().of(&request.asker());
        if request.client.netboots() && standing != Standing::Ignore {
            self.note_network(&request);
        }
        let (pool, mut saved) = (&mut self.pool, None);
        let decision = decide(&request, door, standing, face, |seconds| {
            let Some(pool) = pool else { return Verdict::Silent("no addresses are given here") };
            let (verdict, lease) = pool.answer(&request, seconds, now);
            saved = lease;
            verdict
        });
        self.save(saved);
        self.tell(&request, door, &decision);
        let answer = match decision {
            Decision::Answer(answer) => answer,
            Decision::Check(address) => return Outcome::Check(address),
            Decision::Silence(_) => return Outcome::Nothing,
        };
        match reply::encode(&request, &answer, face) {
            Ok(bytes) => Outcome::Answer(bytes, reply::destination(&request, &answer, door, source)),
            Err(error) => {
                tracing::error!(%error, ?answer, "a DHCP answer could not be encoded");
                Outcome::Nothing
            }
        }
    }

    fn now(&self) -> u64 {
        self.clock.now(clocks(self.began))
    }

    /// Hands a lease that changed over to be kept, with its end as the wall clock has it now.
    fn save(&mut self, lease: Option<Lease>) {
        let Some(lease) = lease else { return };
        let until = self.clock.on_the_wall(lease.until, clocks(self.began));
        if self.changed.try_send(Lease { until, ..lease }).is_err() {
            self.noise.warn(|unsaid| {
                tracing::warn!(unsaid, "a lease could not be saved; a restart may forget it");
            });
        }
    }

    /// Somebody has `address`.
    fn found(&mut self, address: std::net::Ipv4Addr, mac: Mac) {
        let now = self.now();
        let quarantined = self.pool.as_mut().and_then(|pool| pool.checked(address, Some(mac), now));
        if quarantined.is_some() {
            tracing::warn!(
                %address, %mac,
                "an address of the range is in use already, and is not given out: leave it out of the range, or look who that is"
            );
        }
        self.save(quarantined);
    }

    /// Nobody answered for `address`.
    fn free(&mut self, address: std::net::Ipv4Addr) {
        let now = self.now();
        if let Some(pool) = &mut self.pool {
            pool.checked(address, None, now);
        }
    }

    /// Its network is served from now on: where its relay says that it is, or where it says that its address is.
    fn note_network(&mut self, request: &BootRequest) {
        let address = request.link().or(request.wanted).unwrap_or(request.ciaddr);
        if self.networks.note(address) {
            self.served.send_replace(Arc::new(self.networks.all()));
        }
    }

    /// Reports a machine's asking once per round: firmware asks twice for one address.
    fn tell(&mut self, request: &BootRequest, door: Door, decision: &Decision) {
        if *decision == Decision::Silence(Unanswered::Exhausted) {
            self.noise.warn(|unsaid| {
                tracing::warn!(unsaid, "{}: make the range larger", Unanswered::Exhausted);
            });
        }
        let round = door == Door::Pxe || matches!(request.ask, Ask::Discover | Ask::Inform);
        if !request.client.netboots() || !round {
            return;
        }
        let (firmware, answer) = match decision {
            Decision::Answer(answer) => (answer.firmware.clone(), answered(answer)),
            Decision::Silence(why) => (firmware_of(request).to_owned(), Answered::Not(why.clone())),
            // It is decided again, and told then.
            Decision::Check(_) => return,
        };
        let sighting = Sighting::PowerOn { asker: request.asker(), firmware, answer, relay: request.link() };
        if self.sightings.try_send(sighting).is_err() {
            self.noise.warn(|unsaid| tracing::warn!(unsaid, "more machines ask than can be logged"));
        }
    }
}

/// What was answered, for the log.
fn answered(answer: &Answer) -> Answered {
    let file = answer.boot.as_ref().and_then(|boot| boot.file.as_ref()).map(|file| match file {
        BootFile::Tftp(name) => name.clone(),
        BootFile::Url(url) => url.clone(),
    });
    match answer.lease {
        Some((address, _)) => Answered::Offered { address, file },
        None => Answered::Proxy { file },
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::dhcp::testing::{Packet, beside, full};

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
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port(Door::Pxe)));
        let (_publish, standings) = watch::channel(Arc::new(Standings::default()));
        let (sightings, mut seen) = mpsc::channel(1);
        let (changed, _) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let server = tokio::spawn(bound.run(standings, sightings, vec![], changed, cancel.clone()));

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
            (firmware.as_str(), answer.to_string().as_str()),
            ("uefi x64", "proxy offer of snponly.efi")
        );
        cancel.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_full_server_gives_addresses_and_hands_over_what_to_save() {
        let bound = bind_at(config("lo", range([127, 0, 0, 100], [127, 0, 0, 110])), 0, 0, 0).unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port(Door::Dhcp)));
        let (_publish, standings) = watch::channel(Arc::new(Standings::default()));
        let (sightings, _seen) = mpsc::channel(1);
        let (changed, mut saved) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let server = tokio::spawn(bound.run(standings, sightings, vec![], changed, cancel.clone()));
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
