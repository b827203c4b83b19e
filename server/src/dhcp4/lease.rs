//! Core: the address pool of a full DHCP server. Touches `common`.
//!
//! A machine is identified by its hardware address, whatever client identifier it sends: firmware, iPXE, the loader and
//! the installed OS each send a different one, and clones of one OS share theirs. So a machine keeps its address from
//! power-on to login prompt, and forty clones get forty addresses.
//!
//! Time is an argument, in seconds since 1970, as the pool's `clock` counts them: leases outlive the process.
//!
//! Invariants: an address has at most one lease and a holder at most one address; every address in here is in the range
//! and not set aside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use common::id::{Hash, Mac};
use common::limits::{DHCP_DECLINES_MAX, DHCP_DECLINES_PART, DHCP_RANGE_MAX};
use serde::{Deserialize, Serialize};

use super::place::{Place, Range};
use super::request::{Ask, BootRequest, Client};

/// How long an offer is kept for the client to take it. EDK2 collects offers for up to 32 s.
const OFFER_SECONDS: u64 = 60;
/// Seconds for which an address that another host uses stays out of the pool.
const QUARANTINE_SECONDS: u64 = 600;
/// Seconds for which an address that no host claimed when it was probed counts as free.
const CHECKED_SECONDS: u64 = 600;

/// The state of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Offered, not yet taken. Not saved across a restart.
    Offered,
    /// Taken by its holder; released or expired when its end is past.
    Held,
    /// Another host was found to use the address.
    Quarantined,
}

/// One address, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address, which is the key: a saved lease replaces an older one of the same address.
    pub address: Ipv4Addr,
    /// The client: `52:54:00:12:34:56`, or `hw…`/`id…` in hexadecimal for clients without an Ethernet address.
    pub holder: String,
    /// When it ends, in seconds since 1970.
    pub until: u64,
    /// Whether it is only offered, taken, or left alone because another host uses the address.
    pub state: LeaseState,
}

/// The pool's decision about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Offer this address.
    Offered(Ipv4Addr),
    /// Acknowledge this address as the client's.
    Granted(Ipv4Addr),
    /// Refuse the address that the client wants, for this reason.
    Refused(&'static str),
    /// Send no answer, for this reason.
    Silent(&'static str),
    /// Probe this address before it is offered: see [`Pool::checked`], then answer again.
    Check(Ipv4Addr),
    /// Offer nothing: no address is left.
    Exhausted,
}

/// How a pool treats its clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manners {
    /// Whether this is the network's only DHCP server, so that it may refuse addresses of other networks.
    pub authoritative: bool,
    /// Whether ARP probes are possible.
    pub checks: bool,
}

/// The addresses of one range and their holders; it decides each request with a [`Verdict`].
#[derive(Debug)]
pub struct Pool {
    range: Range,
    place: Place,
    set_aside: Vec<Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, Lease>,
    by_holder: HashMap<String, Ipv4Addr>,
    manners: Manners,
    /// Addresses that are being probed; `free_until` has those that no host claimed, and how long they count as free.
    checking: BTreeSet<Ipv4Addr>,
    free_until: HashMap<Ipv4Addr, u64>,
    /// Which client declined a quarantined address.
    declined: HashMap<Ipv4Addr, String>,
}

impl Pool {
    /// A pool of `range` without `set_aside` (the server, the router), with the leases `kept` from earlier runs; those
    /// outside the range are dropped. The range has at most [`DHCP_RANGE_MAX`] addresses.
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

    /// Decides a request, for a lease of `seconds`. Also returns the lease that changed, if any; it must be on its way
    /// to be saved before the answer is sent.
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
        // RFC 2131 section 3.1, step 2: probed before an address is given for the first time, or again.
        let sure = held.is_some_and(|lease| lease.until > now && !self.checking.contains(&address))
            || self.free_until.get(&address).is_some_and(|until| *until > now);
        let check = self.manners.checks && !sure;
        // A running lease stays as it is until the client takes the offer: the DISCOVER may come from another program
        // of the same machine that does not take it.
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

    /// Takes the result of a probe for `address`: the Ethernet address that claimed it, if any. Returns the lease to be
    /// saved when that is another host than the client that the address was to be offered to.
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

    /// RFC 2131 section 4.3.2: taking an offer, a known address after a reboot, or a renewal. Addresses of our network
    /// outside our range are another server's or set by hand: no answer, unless the request names us.
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
            // Some ROMs take an offer by naming only the server. That can only mean the client's open offer.
            let open = self.by_holder.get(holder).filter(|_| request.server.is_some());
            let open = open.filter(|at| self.by_address.get(at).is_some_and(|lease| lease.until > now));
            let Some(own) = open else { return (Verdict::Silent("it names no address"), None) };
            address = *own;
        }
        if !self.place.reaches(address) {
            // RFC 2131 section 4.3.2 wants a refusal; but a server beside others cannot know that nobody serves that
            // network, and a client that obeys it loses its address (ipxe/ipxe#879).
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
        // Only its own address: else one machine could empty the pool.
        let lease = self.by_address.get_mut(&address).filter(|lease| lease.holder == holder)?;
        lease.until = now;
        let ended = lease.clone();
        self.by_holder.remove(holder);
        self.free_until.remove(&address);
        // Nor may it empty the pool one address after the other. A declined address that is not quarantined is probed
        // before it is offered to anybody.
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

    /// Ends a lease but remembers its holder, so that the machine gets the address again.
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

    /// The client's own address, else the one that it wishes, else one that was never leased (searched from a place
    /// that the client's name decides, so that it gets the same one even without records), else the longest unused.
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
        // Once every address has been leased, a flood of new names must not cost a search each.
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

/// Seconds of a lease. Firmware needs minutes; the loader and the agent do not renew while they write a disk, so they
/// get what the slowest line needs; an OS renews and gets what the admin configured.
#[must_use]
pub fn lease_seconds(client: Client, ordinary: u32) -> u32 {
    match client {
        Client::Pxe | Client::HttpBoot | Client::Ipxe { .. } => 10 * 60,
        Client::Loader => 12 * 60 * 60,
        Client::Ordinary => ordinary.max(60),
    }
}

/// The client's identity in the pool: the hardware address, or the client identifier where there is none.
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
