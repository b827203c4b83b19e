//! Magic packets, which switch machines on over Ethernet: six bytes of ones and the address sixteen times, as AMD's
//! white paper 20213 has it. Sent as UDP broadcasts to port 9, which no router passes on: whoever sends one must be on the
//! machine's own LAN. Touches a socket for each packet.

use std::io;
use std::net::Ipv4Addr;

use common::id::Mac;
use tokio::net::UdpSocket;

/// The discard port: no service answers there, and network cards look at every frame.
const PORT: u16 = 9;

/// Packets for one machine: one that comes while a switch still learns is lost, and a second one harms nothing.
const TIMES: usize = 3;

/// Sends magic packets for `mac`, out of the interface with the address `from`, or by the host's own routes.
///
/// # Errors
/// When no socket can be had, or the network cannot be reached.
pub async fn wake(mac: Mac, from: Option<Ipv4Addr>) -> io::Result<()> {
    let socket = UdpSocket::bind((from.unwrap_or(Ipv4Addr::UNSPECIFIED), 0)).await?;
    socket.set_broadcast(true)?;
    let packet = packet(mac);
    for _ in 0..TIMES {
        socket.send_to(&packet, (Ipv4Addr::BROADCAST, PORT)).await?;
    }
    Ok(())
}

fn packet(mac: Mac) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    for _ in 0..16 {
        packet.extend_from_slice(&mac.0);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_as_network_cards_want_it() {
        let packet = packet(Mac([2, 0, 0, 0, 0, 7]));
        assert_eq!(packet.len(), 102);
        assert_eq!(packet[..12], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7]);
        assert!(packet[6..].chunks(6).all(|part| part == [2, 0, 0, 0, 0, 7]));
    }
}
