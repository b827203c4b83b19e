//! Handles one packet at a time: parses it, decides, encodes the answer, and reports the machine to the fleet. Owns the
//! address pool; touches the clocks and the channels to the fleet, and never waits for them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use common::id::Mac;
use common::limits::DHCP_LEASE_SECONDS_MAX;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::clock::{Clock, Clocks};
use super::decide::{Answer, BootFile, Decision, Kind, Mode, Port, ServerProfile, decide, firmware_of};
use super::lease::{Lease, Manners, Pool, Verdict};
use super::networks::Networks;
use super::place::Range;
use super::reply::{self, Destination};
use super::request::{Ask, BootRequest, Client};
use super::rivals::{Rival, Rivals};
use super::transaction::Transactions;
use crate::boot::tftp::Served;
use crate::fleet::boot_policy::{Answered, Asker, BootPolicies, BootPolicy, Sighting, Unanswered};
use crate::metrics::{DhcpResult, Metrics};
use crate::noise::Noise;

/// What follows from a packet.
pub(super) enum Outcome {
    /// Send these bytes to this destination.
    Answer(Vec<u8>, Destination),
    /// Probe this address first.
    Check(Ipv4Addr),
    /// Send nothing.
    Nothing,
}

/// The state that the receive loop keeps between packets.
pub(super) struct Server {
    pub(super) pool: Option<Pool>,
    pub(super) policies: watch::Receiver<Arc<BootPolicies>>,
    pub(super) sightings: mpsc::Sender<Sighting>,
    pub(super) changed: mpsc::Sender<Lease>,
    pub(super) networks: Networks,
    pub(super) served: watch::Sender<Served>,
    pub(super) transactions: Transactions,
    pub(super) clock: Clock,
    pub(super) began: Instant,
    pub(super) rivals: Rivals,
    pub(super) rivals_told: watch::Sender<Vec<Rival>>,
    pub(super) noise: Noise,
    pub(super) metrics: Metrics,
}

impl Server {
    pub(super) fn handle(
        &mut self,
        packet: &[u8],
        port: Port,
        source: SocketAddrV4,
        profile: &ServerProfile,
    ) -> Outcome {
        let mut request = match BootRequest::parse(packet) {
            Ok(request) => request,
            Err(why) => {
                tracing::debug!(%source, %why, "not a DHCP request");
                self.metrics.dhcp(DhcpResult::Malformed);
                return Outcome::Nothing;
            }
        };
        let now = self.now();
        self.transactions.heed(&mut request, now);
        let (_, policy) = self.policies.borrow().of(&request.asker());
        if request.client.netboots() && policy != BootPolicy::Ignore {
            self.note_network(&request);
        }
        // A client that takes another server's offer names that server; in proxy mode that is as it should be.
        if let (Ask::Request, Some(other), Mode::Full(_)) = (request.ask, request.server, &profile.mode)
            && other != profile.place.address
        {
            let rival = Rival { address: other, addresses: true, boots: None };
            self.note_rival(rival, profile);
        }
        let (pool, mut saved) = (&mut self.pool, None);
        let decision = decide(&request, port, policy, profile, |seconds| {
            let Some(pool) = pool else { return Verdict::Silent("no addresses are given here") };
            let (verdict, lease) = pool.answer(&request, seconds, now);
            saved = lease;
            verdict
        });
        self.save(saved);
        self.metrics.dhcp(result(&decision));
        self.tell(&request, port, &decision);
        self.tell_of_address(&request, &decision);
        let answer = match decision {
            Decision::Answer(answer) => answer,
            Decision::Check(address) => return Outcome::Check(address),
            Decision::Silence(_) => return Outcome::Nothing,
        };
        match reply::encode(&request, &answer, profile) {
            Ok(bytes) => Outcome::Answer(bytes, reply::destination(&request, &answer, port, source)),
            Err(error) => {
                tracing::error!(%error, ?answer, "a DHCP answer could not be encoded");
                Outcome::Nothing
            }
        }
    }

    fn now(&self) -> u64 {
        self.clock.now(clocks(self.began))
    }

    /// Sends a changed lease to be saved, with its end converted to the wall clock.
    fn save(&mut self, lease: Option<Lease>) {
        let Some(lease) = lease else { return };
        let until = self.clock.on_the_wall(lease.until, clocks(self.began));
        if self.changed.try_send(Lease { until, ..lease }).is_err() {
            self.noise.warn(|unsaid| {
                tracing::warn!(unsaid, "a lease could not be saved; a restart may forget it");
            });
        }
    }

    /// Another host has `address`: it answered the probe.
    pub(super) fn found(&mut self, address: Ipv4Addr, mac: Mac) {
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

    /// No host claimed `address` when it was probed.
    pub(super) fn free(&mut self, address: Ipv4Addr) {
        let now = self.now();
        if let Some(pool) = &mut self.pool {
            pool.checked(address, None, now);
        }
    }

    /// Notes an answer of another server, and warns when it is new.
    pub(super) fn note_rival(&mut self, rival: Rival, profile: &ServerProfile) {
        let full = matches!(profile.mode, Mode::Full(_));
        let running = clocks(self.began).running;
        let Some(news) = self.rivals.note(rival, full, running) else { return };
        tracing::warn!(
            server = %news.address, addresses = news.addresses, boots = news.boots,
            "another server answers on this wire; machines take whichever answers first"
        );
        self.rivals_told.send_replace(self.rivals.all());
    }

    /// Serves the client's network from now on: the one that its relay names, or that its address is in.
    fn note_network(&mut self, request: &BootRequest) {
        let address = request.link().or(request.wanted).unwrap_or(request.ciaddr);
        if self.networks.note(address) {
            self.served.send_replace(Arc::new(self.networks.all()));
        }
    }

    /// Reports a machine's request to the fleet once per round: firmware sends two for one address.
    fn tell(&mut self, request: &BootRequest, port: Port, decision: &Decision) {
        if *decision == Decision::Silence(Unanswered::Exhausted) {
            self.noise.warn(|unsaid| {
                tracing::warn!(unsaid, "{}: make the range larger", Unanswered::Exhausted);
            });
        }
        let round = port == Port::Pxe || matches!(request.ask, Ask::Discover | Ask::Inform);
        self.tell_of_system(request);
        if !request.client.netboots() || !round {
            return;
        }
        let (firmware, answer) = match decision {
            Decision::Answer(answer) => (answer.firmware, answered(answer)),
            Decision::Silence(why) => (firmware_of(request), Answered::Not(why.clone())),
            // It is decided again after the probe, and reported then.
            Decision::Check(_) => return,
        };
        let sighting = Sighting::PowerOn { asker: request.asker(), firmware, answer, relay: request.link() };
        if self.sightings.try_send(sighting).is_err() {
            self.noise.warn(|unsaid| tracing::warn!(unsaid, "more machines ask than can be logged"));
        }
    }

    /// Reports which address a machine has from another server: it names it when it requests it, by broadcast, and
    /// sends from it when it comes to port 4011.
    fn tell_of_address(&self, request: &BootRequest, decision: &Decision) {
        let ours = matches!(decision, Decision::Answer(Answer { lease: Some(_), .. }));
        if ours || request.ask != Ask::Request || !request.client.netboots() {
            return;
        }
        let own = Some(request.ciaddr).filter(|address| !address.is_unspecified());
        if let Some(address) = own.or(request.wanted) {
            // Dropped when the fleet is busy: it is only for a note.
            let _ = self.sightings.try_send(Sighting::Address { asker: request.asker(), address });
        }
    }

    /// Reports that the OS of a known machine starts: it looks for an address, or requests the one that it had before.
    /// An OS that only renews its lease sends from its address, and is not reported.
    fn tell_of_system(&self, request: &BootRequest) {
        let starts = matches!(request.ask, Ask::Discover | Ask::Request) && request.ciaddr.is_unspecified();
        if request.client != Client::Ordinary || !starts {
            return;
        }
        let Some(mac) = request.asker().mac else { return };
        let asker = Asker { mac: Some(mac), ..Asker::default() };
        if self.policies.borrow().of(&asker).0.is_some() {
            // Dropped when the fleet is busy: it is only for a note.
            let _ = self.sightings.try_send(Sighting::System { mac });
        }
    }
}

/// The decision as it is counted.
fn result(decision: &Decision) -> DhcpResult {
    match decision {
        Decision::Answer(answer) => match (answer.kind, answer.lease) {
            (Kind::Nak, _) => DhcpResult::Refused,
            (Kind::Offer, Some(_)) => DhcpResult::Offered,
            (Kind::Ack, _) if answer.network => DhcpResult::Acknowledged,
            (Kind::Offer | Kind::Ack, _) => DhcpResult::Proxied,
        },
        Decision::Check(_) => DhcpResult::Probed,
        Decision::Silence(Unanswered::Exhausted) => DhcpResult::Exhausted,
        Decision::Silence(Unanswered::NoProgram(_)) => DhcpResult::NoProgram,
        Decision::Silence(Unanswered::Other(_)) => DhcpResult::Ignored,
    }
}

/// The answer as a sighting has it.
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

pub(super) fn clocks(began: Instant) -> Clocks {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Clocks { wall, running: began.elapsed().as_secs() }
}

pub(super) fn pool(
    range: Range,
    router: Option<Ipv4Addr>,
    profile: &ServerProfile,
    kept: Vec<Lease>,
    manners: Manners,
    now: u64,
) -> Pool {
    let mask = u32::MAX.checked_shl(32 - u32::from(profile.place.prefix)).unwrap_or(0);
    let network = profile.place.address.to_bits() & mask;
    let ends = [network, network | !mask].map(Ipv4Addr::from_bits);
    let set_aside = ends.into_iter().chain(router).chain([profile.place.address]).collect();
    // A clock that was years ahead when a lease was written down must not keep its address for years.
    let kept =
        kept.into_iter().map(|lease| Lease { until: lease.until.min(now + DHCP_LEASE_SECONDS_MAX), ..lease });
    Pool::new(range, profile.place, set_aside, kept.collect(), manners)
}
