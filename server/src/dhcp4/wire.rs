//! Network interfaces and their addresses, UDP sockets bound to one interface, and raw frames for clients that have no
//! address yet. Touches sockets.
//!
//! A client that is being given an address does not answer ARP for it, so an ordinary send would lose the answer after
//! three ARP requests (tried); the frame is built by hand and leaves no state in the kernel.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use common::id::Mac;
use etherparse::PacketBuilder;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrIn, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::place::Place;

/// Bytes of the send buffer for answers that wait for ARP: three seconds at a thousand a second, with overhead.
const ROUTED_BYTES: usize = 4 << 20;

/// A network interface of this host, with its first IPv4 address.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its name, such as `eth1`.
    pub name: String,
    /// Its Ethernet address, if it is Ethernet.
    pub mac: Option<Mac>,
    /// Its first IPv4 address; an interface without one is not served.
    pub address: Ipv4Addr,
    /// The prefix length of its network.
    pub prefix: u8,
    link: LinkAddr,
}

impl Interface {
    /// Its link-layer address and index, to bind packet sockets to.
    pub(super) fn link(&self) -> LinkAddr {
        self.link
    }

    /// The server's address in this interface's network.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { address: self.address, prefix: self.prefix }
    }
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The kernel listed no interfaces.
    #[error("the network interfaces cannot be listed")]
    List(#[source] io::Error),
    /// There is no interface of that name.
    #[error("there is no interface {name} (there is: {known})")]
    NotFound {
        /// The name that was asked for.
        name: String,
        /// The names of all interfaces, for the error message.
        known: String,
    },
    /// The interface has no IPv4 address.
    #[error("interface {name} has no IPv4 address")]
    NoAddress {
        /// The name that was asked for.
        name: String,
    },
}

/// Finds the interface called `name`.
///
/// # Errors
///
/// When there is none, or it has no IPv4 address.
pub fn interface_address(name: &str) -> Result<Interface, InterfaceError> {
    let all = nix::ifaddrs::getifaddrs().map_err(|errno| InterfaceError::List(errno.into()))?;
    let (mut link, mut ipv4, mut known) = (None, None, Vec::new());
    for entry in all {
        if let Some(address) = entry.address.as_ref().and_then(|address| address.as_link_addr()) {
            known.push(entry.interface_name.clone());
            if entry.interface_name == name {
                link = Some(*address);
            }
        }
        let address = entry.address.as_ref().and_then(|address| address.as_sockaddr_in());
        let mask = entry.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in());
        if let (Some(address), Some(mask), true, None) = (address, mask, entry.interface_name == name, ipv4) {
            ipv4 = Some((address.ip(), mask.ip().to_bits().leading_ones()));
        }
    }
    let link =
        link.ok_or_else(|| InterfaceError::NotFound { name: name.to_owned(), known: known.join(", ") })?;
    let (address, ones) = ipv4.ok_or_else(|| InterfaceError::NoAddress { name: name.to_owned() })?;
    let mac = link.addr().filter(|bytes| *bytes != [0; 6]).map(Mac);
    let prefix = u8::try_from(ones).unwrap_or(32);
    Ok(Interface { name: name.to_owned(), mac, address, prefix, link })
}

/// How an interface's address has changed since the server started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// The address is as it was.
    None,
    /// The interface is gone, or has no address.
    Gone,
    /// It has another first address, or another prefix.
    Changed(Place),
}

/// Compares the address of interface `name` with the one that it had.
#[must_use]
pub fn drift(name: &str, had: Place) -> Drift {
    match interface_address(name) {
        Ok(now) if now.place() == had => Drift::None,
        Ok(now) => Drift::Changed(now.place()),
        Err(_) => Drift::Gone,
    }
}

/// A UDP socket at `port` that receives and sends only on `interface`, broadcasts included. Another server on this host
/// may share the port if it allows that too.
pub(super) fn udp_socket(interface: &Interface, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    UdpSocket::from_std(socket.into())
}

/// Sends from `interface`'s own address: PXE ROMs drop an answer that comes from any other. Never waits: what does not
/// fit into the socket's buffer is an error, and the client retries.
pub(super) fn send(
    socket: &UdpSocket,
    interface: &Interface,
    bytes: &[u8],
    to: SocketAddrV4,
) -> io::Result<()> {
    let info = libc::in_pktinfo {
        ipi_ifindex: libc::c_int::try_from(interface.link.ifindex()).unwrap_or(0),
        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(interface.address.octets()) },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let to = SockaddrIn::from(to);
    let parts = [io::IoSlice::new(bytes)];
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
    Ok(())
}

/// Sends to relays and to clients that have an address. The kernel keeps such a packet, and its share of the socket's
/// buffer, for three seconds while nobody answers ARP for its address; a few hundred forged relays a second would fill
/// the buffer of the socket that all others are answered from (tried). So this is another socket, with a larger buffer.
#[derive(Debug)]
pub(super) struct Routed {
    socket: Socket,
    address: Ipv4Addr,
}

impl Routed {
    /// Opens a raw socket that receives nothing. Needs `CAP_NET_RAW`.
    pub(super) fn open(interface: &Interface) -> io::Result<Self> {
        let protocol = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        // Root may exceed the system's limit; others get what the limit allows.
        let room = ROUTED_BYTES;
        if setsockopt(&socket, sockopt::SndBufForce, &room).is_err() {
            let _ = setsockopt(&socket, sockopt::SndBuf, &room);
        }
        Ok(Self { socket, address: interface.address })
    }

    /// Sends a DHCP answer from port `from`. Never waits, as with [`send`].
    pub(super) fn send(&self, bytes: &[u8], from: u16, to: SocketAddrV4) -> io::Result<()> {
        let builder = PacketBuilder::ipv4(self.address.octets(), to.ip().octets(), 64).udp(from, to.port());
        let mut packet = Vec::with_capacity(builder.size(bytes.len()));
        builder.write(&mut packet, bytes).map_err(io::Error::other)?;
        self.socket.send_to(&packet, &SocketAddrV4::new(*to.ip(), 0).into())?;
        Ok(())
    }
}

/// Sends frames to clients that have no address yet.
#[derive(Debug)]
pub(super) struct Frames {
    socket: OwnedFd,
    mac: Mac,
    address: Ipv4Addr,
}

impl Frames {
    /// Opens a packet socket that receives nothing (protocol 0). Needs `CAP_NET_RAW`; without it, or on an
    /// interface that is not Ethernet, answers are broadcast instead.
    pub(super) fn open(interface: &Interface) -> io::Result<Self> {
        let mac = interface.mac.ok_or_else(|| io::Error::other("the interface is not Ethernet"))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = nix::sys::socket::socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        nix::sys::socket::bind(socket.as_raw_fd(), &interface.link)?;
        Ok(Self { socket, mac, address: interface.address })
    }

    /// Sends a DHCP answer to the client `mac` at `address`, from `ports.0` to `ports.1`. Never waits: a full queue is
    /// an error, and the client retries.
    pub(super) fn send(
        &self,
        bytes: &[u8],
        mac: Mac,
        address: Ipv4Addr,
        ports: (u16, u16),
    ) -> io::Result<()> {
        let frame = frame(self.mac, self.address, mac, address, ports, bytes)?;
        nix::sys::socket::send(self.socket.as_raw_fd(), &frame, MsgFlags::empty())?;
        Ok(())
    }
}

/// Encodes an Ethernet frame with a UDP packet.
pub(super) fn frame(
    from_mac: Mac,
    from: Ipv4Addr,
    to_mac: Mac,
    to: Ipv4Addr,
    ports: (u16, u16),
    bytes: &[u8],
) -> io::Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(from_mac.0, to_mac.0)
        .ipv4(from.octets(), to.octets(), 64)
        .udp(ports.0, ports.1);
    let mut frame = Vec::with_capacity(builder.size(bytes.len()));
    builder.write(&mut frame, bytes).map_err(io::Error::other)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found_and_nonsense_is_not() {
        let lo = interface_address("lo").unwrap();
        assert_eq!((lo.address, lo.prefix, lo.mac), (Ipv4Addr::LOCALHOST, 8, None));
        let error = interface_address("no such thing").unwrap_err();
        assert!(matches!(&error, InterfaceError::NotFound { known, .. } if known.contains("lo")), "{error}");
    }

    #[test]
    fn a_frame_parses_back() {
        let (ours, theirs) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let to = Ipv4Addr::new(10, 0, 0, 7);
        let bytes = frame(ours, Ipv4Addr::new(10, 0, 0, 1), theirs, to, (67, 68), &[7; 300]).unwrap();
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(&bytes).unwrap();
        let udp = parsed.transport.unwrap().udp().unwrap();
        assert_eq!((udp.source_port, udp.destination_port), (67, 68));
        assert_eq!(parsed.payload.slice(), [7; 300]);
        assert_eq!(bytes[..6], theirs.0);
    }
}
