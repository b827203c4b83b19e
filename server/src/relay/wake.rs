//! Wakes machines of the site, when the server says so: magic packets, broadcast on the relay's interface. Touches one
//! UDP socket.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;

use common::id::Mac;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::site::Site;

/// Sends a packet for each order of the server, once, until `cancel`.
pub(super) async fn run(
    mut site: watch::Receiver<Arc<Site>>,
    interface: String,
    address: Ipv4Addr,
    cancel: CancellationToken,
) {
    let mut done = 0;
    loop {
        let now = Arc::clone(&site.borrow_and_update());
        let orders = now.work().map(|work| work.wake.clone()).unwrap_or_default();
        for order in orders.iter().filter(|order| order.number > done) {
            match send(&interface, address, order.mac) {
                Ok(()) => tracing::info!(machine = %order.machine, mac = %order.mac, "woken"),
                Err(error) => {
                    tracing::warn!(machine = %order.machine, mac = %order.mac, %error, "a machine could not be woken");
                }
            }
        }
        done = orders.iter().map(|order| order.number).fold(done, u64::max);
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = site.changed() => if changed.is_err() { return },
        }
    }
}

/// Broadcasts the packet for `mac` on the interface.
fn send(interface: &str, address: Ipv4Addr, mac: Mac) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddrV4::new(address, 0))?;
    socket.set_broadcast(true)?;
    let of_socket = socket2::SockRef::from(&socket);
    // Needs CAP_NET_RAW; without it the kernel's routes decide, which lead to the interface as well where it has a
    // network of its own.
    if let Err(error) = of_socket.bind_device(Some(interface.as_bytes())) {
        tracing::debug!(%error, "the packet is not bound to its interface");
    }
    // Port 9, discard: nothing answers there, and NICs look for the pattern in any frame.
    socket.send_to(&packet(mac), SocketAddrV4::new(Ipv4Addr::BROADCAST, 9)).map(drop)
}

/// The magic packet: six bytes of ones, then the address sixteen times (AMD, Magic Packet Technology, 1995).
fn packet(mac: Mac) -> Vec<u8> {
    [&[0xff; 6][..], &mac.0.repeat(16)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_what_nics_look_for() {
        let packet = packet(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!((packet.len(), &packet[..8]), (102, &[255, 255, 255, 255, 255, 255, 0x52, 0x54][..]));
        assert!(packet[6..].chunks(6).all(|part| part == [0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    }
}
