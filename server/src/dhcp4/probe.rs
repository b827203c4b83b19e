//! Asks a network who answers machines that boot from it, as their firmware would, and lists the answers: for `doctor`.
//! Takes no address and tells nobody that it will. Touches a packet socket, and a UDP socket for port 4011.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use common::id::Mac;
use nix::sys::socket::{MsgFlags, send};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::offer::Offer;
use super::options::{HEADER, MAGIC};
use super::rivals::Ears;
use super::wire::{Interface, frame};

/// The most answers that are listed; more are a broken network.
const ANSWERS_MAX: usize = 64;

/// The firmware that a question is asked as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// A PC with a legacy BIOS.
    Bios,
    /// A PC with UEFI.
    Uefi,
}

impl Asked {
    /// The architecture's number (option 93).
    fn architecture(self) -> u16 {
        match self {
            Self::Bios => 0,
            Self::Uefi => 7,
        }
    }
}

/// An answer to a machine that looks for a network boot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// Who answered.
    pub server: Ipv4Addr,
    /// The firmware that it would be an answer for.
    pub asked: Asked,
    /// Whether it came from port 4011, where UEFI asks a proxyDHCP server once more.
    pub second: bool,
    /// Whether it offers an address.
    pub addresses: bool,
    /// Whether it says that it is for PXE clients (option 60).
    pub pxe: bool,
    /// Whether it says what PXE clients shall do (option 43); without it UEFI asks at port 4011.
    pub menu: bool,
    /// The boot file that it names.
    pub file: Option<String>,
}

/// Asks twice as each kind of firmware, and returns who answered within `wait`; sorted, each answer once. Needs
/// `CAP_NET_RAW`, and Ethernet.
///
/// # Errors
/// When the sockets cannot be opened.
pub async fn probe(interface: &Interface, wait: Duration) -> io::Result<Vec<Answer>> {
    let mac = interface.mac.ok_or_else(|| io::Error::other("the interface is not Ethernet"))?;
    let ears = Ears::open(interface)?;
    let mut answers: Vec<Answer> = vec![];
    let ends = Instant::now() + wait;
    for round in 0..2_u32 {
        for asked in [Asked::Bios, Asked::Uefi] {
            let everybody = (Mac([0xff; 6]), Ipv4Addr::BROADCAST);
            let question = question(1, mac, Ipv4Addr::UNSPECIFIED, asked);
            let bytes = frame(mac, Ipv4Addr::UNSPECIFIED, everybody.0, everybody.1, (68, 67), &question)?;
            send(ears.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT)?;
        }
        let until = if round == 0 { Instant::now() + wait / 2 } else { ends };
        while let Ok(heard) = tokio::time::timeout_at(until, ears.packet()).await {
            let answer = heard?.and_then(|(packet, source)| read(&packet, source));
            if let Some(answer) =
                answer.filter(|answer| !answers.contains(answer) && answers.len() < ANSWERS_MAX)
            {
                answers.push(answer);
            }
        }
    }
    let proxies: Vec<Answer> =
        answers.iter().filter(|answer| answer.pxe && answer.file.is_none()).cloned().collect();
    for proxy in proxies {
        answers.extend(ask_again(interface, mac, &proxy).await);
    }
    answers.sort();
    answers.dedup();
    Ok(answers)
}

/// Asks a proxyDHCP server at port 4011, as UEFI does when it was told no boot file.
async fn ask_again(interface: &Interface, mac: Mac, proxy: &Answer) -> Option<Answer> {
    let socket = UdpSocket::bind(SocketAddrV4::new(interface.address, 0)).await.ok()?;
    let question = question(3, mac, interface.address, proxy.asked);
    socket.send_to(&question, SocketAddrV4::new(proxy.server, 4011)).await.ok()?;
    let mut bytes = [0; 2048];
    let heard = tokio::time::timeout(Duration::from_secs(2), socket.recv_from(&mut bytes));
    let Ok(Ok((length, SocketAddr::V4(from)))) = heard.await else { return None };
    read(&bytes[..length], *from.ip()).map(|answer| Answer { second: true, ..answer })
}

/// The number by which answers to our questions are known, with the architecture in it.
fn number(asked: Asked) -> [u8; 4] {
    [b's', b'w', b'd', u8::try_from(asked.architecture()).unwrap_or(0)]
}

/// A DISCOVER (1) or REQUEST (3) of firmware; answers to it are to be broadcast.
fn question(kind: u8, mac: Mac, own: Ipv4Addr, asked: Asked) -> Vec<u8> {
    let mut packet = vec![0; HEADER];
    packet[..4].copy_from_slice(&[1, 1, 6, 0]);
    packet[4..8].copy_from_slice(&number(asked));
    packet[10] = 0x80;
    packet[12..16].copy_from_slice(&own.octets());
    packet[28..34].copy_from_slice(&mac.0);
    packet[HEADER - 4..].copy_from_slice(&MAGIC);
    let [high, low] = asked.architecture().to_be_bytes();
    let vendor = format!("PXEClient:Arch:{:05}:UNDI:003016", asked.architecture());
    let mut guid = [0; 17];
    guid[11..].copy_from_slice(&mac.0);
    let options: [(u8, &[u8]); 7] = [
        (53, &[kind]),
        (55, &[1, 3, 6, 13, 43, 54, 60, 66, 67, 97]),
        (57, &[5, 0xc0]),
        (60, vendor.as_bytes()),
        (93, &[high, low]),
        (94, &[1, 3, 16]),
        (97, &guid),
    ];
    for (code, value) in options {
        packet.extend([code, u8::try_from(value.len()).unwrap_or(0)]);
        packet.extend(value);
    }
    packet.push(255);
    packet
}

/// The answer in a DHCP packet from `source`; `None` if it is no offer or acknowledgement, or not for us.
fn read(packet: &[u8], source: Ipv4Addr) -> Option<Answer> {
    let Offer { transaction, options, server, addresses, file } = Offer::of(packet, source)?;
    let asked = [Asked::Bios, Asked::Uefi].into_iter().find(|asked| *transaction == number(*asked))?;
    Some(Answer {
        server,
        asked,
        second: false,
        addresses,
        pxe: options.get(60).starts_with(b"PXEClient"),
        menu: !options.get(43).is_empty(),
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::super::decide::{Decision, Port, ServerProfile};
    use super::super::request::{BootRequest, Client};
    use super::super::testing::{US, beside, decided, full};
    use super::super::{reply, testing};
    use super::*;
    use crate::fleet::boot_policy::BootPolicy;

    fn answer(question: &[u8], port: Port, profile: &ServerProfile) -> Answer {
        let request = BootRequest::parse(question).unwrap();
        assert_eq!(request.client, Client::Pxe);
        let Decision::Answer(answer) = decided(&request, port, BootPolicy::Load, profile) else { panic!() };
        read(&reply::encode(&request, &answer, profile).unwrap(), testing::GIVEN).unwrap()
    }

    /// Our own server is asked, as a foreign one would be.
    #[test]
    fn a_question_is_answered_as_firmware_is() {
        let ask = |kind, asked| question(kind, Mac([2, 0, 0, 0, 0, 9]), Ipv4Addr::UNSPECIFIED, asked);
        let all = answer(&ask(1, Asked::Bios), Port::Dhcp, &full());
        assert_eq!((all.server, all.addresses, all.file.as_deref()), (US, true, Some("undionly.kpxe")));
        let proxy = answer(&ask(1, Asked::Uefi), Port::Dhcp, &beside());
        assert!(proxy.pxe && !proxy.addresses && proxy.file.is_none(), "{proxy:?}");
        let second = question(3, Mac([2, 0, 0, 0, 0, 9]), testing::GIVEN, Asked::Uefi);
        assert_eq!(answer(&second, Port::Pxe, &beside()).file.as_deref(), Some("snponly.efi"));
    }

    #[test]
    fn answers_to_others_and_rubbish_are_none() {
        let question = question(1, Mac([2; 6]), Ipv4Addr::UNSPECIFIED, Asked::Bios);
        assert_eq!(read(&question, US), None, "a question is no answer");
        let mut packet = question.clone();
        packet[0] = 2;
        packet[HEADER + 2] = 2;
        assert!(read(&packet, US).is_some());
        packet[4] ^= 1;
        assert_eq!(read(&packet, US), None, "to somebody else");
        for length in 0..question.len() {
            let _ = read(&packet[..length], US);
        }
    }
}
