//! Other DHCP and network boot servers on the network: noticed when they answer somebody, and named, because machines
//! take whichever answers first. [`Rivals`] is a core; [`Ears`] touches one packet socket.
//!
//! PXE firmware asks for broadcast answers, so most of them are received here; a unicast answer to one machine is not.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use common::limits::DHCP_RIVALS_MAX;
use nix::sys::socket::bind;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

use super::offer::Offer;
use super::wire::Interface;

/// Seconds after which a server that was not seen again is forgotten: a day.
const FORGOTTEN: u64 = 24 * 3600;

/// Another DHCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// The address that its answers name as the server's (option 54), else the one that they came from.
    pub address: Ipv4Addr,
    /// Whether it gives out addresses.
    pub addresses: bool,
    /// The boot file that its answers name; `PXE` where they name none but are for PXE clients; `None` if it boots
    /// nothing.
    pub boots: Option<String>,
}

/// The other servers that were seen within [`FORGOTTEN`].
#[derive(Debug)]
pub(super) struct Rivals {
    ours: Ipv4Addr,
    heard: Vec<(Rival, u64)>,
}

impl Rivals {
    pub(super) fn new(ours: Ipv4Addr) -> Self {
        Self { ours, heard: Vec::new() }
    }

    /// Notes that `rival` was seen at `now`, in seconds; `full` says whether this server gives out addresses. Returns
    /// what is known of the rival, if that is new and matters.
    pub(super) fn note(&mut self, rival: Rival, full: bool, now: u64) -> Option<Rival> {
        self.heard.retain(|(_, last)| now.saturating_sub(*last) < FORGOTTEN);
        // In proxy mode another server gives out the addresses, as it should.
        let matters = rival.boots.is_some() || (full && rival.addresses);
        if !matters || rival.address == self.ours || rival.address.is_unspecified() {
            return None;
        }
        if let Some((known, last)) = self.heard.iter_mut().find(|(known, _)| known.address == rival.address) {
            *last = now;
            let before = known.clone();
            known.addresses |= rival.addresses;
            known.boots = rival.boots.or(known.boots.take());
            return (known.addresses != before.addresses || known.boots.is_some() != before.boots.is_some())
                .then(|| known.clone());
        }
        if self.heard.len() >= DHCP_RIVALS_MAX {
            return None;
        }
        self.heard.push((rival.clone(), now));
        Some(rival)
    }

    /// All that are remembered.
    pub(super) fn all(&self) -> Vec<Rival> {
        self.heard.iter().map(|(rival, _)| rival.clone()).collect()
    }
}

/// The DHCP packet in an Ethernet frame to a client, and the address that it came from.
fn packet(frame: &[u8]) -> Option<(&[u8], Ipv4Addr)> {
    let ip = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    let length = usize::from(ip.first()? & 0x0f) * 4;
    let (source, udp) =
        (Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(12..16)?).ok()?), ip.get(length.max(20)..)?);
    Some((udp.get(8..).filter(|_| ip[9] == 17 && udp[2..4] == [0, 68])?, source))
}

/// The server that sent this Ethernet frame; `None` if the frame is no DHCP offer or acknowledgement.
fn read(frame: &[u8]) -> Option<Rival> {
    let (packet, source) = packet(frame)?;
    let Offer { options, server, addresses, file, .. } = Offer::of(packet, source)?;
    let pxe = options.get(60).starts_with(b"PXEClient") || options.get(60).starts_with(b"HTTPClient");
    let boots = file.or_else(|| pxe.then(|| "PXE".to_owned()));
    Some(Rival { address: server, addresses, boots })
}

/// Receives the answers of other servers.
#[derive(Debug)]
pub(super) struct Ears {
    /// A packet socket: tokio has no type of its own for one, and receiving is the same.
    socket: UdpSocket,
}

impl Ears {
    /// Opens a packet socket that receives packets to DHCP clients, and nothing else. Needs `CAP_NET_RAW`, and
    /// Ethernet.
    pub(super) fn open(interface: &Interface) -> io::Result<Self> {
        interface.mac.ok_or_else(|| io::Error::other("the interface is not Ethernet"))?;
        let protocol = Protocol::from(i32::from(0x0800_u16.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&FILTER)?;
        bind(socket.as_raw_fd(), &interface.link())?;
        let ears = Self { socket: UdpSocket::from_std(socket.into())? };
        // Drops what was received before filter and interface were set.
        let mut frame = [0; 2048];
        while ears.socket.try_recv(&mut frame).is_ok() {}
        Ok(ears)
    }

    /// The next packet to a DHCP client with its sender's address; `None` if it is cut short. Cancel safe.
    pub(super) async fn packet(&self) -> io::Result<Option<(Vec<u8>, Ipv4Addr)>> {
        let mut frame = [0; 2048];
        let length = self.socket.recv(&mut frame).await?;
        Ok(packet(&frame[..length]).map(|(packet, source)| (packet.to_vec(), source)))
    }

    /// The socket itself, to send from.
    pub(super) fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }

    /// The next answer of another server; the server's own are not received. Cancel safe.
    pub(super) async fn hear(&self) -> io::Result<Rival> {
        let mut frame = [0; 2048];
        loop {
            let length = self.socket.recv(&mut frame).await?;
            if let Some(rival) = read(&frame[..length]) {
                return Ok(rival);
            }
        }
    }
}

/// The filter in the kernel, so that other frames do not wake this process: IPv4, UDP, not a later fragment, to port 68
/// (classic BPF: load, compare, jump over `yes` or `no` instructions).
const FILTER: [SockFilter; 11] = [
    SockFilter::new(0x28, 0, 0, 12),
    SockFilter::new(0x15, 0, 7, 0x0800),
    SockFilter::new(0x30, 0, 0, 23),
    SockFilter::new(0x15, 0, 5, 17),
    SockFilter::new(0x28, 0, 0, 20),
    SockFilter::new(0x45, 3, 0, 0x1fff),
    SockFilter::new(0xb1, 0, 0, 14),
    SockFilter::new(0x48, 0, 0, 16),
    SockFilter::new(0x15, 1, 0, 68),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, 0xffff),
];

#[cfg(test)]
mod tests {
    use super::super::decide::{Decision, Port, ServerProfile};
    use super::super::place::Place;
    use super::super::testing::{Packet, beside, decided, full};
    use super::super::{reply, wire};
    use super::*;
    use crate::fleet::boot_policy::BootPolicy;
    use common::id::Mac;

    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 66);
    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    /// What a server with this profile at [`OTHER`] answers to `packet`.
    fn answer(packet: &Packet, profile: &ServerProfile) -> Vec<u8> {
        let profile = ServerProfile { place: Place { address: OTHER, prefix: 24 }, ..profile.clone() };
        let request = packet.request();
        let Decision::Answer(answer) = decided(&request, Port::Dhcp, BootPolicy::Load, &profile) else {
            panic!()
        };
        let bytes = reply::encode(&request, &answer, &profile).unwrap();
        let all = (Mac([2; 6]), Mac([0xff; 6]));
        wire::frame(all.0, OTHER, all.1, Ipv4Addr::BROADCAST, (67, 68), &bytes).unwrap()
    }

    #[test]
    fn other_servers_are_known_by_what_they_answer() {
        let rival = |addresses, boots: Option<&str>| {
            Some(Rival { address: OTHER, addresses, boots: boots.map(str::to_owned) })
        };
        assert_eq!(read(&answer(&Packet::new(1), &full())), rival(true, None));
        assert_eq!(read(&answer(&Packet::pxe(0), &full())), rival(true, Some("undionly.kpxe")));
        assert_eq!(read(&answer(&Packet::pxe(7), &beside())), rival(false, Some("PXE")));
        let script = read(&answer(&Packet::ipxe(7, true), &beside())).unwrap().boots;
        assert_eq!(script.as_deref(), Some("http://10.0.0.66:8069/boot.ipxe"));
        let good = answer(&Packet::pxe(0), &full());
        for length in 0..good.len().min(300) {
            let _ = read(&good[..length]);
        }
        let mut request = good.clone();
        request[42] = 1;
        assert_eq!(read(&request), None);
    }

    #[test]
    fn what_matters_is_told_once_and_forgotten_after_a_day() {
        let dhcp = Rival { address: OTHER, addresses: true, boots: None };
        let pxe = Rival { boots: Some("pxelinux.0".to_owned()), ..dhcp.clone() };
        let mut rivals = Rivals::new(OURS);
        assert_eq!(rivals.note(dhcp.clone(), false, 0), None, "a proxy stands beside one");
        assert_eq!(rivals.note(Rival { address: OURS, ..pxe.clone() }, true, 0), None, "that is us");
        assert_eq!(rivals.note(dhcp.clone(), true, 0), Some(dhcp.clone()));
        assert_eq!(rivals.note(dhcp.clone(), true, 1), None);
        assert_eq!(rivals.note(pxe.clone(), true, 2), Some(pxe.clone()), "it boots machines, too");
        assert_eq!(rivals.note(dhcp.clone(), true, 3), None);
        assert_eq!(rivals.all(), [pxe]);
        assert_eq!(rivals.note(dhcp.clone(), true, 4 + FORGOTTEN), Some(dhcp));
        for n in 0..=255 {
            let many = Rival { address: Ipv4Addr::new(10, 1, 0, n), addresses: true, boots: None };
            rivals.note(many, true, FORGOTTEN + 5);
        }
        assert_eq!(rivals.all().len(), DHCP_RIVALS_MAX);
    }
}
