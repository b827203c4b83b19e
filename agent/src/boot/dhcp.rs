//! Core: the DHCP client of loader and agent, as a function of (state, event, now) to effects.
//!
//! A machine's firmware and iPXE had a lease moments ago. This client presents itself as the same client (by its
//! Ethernet address, without option 61), so a server gives it the same address again, and sends `swarmboot` in option
//! 60, by which our own server recognises it. A server that knows nothing of swarmboot works as well. Times are
//! milliseconds since the kernel started.
//!
//! Invariants: a packet is accepted only if it is a reply to our Ethernet address and our newest transaction; an
//! address is configured only from an ACK; after a lease has ended its address is removed before anything else. The
//! packets are hostile: every length is checked here, and dhcproto is asked only for what cannot panic (its `chaddr()`
//! does when hlen exceeds 16; options of wrong length end its decoder silently). Touches `dhcproto`.

use std::net::Ipv4Addr;

use common::id::Mac;
use common::text::harmless;
use dhcproto::v4::{self, DhcpOption, Encodable as _, MessageType, Opcode, OptionCode};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// The vendor class that this client sends in option 60.
pub const VENDOR_CLASS: &str = "swarmboot";

/// BOOTP's smallest packet: some relays drop shorter ones (RFC 1542 section 2.1).
const PACKET_BYTES_MIN: usize = 300;

/// The back-off between tries, in milliseconds. Shorter than RFC 2131 section 4.1 wants at first, since a machine that
/// waits for its first packet has nothing else to do; never longer than 8 s, since a switch port with spanning tree
/// begins to forward at any moment.
const PAUSES_MS: [u64; 4] = [1_000, 2_000, 4_000, 8_000];

/// The most requests for one offer; after them the client discovers again.
const REQUESTS: u32 = 4;

/// A lease time above this counts as this, so that times cannot overflow.
const LEASE_S_MAX: u32 = 0x7fff_ffff;

/// A lease time below this, in seconds, counts as this; otherwise the client would renew all the time.
const LEASE_S_MIN: u32 = 30;

/// The shortest pause between two renewals (RFC 2131 section 4.4.5).
const RENEW_PAUSE_MS: u64 = 60_000;

/// An address that a DHCP server leased to this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The leased address of this machine.
    pub address: Ipv4Addr,
    /// The prefix length of its network.
    pub prefix: u8,
    /// The default router; none if the server names none.
    pub router: Option<Ipv4Addr>,
    /// The DHCP server that leased it, which is asked to renew it.
    pub server: Ipv4Addr,
    /// When its request was sent, in milliseconds since the kernel started.
    pub since_ms: u64,
    /// The lease time in seconds; `u32::MAX` is for ever.
    pub seconds: u32,
    /// T1: seconds after which the leasing server is asked to renew it.
    pub renew_s: u32,
    /// T2: seconds after which any server is asked to renew it.
    pub rebind_s: u32,
}

impl Lease {
    fn at(&self, seconds: u32) -> u64 {
        if self.seconds == u32::MAX { u64::MAX } else { self.since_ms + u64::from(seconds) * 1000 }
    }
}

/// An event for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The time of [`Client::due_ms`] has come; at any other time it does nothing.
    Tick,
    /// A packet came to UDP port 68.
    Packet(&'a [u8]),
}

/// An effect that the caller is to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this from port 68 to port 67 of this address (255.255.255.255: a broadcast).
    Send(Ipv4Addr, Vec<u8>),
    /// Give the interface this address and route.
    Configure(Lease),
    /// Remove the address and route of this lease from the interface: it has ended.
    Deconfigure(Lease),
    /// The server sent a NAK for our address, with this message.
    Refused(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Selecting {
        tries: u32,
    },
    Requesting {
        offer: Offer,
        tries: u32,
    },
    Bound {
        lease: Lease,
    },
    /// Past T1 (unicast to its server) or T2 (broadcast to any server).
    Renewing {
        lease: Lease,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
}

/// The DHCP client of one interface.
#[derive(Debug, Clone)]
pub struct Client {
    mac: Mac,
    state: State,
    xid: u32,
    /// When the first packet of this search was sent: option `secs`, by which relays judge urgency.
    since_ms: u64,
    /// When the newest request was sent: a lease counts from then (RFC 2131 section 4.4.1).
    asked_ms: u64,
    due_ms: u64,
}

impl Client {
    /// A client without an address, which starts to discover at once. `seed` makes machines that were powered on
    /// together choose different pauses.
    #[must_use]
    pub fn new(mac: Mac, seed: u32, now_ms: u64) -> Self {
        let state = State::Selecting { tries: 0 };
        Self { mac, state, xid: seed, since_ms: now_ms, asked_ms: now_ms, due_ms: now_ms }
    }

    /// A client that goes on with a lease which is configured already.
    #[must_use]
    pub fn resume(mac: Mac, seed: u32, now_ms: u64, lease: Lease) -> Self {
        let due_ms = lease.at(lease.renew_s);
        Self { mac, state: State::Bound { lease }, xid: seed, since_ms: now_ms, asked_ms: now_ms, due_ms }
    }

    /// When the client is to be given the next [`Event::Tick`], in milliseconds since the kernel started.
    #[must_use]
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Ends the back-off of a client that discovers, because its link has just come up.
    pub fn hurry(&mut self, now_ms: u64) {
        if let State::Selecting { tries } = &mut self.state {
            *tries = 0;
            self.due_ms = now_ms;
        }
    }

    /// Takes in `event`, and returns what is to be done.
    #[must_use]
    pub fn handle(&mut self, event: Event<'_>, now_ms: u64) -> Vec<Effect> {
        match event {
            Event::Tick if now_ms >= self.due_ms => self.tick(now_ms),
            Event::Tick => vec![],
            Event::Packet(bytes) => match Reply::read(bytes, self.mac, self.xid) {
                Some(reply) => self.reply(&reply, now_ms),
                None => vec![],
            },
        }
    }

    fn tick(&mut self, now_ms: u64) -> Vec<Effect> {
        match self.state.clone() {
            State::Selecting { tries } => {
                self.next_transaction();
                self.state = State::Selecting { tries: tries.saturating_add(1) };
                self.due_ms = now_ms + self.pause_ms(tries);
                vec![self.broadcast(MessageType::Discover, None, now_ms)]
            }
            State::Requesting { tries, .. } if tries >= REQUESTS => {
                self.search_again(now_ms);
                self.tick(now_ms)
            }
            State::Requesting { offer, tries } => {
                let effect = self.broadcast(MessageType::Request, Some(&offer), now_ms);
                self.state = State::Requesting { offer, tries: tries + 1 };
                self.asked_ms = now_ms;
                self.due_ms = now_ms + self.pause_ms(tries);
                vec![effect]
            }
            State::Bound { lease } | State::Renewing { lease } if now_ms >= lease.at(lease.seconds) => {
                self.search_again(now_ms);
                let mut effects = vec![Effect::Deconfigure(lease)];
                effects.extend(self.tick(now_ms));
                effects
            }
            State::Bound { lease } => {
                self.since_ms = now_ms;
                self.next_transaction();
                self.renew(lease, now_ms)
            }
            State::Renewing { lease } => self.renew(lease, now_ms),
        }
    }

    /// Asks to keep `lease`; the next time at half of what is left to T2 or the end, as RFC 2131 says.
    fn renew(&mut self, lease: Lease, now_ms: u64) -> Vec<Effect> {
        let rebind = lease.at(lease.rebind_s);
        let (to, mark) = if now_ms < rebind {
            (lease.server, rebind)
        } else {
            (Ipv4Addr::BROADCAST, lease.at(lease.seconds))
        };
        let mut message = self.message(MessageType::Request, now_ms);
        message.set_ciaddr(lease.address);
        let packet = encode(&message);
        self.asked_ms = now_ms;
        // No less than a minute between two requests, unless the lease ends before.
        let pause = (mark.saturating_sub(now_ms) / 2).max(RENEW_PAUSE_MS);
        self.due_ms = (now_ms + pause).min(mark).max(now_ms + 1_000);
        self.state = State::Renewing { lease };
        packet.map(|packet| Effect::Send(to, packet)).into_iter().collect()
    }

    fn reply(&mut self, reply: &Reply, now_ms: u64) -> Vec<Effect> {
        match (self.state.clone(), reply.kind) {
            (State::Selecting { .. }, MessageType::Offer) => {
                // A proxyDHCP server's offer has no address: it is for the firmware, not for us.
                let (Some(server), true) = (reply.server, usable(reply.address)) else { return vec![] };
                let offer = Offer { address: reply.address, server };
                self.state = State::Requesting { offer, tries: 0 };
                self.due_ms = now_ms;
                self.tick(now_ms)
            }
            (State::Requesting { offer, .. }, MessageType::Ack)
                if usable(reply.address) && reply.server.is_none_or(|server| server == offer.server) =>
            {
                self.bind(reply, offer.server)
            }
            // Until T2 only its own server was asked, so an answer of another server is not to our request.
            (State::Renewing { lease }, MessageType::Ack)
                if usable(reply.address)
                    && (now_ms >= lease.at(lease.rebind_s)
                        || reply.server.is_none_or(|server| server == lease.server)) =>
            {
                let mut effects = vec![];
                if reply.address != lease.address {
                    effects.push(Effect::Deconfigure(lease.clone()));
                }
                effects.extend(self.bind(reply, lease.server));
                effects
            }
            (State::Requesting { offer, .. }, MessageType::Nak)
                if reply.server.is_none_or(|server| server == offer.server) =>
            {
                self.search_again(now_ms);
                // Not at once: a server that refuses what it has offered would be asked in a tight loop.
                self.due_ms = now_ms + PAUSES_MS[1];
                vec![Effect::Refused(reply.message.clone())]
            }
            // Another server that does not know the lease may send a NAK, and so may anybody (ipxe/ipxe#879): an
            // address is given up when its own server says so, or when its lease has ended.
            (State::Renewing { lease }, MessageType::Nak) if reply.server == Some(lease.server) => {
                self.search_again(now_ms);
                vec![Effect::Refused(reply.message.clone()), Effect::Deconfigure(lease)]
            }
            _ => vec![],
        }
    }

    fn bind(&mut self, reply: &Reply, server: Ipv4Addr) -> Vec<Effect> {
        let seconds = match reply.lease_s {
            None | Some(u32::MAX) => u32::MAX,
            Some(seconds) => seconds.clamp(LEASE_S_MIN, LEASE_S_MAX),
        };
        let rebind_s = reply.rebind_s.filter(|&s| s < seconds && s > 0).unwrap_or(seconds / 8 * 7);
        let renew_s = reply.renew_s.filter(|&s| s < rebind_s && s > 0).unwrap_or((seconds / 2).min(rebind_s));
        let lease = Lease {
            address: reply.address,
            prefix: reply.prefix.unwrap_or_else(|| class_prefix(reply.address)),
            router: reply.router,
            server: reply.server.unwrap_or(server),
            since_ms: self.asked_ms,
            seconds,
            renew_s,
            rebind_s,
        };
        self.due_ms = lease.at(lease.renew_s);
        self.state = State::Bound { lease: lease.clone() };
        vec![Effect::Configure(lease)]
    }

    fn search_again(&mut self, now_ms: u64) {
        self.state = State::Selecting { tries: 0 };
        self.since_ms = now_ms;
        self.due_ms = now_ms;
    }

    /// A step of a 32-bit linear congruential generator (Numerical Recipes): each search and each renewal gets a number
    /// of its own, so that a late answer to an old one is not taken for an answer to the new one.
    fn next_transaction(&mut self) {
        self.xid = self.xid.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    }

    /// The back-off after try `tries`, lengthened at random by up to a quarter.
    fn pause_ms(&self, tries: u32) -> u64 {
        let pause = PAUSES_MS[(tries as usize).min(PAUSES_MS.len() - 1)];
        pause + pause * u64::from(self.xid >> 24) / 1024
    }

    fn broadcast(&self, kind: MessageType, offer: Option<&Offer>, now_ms: u64) -> Effect {
        let mut message = self.message(kind, now_ms);
        if let Some(offer) = offer {
            let options = message.opts_mut();
            options.insert(DhcpOption::RequestedIpAddress(offer.address));
            options.insert(DhcpOption::ServerIdentifier(offer.server));
        }
        // Without an address the kernel would not deliver a unicast answer.
        message.set_flags(v4::Flags::default().set_broadcast());
        Effect::Send(Ipv4Addr::BROADCAST, encode(&message).unwrap_or_default())
    }

    fn message(&self, kind: MessageType, now_ms: u64) -> v4::Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = v4::Message::new_with_id(self.xid, none, none, none, none, &self.mac.0);
        message.set_secs(u16::try_from(now_ms.saturating_sub(self.since_ms) / 1000).unwrap_or(u16::MAX));
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ClassIdentifier(VENDOR_CLASS.as_bytes().to_vec()));
        options.insert(DhcpOption::MaxMessageSize(1500));
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::AddressLeaseTime,
            OptionCode::Renewal,
            OptionCode::Rebinding,
        ]));
        message
    }
}

/// The fields of a server's packet that this client uses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    kind: MessageType,
    address: Ipv4Addr,
    server: Option<Ipv4Addr>,
    prefix: Option<u8>,
    router: Option<Ipv4Addr>,
    lease_s: Option<u32>,
    renew_s: Option<u32>,
    rebind_s: Option<u32>,
    message: String,
}

impl Reply {
    /// Parses `bytes` as a reply to the transaction `xid` of `mac`; none for any other packet.
    fn read(bytes: &[u8], mac: Mac, xid: u32) -> Option<Self> {
        let packet = v4::borrowed::Message::new(bytes).ok()?;
        let ours = packet.opcode() == Opcode::BootReply
            && packet.xid() == xid
            && packet.hlen() == 6
            && packet.chaddr() == mac.0;
        if !ours {
            return None;
        }
        let mut reply = Self {
            kind: MessageType::Unknown(0),
            address: packet.yiaddr(),
            server: None,
            prefix: None,
            router: None,
            lease_s: None,
            renew_s: None,
            rebind_s: None,
            message: String::new(),
        };
        for option in packet.opts() {
            let data = option.data();
            match option.code() {
                OptionCode::MessageType => reply.kind = MessageType::from(*data.first()?),
                OptionCode::ServerIdentifier => reply.server = address(data),
                OptionCode::SubnetMask => reply.prefix = address(data).and_then(prefix_of),
                OptionCode::Router => reply.router = address(data).filter(|&router| usable(router)),
                OptionCode::AddressLeaseTime => reply.lease_s = number(data),
                OptionCode::Renewal => reply.renew_s = number(data),
                OptionCode::Rebinding => reply.rebind_s = number(data),
                OptionCode::Message => reply.message = text(data),
                _ => {}
            }
        }
        Some(reply)
    }
}

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    data.first_chunk::<4>().map(|&bytes| Ipv4Addr::from(bytes))
}

fn number(data: &[u8]) -> Option<u32> {
    data.first_chunk::<4>().map(|&bytes| u32::from_be_bytes(bytes))
}

fn text(data: &[u8]) -> String {
    harmless(&String::from_utf8_lossy(&data[..data.len().min(120)]))
}

/// The prefix length of a netmask; none if its ones are not all in front, or are none.
fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let ones = bits.leading_ones();
    let contiguous = bits.count_ones() == ones;
    if contiguous && ones > 0 { u8::try_from(ones).ok() } else { None }
}

/// The prefix length of the address' class, for a server that sends no netmask.
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

/// Whether `address` can be that of a machine.
fn usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_broadcast()
        || address.is_loopback()
        || address.is_multicast()
        || address.octets()[0] >= 240)
}

/// The packet's bytes, padded; none only if dhcproto cannot encode the message.
fn encode(message: &v4::Message) -> Option<Vec<u8>> {
    let mut packet = message.to_vec().ok()?;
    packet.resize(packet.len().max(PACKET_BYTES_MIN), 0);
    Some(packet)
}
