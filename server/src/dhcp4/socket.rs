//! The receive loop of ports 67 and 4011: receive, decide, send. Owns the address pool while it runs; touches sockets,
//! and reads the latest boot policies without waiting for the fleet, because iPXE waits two seconds for a proxy and no
//! longer.
//!
//! Everything that can fail for a reason outside the network has failed in `bind` already.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::id::Mac;
use common::limits::DHCP_REQUEST_BYTES_MAX;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::arp::Arp;
use super::bind::{Bound, DhcpError};
use super::checks::{CHECK_TIME, Checks, Held};
use super::clock::Clock;
use super::decide::{Mode, Port};
use super::lease::{Lease, Manners};
use super::reply::Destination;
use super::rivals::{Ears, Rival, Rivals};
use super::server::{Outcome, Server, clocks, pool};
use super::transaction::Transactions;
use super::wire::{self, Interface};
use crate::boot::tftp::Served;
use crate::fleet::boot_policy::{BootPolicies, Sighting};
use crate::metrics::Metrics;
use crate::noise::Noise;
use crate::traffic::{Kind, Traffic};

impl Bound {
    /// The interface that is served.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The networks whose machines are served; changes as machines are seen in new ones.
    #[must_use]
    pub fn served(&self) -> watch::Receiver<Served> {
        self.served.subscribe()
    }

    /// Other DHCP servers that were seen on the network.
    #[must_use]
    pub fn rivals(&self) -> watch::Receiver<Vec<Rival>> {
        self.rivals.subscribe()
    }

    /// Counts what is sent there. DHCP waits for no limit: it is few bytes, and firmware gives up soon.
    #[must_use]
    pub fn with_traffic(mut self, traffic: Traffic) -> Self {
        self.traffic = traffic;
        self
    }

    /// Counts there what becomes of each packet.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Serves until `cancel`. The boot policies are read without waiting; sightings and changed leases are sent without
    /// waiting, and those that do not fit into their channel are counted in the log. `kept` are the leases of earlier
    /// runs; every lease sent over `changed` replaces the one of the same address there.
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
        let mut server = self.server(policies, sightings, kept, changed);
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
                // The ICMP error of an unreachable client is reported by the next receive; this socket is not broken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(source) => return Err(DhcpError::Receive { port: self.port(port), source }),
            };
            let SocketAddr::V4(source) = source else { continue };
            if self.programs.has_changed().unwrap_or(false) {
                self.profile.programs = self.programs.borrow_and_update().clone();
            }
            if self.discovery.has_changed().unwrap_or(false) {
                self.profile.discovery = *self.discovery.borrow_and_update();
            }
            let packet = if port == Port::Dhcp { &dhcp[..length] } else { &pxe[..length] };
            self.answer(&mut server, &mut checks, Held { packet: packet.to_vec(), port, source });
        }
    }

    /// The state between packets, before the first. The clock starts here.
    fn server(
        &self,
        policies: watch::Receiver<Arc<BootPolicies>>,
        sightings: mpsc::Sender<Sighting>,
        kept: Vec<Lease>,
        changed: mpsc::Sender<Lease>,
    ) -> Server {
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
        Server {
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
            metrics: self.metrics.clone(),
        }
    }

    /// Answers a packet, or holds it while its address is probed for.
    fn answer(&self, server: &mut Server, checks: &mut Checks, held: Held) {
        let Held { packet, port, source } = &held;
        // No packet is known to cause a panic; if one did, it would otherwise end DHCP for all machines.
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
        // The ports are the standard ones, except in tests that may not open those.
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
        let address = match to {
            Destination::Unicast(to) if !to.ip().is_broadcast() => *to.ip(),
            // On the server's own link.
            _ => self.interface.address,
        };
        match sent {
            Ok(()) => self.traffic.sent_to(address.into(), Kind::Dhcp, bytes.len() as u64),
            Err(error) => {
                noise.warn(|unsaid| tracing::warn!(%error, ?to, unsaid, "a DHCP answer could not be sent"));
            }
        }
    }
}

/// The next ARP packet that claims an address; never returns where ARP cannot be received.
async fn heard(arp: Option<&Arp>) -> (std::net::Ipv4Addr, Mac) {
    let Some(arp) = arp else { return std::future::pending().await };
    loop {
        match arp.hear().await {
            Ok(said) => return said,
            // For example because the interface went down. Logged once for each time.
            Err(error) => {
                tracing::debug!(%error, "ARP could not be heard");
                tokio::time::sleep(CHECK_TIME).await;
            }
        }
    }
}

/// The next answer of another server; never returns where these cannot be received.
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
mod tests;
