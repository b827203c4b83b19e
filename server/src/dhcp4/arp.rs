//! ARP probes: whether an address is in use (RFC 2131 section 3.1, step 2; RFC 5227). Touches one packet socket.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use common::id::Mac;
use nix::sys::socket::{MsgFlags, bind, send};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::wire::Interface;

/// The Ethernet type of ARP.
const ETH_P_ARP: u16 = 0x0806;
/// The length of an Ethernet header and an ARP packet for IPv4.
const FRAME_BYTES: usize = 42;

/// Sends and receives ARP packets on one interface.
#[derive(Debug)]
pub(super) struct Arp {
    /// A packet socket: tokio has no type of its own for one, and sending and receiving are the same.
    socket: UdpSocket,
    mac: Mac,
}

impl Arp {
    /// Opens a packet socket that receives ARP and nothing else. Needs `CAP_NET_RAW`, and Ethernet.
    pub(super) fn open(interface: &Interface) -> io::Result<Self> {
        let mac = interface.mac.ok_or_else(|| io::Error::other("the interface is not Ethernet"))?;
        let protocol = Protocol::from(i32::from(ETH_P_ARP.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        // Binding to an address without a protocol keeps the socket's own protocol.
        bind(socket.as_raw_fd(), &interface.link())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, mac })
    }

    /// Broadcasts a probe for `address`.
    pub(super) fn ask(&self, address: Ipv4Addr) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &probe(self.mac, address), MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// The next ARP packet that claims an address: the address, and the Ethernet address that has it. Cancel safe.
    pub(super) async fn hear(&self) -> io::Result<(Ipv4Addr, Mac)> {
        let mut frame = [0; 128];
        loop {
            let length = self.socket.recv(&mut frame).await?;
            if let Some(said) = said(&frame[..length], self.mac) {
                return Ok(said);
            }
        }
    }
}

/// An ARP request for `target` from `mac` without a sender's address, so that it changes no ARP cache.
fn probe(mac: Mac, target: Ipv4Addr) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac.0);
    frame[38..42].copy_from_slice(&target.octets());
    frame
}

/// The address that the sender of an ARP frame claims, and its Ethernet address.
fn said(frame: &[u8], ours: Mac) -> Option<(Ipv4Addr, Mac)> {
    let frame = frame.get(..FRAME_BYTES)?;
    if frame[12..20] != [8, 6, 0, 1, 8, 0, 6, 4] {
        return None;
    }
    let mac = Mac(frame[22..28].try_into().ok()?);
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[28..32]).ok()?);
    (mac != ours && !address.is_unspecified()).then_some((address, mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_asks_and_its_answer_is_read() {
        let (ours, theirs, target) = (Mac([2; 6]), Mac([4; 6]), Ipv4Addr::new(10, 0, 0, 7));
        let asked = probe(ours, target);
        assert_eq!(said(&asked, theirs), None, "a probe claims no address");
        let mut answer = asked;
        answer[20..22].copy_from_slice(&[0, 2]);
        answer[22..28].copy_from_slice(&theirs.0);
        answer[28..32].copy_from_slice(&target.octets());
        assert_eq!(said(&answer, ours), Some((target, theirs)));
        assert_eq!(said(&answer, theirs), None, "our own");
        assert_eq!(said(&answer[..41], ours), None);
        answer[14] = 6;
        assert_eq!(said(&answer, ours), None, "not Ethernet");
    }
}
