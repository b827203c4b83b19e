//! Core: the address pool of a full DHCP server. Touches `common`.
//!
//! A machine is known by its hardware address, whatever client identifier it sends: firmware, iPXE, the loader
//! and the installed OS each send another one, and clones of one OS share theirs. So a machine keeps its
//! address from power-on to login prompt, and forty clones get forty addresses.
//!
//! Time is an argument, in seconds of the wall clock: leases outlive the process.
//!
//! Invariants: an address has at most one lease and a holder at most one address; every address in here is in
//! the range and not set aside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use common::id::{Hash, Mac};
use common::limits::{DHCP_DECLINES_MAX, DHCP_DECLINES_PART, DHCP_RANGE_MAX};
use serde::{Deserialize, Serialize};

use super::place::{Place, Range};
use super::request::{Ask, BootRequest, Client};

/// How long an offer is kept for the client to take it. EDK2 collects offers for up to 32 s.
const OFFER_SECONDS: u64 = 60;
/// How long an address that somebody else has stays out of the pool.
const QUARANTINE_SECONDS: u64 = 600;
/// How long an address that nobody answered for counts as free.
const CHECKED_SECONDS: u64 = 600;

/// What a lease is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Offered, not yet taken. Not worth keeping across a restart.
    Offered,
    /// Taken, or given back when its end is past.
    Held,
    /// A client found somebody else there.
    Quarantined,
}

/// One address and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address; the key: a saved lease replaces an older one of the same address.
    pub address: Ipv4Addr,
    /// Who: `52:54:00:12:34:56`, or `hw…`/`id…` in hexadecimal for clients without an Ethernet address.
    pub holder: String,
    /// When it ends, in seconds since 1970.
    pub until: u64,
    /// Whether it is only offered, taken, or left alone because a client found somebody else there.
    pub state: LeaseState,
}

/// What the pool says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This address may be offered.
    Offered(Ipv4Addr),
    /// This address is the client's.
    Granted(Ipv4Addr),
    /// The client must let go of the address that it wants, for this reason.
    Refused(&'static str),
    /// Another server's matter, or no answer is due, for this reason.
    Silent(&'static str),
    /// This address may be offered when nobody on the wire has it: see [`Pool::checked`], then answer again.
    Check(Ipv4Addr),
    /// No address is left.
    Exhausted,
}

/// How a pool is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manners {
    /// Whether this is the network's only server, so that it may refuse what it does not know.
    pub authoritative: bool,
    /// Whether the wire can be asked who has an address.
    pub checks: bool,
}

/// The addresses of one range and who has each; what it says to a request is a [`Verdict`].
#[derive(Debug)]
pub struct Pool {
    range: Range,
    place: Place,
    set_aside: Vec<Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, Lease>,
    by_holder: HashMap<String, Ipv4Addr>,
    manners: Manners,
    /// Addresses that are being looked for, and until when those that nobody answered for count as free.
    checking: BTreeSet<Ipv4Addr>,
    free_until: HashMap<Ipv4Addr, u64>,
    /// Who said of a quarantined address that it is in use.
    declined: HashMap<Ipv4Addr, String>,
}

impl Pool {
    /// A pool of `range` without `set_aside` (the server, the router), with what was `kept` from earlier runs;
    /// what lies outside the range now is forgotten. The range has at most [`DHCP_RANGE_MAX`] addresses.
    #[must_use]
    pub fn new(
        range: Range,
        place: Place,
        set_aside: Vec<Ipv4Addr>,
        kept: Vec<Lease>,
        manners: Manners,
    ) -> Self {
        let mut pool = Self {
            range,
            place,
            set_aside,
            by_address: BTreeMap::new(),
            by_holder: HashMap::new(),
            manners,
            checking: BTreeSet::new(),
            free_until: HashMap::new(),
            declined: HashMap::new(),
        };
        for lease in kept {
            if pool.usable(lease.address) {
                pool.put(lease);
            }
        }
        pool
    }

    /// Answers a request, for `seconds` if it comes to a lease. Also gives the lease that is to be saved, if
    /// one changed; it must be on its way there before the answer is sent.
    pub fn answer(&mut self, request: &BootRequest, seconds: u32, now: u64) -> (Verdict, Option<Lease>) {
        let Some(holder) = holder(request) else {
            return (Verdict::Silent("it gives no hardware address and no identifier"), None);
        };
        let ours = request.server.is_none_or(|server| server == self.place.address);
        match request.ask {
            Ask::Discover => (self.discover(&holder, request.wanted, now), None),
            Ask::Request if !ours => {
                self.forget_offer(&holder);
                (Verdict::Silent("it takes another server's offer"), None)
            }
            Ask::Request => self.request(&holder, request, now + u64::from(seconds), now),
            Ask::Decline if ours => {
                let changed = request.wanted.and_then(|address| self.decline(&holder, address, now));
                (Verdict::Silent("it found its address in use"), changed)
            }
            Ask::Release if ours => {
                let changed = self.release(&holder, request.ciaddr, now);
                (Verdict::Silent("it gave its address back"), changed)
            }
            Ask::Decline | Ask::Release => (Verdict::Silent("it means another server"), None),
            Ask::Inform => (Verdict::Silent("it wants no address"), None),
        }
    }

    fn discover(&mut self, holder: &str, wish: Option<Ipv4Addr>, now: u64) -> Verdict {
        let Some(address) = self.pick(holder, wish, now) else { return Verdict::Exhausted };
        let held = self.by_address.get(&address).filter(|lease| lease.holder == holder);
        // RFC 2131 section 3.1, step 2: before an address is given for the first time, or again.
        let sure = held.is_some_and(|lease| lease.until > now && !self.checking.contains(&address))
            || self.free_until.get(&address).is_some_and(|until| *until > now);
        let check = self.manners.checks && !sure;
        // A running lease stays as it is until the client takes the offer: it may be another program of the
        // same machine that only looks around.
        if held.is_none_or(|lease| lease.until < now + OFFER_SECONDS) {
            self.put(Lease {
                address,
                holder: holder.to_owned(),
                until: now + OFFER_SECONDS,
                state: LeaseState::Offered,
            });
        }
        if check {
            self.checking.insert(address);
            return Verdict::Check(address);
        }
        Verdict::Offered(address)
    }

    /// The wire was asked who has `address`, and this one answered, if any. Gives the lease that is to be saved when
    /// it is somebody else's than the client's that it was to be offered to.
    pub fn checked(&mut self, address: Ipv4Addr, answered: Option<Mac>, now: u64) -> Option<Lease> {
        self.checking.remove(&address);
        let own = self.by_address.get(&address).map(|lease| lease.holder.clone());
        let other = answered.filter(|mac| own.as_ref() != Some(&mac.to_string()));
        if other.is_none() {
            self.free_until.insert(address, now + CHECKED_SECONDS);
            return None;
        }
        self.by_holder.retain(|_, at| *at != address);
        Some(self.quarantine(address, now))
    }

    fn quarantine(&mut self, address: Ipv4Addr, now: u64) -> Lease {
        let lease = Lease {
            address,
            holder: "conflict".to_owned(),
            until: now + QUARANTINE_SECONDS,
            state: LeaseState::Quarantined,
        };
        self.free_until.remove(&address);
        self.by_address.insert(address, lease.clone());
        lease
    }

    /// RFC 2131 section 4.3.2: taking an offer, a known address after a reboot, or a renewal. Addresses of our
    /// network outside our range are another server's or set by hand: we are silent there, unless we are named.
    fn request(
        &mut self,
        holder: &str,
        request: &BootRequest,
        until: u64,
        now: u64,
    ) -> (Verdict, Option<Lease>) {
        let renews = request.wanted.is_none();
        let mut address = request.wanted.unwrap_or(request.ciaddr);
        if address.is_unspecified() {
            // Some ROMs take an offer by our name alone. It can only mean the one that is open.
            let open = self.by_holder.get(holder).filter(|_| request.server.is_some());
            let open = open.filter(|at| self.by_address.get(at).is_some_and(|lease| lease.until > now));
            let Some(own) = open else { return (Verdict::Silent("it names no address"), None) };
            address = *own;
        }
        if !self.place.reaches(address) {
            // RFC 2131 section 4.3.2 wants a refusal; but a server beside others cannot know that nobody serves that
            // network, and a client that heeds it loses its address (ipxe/ipxe#879).
            let verdict = if self.manners.authoritative || request.server.is_some() {
                Verdict::Refused("its address belongs to another network")
            } else {
                Verdict::Silent("its address belongs to another network, which another server may serve")
            };
            return (verdict, None);
        }
        if !self.usable(address) {
            let verdict = match request.server {
                Some(_) => Verdict::Refused("its address is not ours to give"),
                None => Verdict::Silent("its address is not ours to give"),
            };
            return (verdict, None);
        }
        if self.by_holder.get(holder).is_some_and(|own| *own != address) && !renews {
            return (Verdict::Refused("it has another address here"), None);
        }
        if !self.free_for(holder, address, now) {
            return (Verdict::Refused("its address is another machine's"), None);
        }
        let lease = Lease { address, holder: holder.to_owned(), until, state: LeaseState::Held };
        self.put(lease.clone());
        (Verdict::Granted(address), Some(lease))
    }

    fn decline(&mut self, holder: &str, address: Ipv4Addr, now: u64) -> Option<Lease> {
        // Only its own: else one machine could empty the pool.
        let lease = self.by_address.get_mut(&address).filter(|lease| lease.holder == holder)?;
        lease.until = now;
        let ended = lease.clone();
        self.by_holder.remove(holder);
        self.free_until.remove(&address);
        // Nor may it empty the pool one by one. An address that is not believed to be in use is asked for on the wire
        // before anybody is offered it.
        let by_address = &self.by_address;
        self.declined.retain(|at, _| {
            by_address
                .get(at)
                .is_some_and(|lease| lease.state == LeaseState::Quarantined && lease.until > now)
        });
        let own = self.declined.values().filter(|who| *who == holder).count();
        if own >= DHCP_DECLINES_MAX
            || self.declined.len() >= (self.size() / DHCP_DECLINES_PART).max(1) as usize
        {
            return Some(ended);
        }
        self.declined.insert(address, holder.to_owned());
        Some(self.quarantine(address, now))
    }

    /// Ends a lease but remembers whose it was, so that the machine gets it again.
    fn release(&mut self, holder: &str, address: Ipv4Addr, now: u64) -> Option<Lease> {
        let lease = self.by_address.get_mut(&address).filter(|lease| lease.holder == holder)?;
        lease.until = now;
        Some(lease.clone())
    }

    fn forget_offer(&mut self, holder: &str) {
        if let Some(address) = self.by_holder.get(holder).copied()
            && self.by_address.get(&address).is_some_and(|lease| lease.state == LeaseState::Offered)
        {
            self.by_address.remove(&address);
            self.by_holder.remove(holder);
        }
    }

    /// Its own address, else the one it wishes, else one that nobody ever had (starting at a place that its
    /// name decides, so that even without any record it gets the same one again), else the longest unused.
    fn pick(&self, holder: &str, wish: Option<Ipv4Addr>, now: u64) -> Option<Ipv4Addr> {
        if let Some(own) = self.by_holder.get(holder) {
            return Some(*own);
        }
        if let Some(wish) = wish.filter(|wish| self.usable(*wish) && !self.by_address.contains_key(wish)) {
            return Some(wish);
        }
        let (start, size) = (self.range.start.to_bits(), self.size());
        let Hash([a, b, c, d, ..]) = Hash::of(holder.as_bytes());
        let first = u32::from_be_bytes([a, b, c, d]) % size;
        // Once every address has had a holder, a flood of new names must not cost a search each.
        let untouched = if self.by_address.len() < self.size() as usize { size } else { 0 };
        let fresh = (0..untouched)
            .map(|step| Ipv4Addr::from_bits(start + (first + step) % size))
            .find(|address| self.usable(*address) && !self.by_address.contains_key(address));
        fresh.or_else(|| {
            let ended = self.by_address.values().filter(|lease| lease.until <= now);
            ended.min_by_key(|lease| (lease.until, lease.address)).map(|lease| lease.address)
        })
    }

    fn size(&self) -> u32 {
        (self.range.end.to_bits().saturating_sub(self.range.start.to_bits()))
            .saturating_add(1)
            .min(DHCP_RANGE_MAX)
    }

    fn usable(&self, address: Ipv4Addr) -> bool {
        self.range.contains(address) && !self.set_aside.contains(&address)
    }

    fn free_for(&self, holder: &str, address: Ipv4Addr, now: u64) -> bool {
        self.by_address.get(&address).is_none_or(|lease| lease.holder == holder || lease.until <= now)
    }

    fn put(&mut self, lease: Lease) {
        if let Some(before) = self.by_address.get(&lease.address) {
            self.by_holder.remove(&before.holder);
        }
        if let Some(elsewhere) = self.by_holder.get(&lease.holder).filter(|at| **at != lease.address).copied()
        {
            self.by_address.remove(&elsewhere);
        }
        if lease.state != LeaseState::Quarantined {
            self.by_holder.insert(lease.holder.clone(), lease.address);
        }
        self.by_address.insert(lease.address, lease);
    }
}

/// How long a lease is for. Firmware needs minutes; the loader and the agent do not renew while they write a
/// disk, so they get what the slowest line needs; an OS renews and gets what the admin set.
#[must_use]
pub fn lease_seconds(client: Client, ordinary: u32) -> u32 {
    match client {
        Client::Pxe | Client::HttpBoot | Client::Ipxe { .. } => 10 * 60,
        Client::Loader => 12 * 60 * 60,
        Client::Ordinary => ordinary.max(60),
    }
}

/// Who asks, as the pool knows it: the hardware address; the client identifier only where there is none.
fn holder(request: &BootRequest) -> Option<String> {
    if let Some(mac) = request.mac() {
        return Some(mac.to_string());
    }
    let hardware = &request.chaddr[..usize::from(request.hlen)];
    if hardware.iter().any(|&byte| byte != 0) {
        return Some(format!("hw{:02x}{}", request.htype, hex::encode(hardware)));
    }
    (!request.client_id.is_empty()).then(|| format!("id{}", Hash::of(&request.client_id).short()))
}

#[cfg(test)]
mod tests;
