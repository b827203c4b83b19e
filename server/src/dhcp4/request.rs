//! Core: parses bytes into a [`BootRequest`]. All checks of packets are in this file: what it has accepted is not
//! checked again. Touches `common`.

use std::net::Ipv4Addr;

use common::id::Mac;
use common::limits::DHCP_REQUEST_BYTES_MAX;

use super::options::{HEADER, MAGIC, Options, walk};
use crate::fleet::boot_policy::Asker;

/// The message type of a request (option 53), of those that clients send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Looks for servers.
    Discover,
    /// Takes an offer, or renews.
    Request,
    /// Found that its address is in use by another host.
    Decline,
    /// Gives its address back.
    Release,
    /// Has an address, and asks for the other parameters.
    Inform,
}

/// Which kind of program sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// One that does not ask for a network boot: an installed OS, a phone.
    Ordinary,
    /// The loader of swarmboot (vendor class `swarmboot`): it has booted and needs an address.
    Loader,
    /// A PXE ROM, BIOS or UEFI.
    Pxe,
    /// UEFI HTTP boot.
    HttpBoot,
    /// iPXE, from a NIC's ROM or as the boot program of this server.
    Ipxe {
        /// Whether it can fetch over HTTP. Some ROMs are built without.
        http: bool,
    },
}

impl Client {
    /// Whether it asks for a network boot.
    #[must_use]
    pub fn netboots(self) -> bool {
        matches!(self, Self::Pxe | Self::HttpBoot | Self::Ipxe { .. })
    }
}

/// A DHCP request, checked. Can only be made by [`BootRequest::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootRequest {
    /// The message type.
    pub ask: Ask,
    /// Which kind of program sent it.
    pub client: Client,
    /// The transaction id, echoed in the answer.
    pub xid: u32,
    /// The flags, echoed in the answer; see [`BootRequest::broadcast`].
    pub flags: u16,
    /// The address that the client already uses, or 0.0.0.0.
    pub ciaddr: Ipv4Addr,
    /// The relay that forwarded it, or 0.0.0.0.
    pub giaddr: Ipv4Addr,
    /// The type of the hardware address; 1 is Ethernet.
    pub htype: u8,
    /// Bytes of `chaddr` in use: at most 16. Firmware that sends its GUID there sets 16.
    pub hlen: u8,
    /// The hardware address, echoed in the answer with all 16 bytes.
    pub chaddr: [u8; 16],
    /// Option 50: the address that it requests.
    pub wanted: Option<Ipv4Addr>,
    /// Option 54: the server that the request is for.
    pub server: Option<Ipv4Addr>,
    /// Option 57: the longest answer that it accepts, with IP and UDP headers; 576 to 1500.
    pub max_bytes: u16,
    /// Option 60, as it was sent; empty when absent.
    pub vendor_class: Vec<u8>,
    /// Option 61, as it was sent; empty when absent.
    pub client_id: Vec<u8>,
    /// Option 82, as it was sent, to be echoed; empty when absent.
    pub relay_info: Vec<u8>,
    /// Option 93: all architectures, in the order of the client; never empty, see `architectures`.
    pub architectures: Vec<u16>,
    /// Option 97, as it was sent, to be echoed; empty when absent.
    pub guid: Vec<u8>,
}

/// Why a packet is no request. Expected: port 67 receives all kinds of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotARequest {
    /// It is shorter than a header, or longer than a frame.
    #[error("it has {0} bytes")]
    Length(usize),
    /// It is a reply, or no BOOTP packet.
    #[error("its operation is {0}, not a request's 1")]
    Operation(u8),
    /// The magic cookie of DHCP is wrong.
    #[error("it has no DHCP cookie")]
    Cookie,
    /// The length of the hardware address is over 16.
    #[error("it claims a hardware address of {0} bytes")]
    HardwareAddress(u8),
    /// Option 53 is missing, has a wrong length, or is a server's message.
    #[error("it is no client's DHCP message")]
    MessageType,
}

impl BootRequest {
    /// Parses and checks a packet.
    ///
    /// # Errors
    ///
    /// When it is no client's DHCP message. Malformed options alone are no error: those that can be parsed count.
    pub fn parse(packet: &[u8]) -> Result<Self, NotARequest> {
        let header = packet.get(..HEADER).filter(|_| packet.len() <= DHCP_REQUEST_BYTES_MAX);
        let header = header.ok_or(NotARequest::Length(packet.len()))?;
        if header[0] != 1 {
            return Err(NotARequest::Operation(header[0]));
        }
        if header[HEADER - 4..] != MAGIC {
            return Err(NotARequest::Cookie);
        }
        let hlen = header[2];
        if hlen > 16 {
            return Err(NotARequest::HardwareAddress(hlen));
        }
        let options = Options::of(packet);
        let ask = match options.get(53) {
            [1] => Ask::Discover,
            [3] => Ask::Request,
            [4] => Ask::Decline,
            [7] => Ask::Release,
            [8] => Ask::Inform,
            _ => return Err(NotARequest::MessageType),
        };
        Ok(Self {
            ask,
            client: client(&options),
            xid: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            flags: u16::from_be_bytes([header[10], header[11]]),
            ciaddr: address(&header[12..16]).unwrap_or(Ipv4Addr::UNSPECIFIED),
            giaddr: address(&header[24..28]).unwrap_or(Ipv4Addr::UNSPECIFIED),
            htype: header[1],
            hlen,
            chaddr: header[28..44].try_into().unwrap_or_default(),
            wanted: address(options.get(50)),
            server: address(options.get(54)),
            max_bytes: max_bytes(options.get(57)),
            vendor_class: options.get(60).to_vec(),
            client_id: options.get(61).to_vec(),
            relay_info: options.get(82).to_vec(),
            architectures: architectures(options.get(93), options.get(60)),
            guid: options.get(97).to_vec(),
        })
    }

    /// Whether the answer must be broadcast, because the client cannot receive unicast before it has an address.
    #[must_use]
    pub fn broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// The relay that forwarded it, if any.
    #[must_use]
    pub fn relay(&self) -> Option<Ipv4Addr> {
        (!self.giaddr.is_unspecified()).then_some(self.giaddr)
    }

    /// The client's subnet as its relay tells: the link selection in option 82 if there is one, because a switch with
    /// an anycast gateway puts its own loopback into giaddr (RFC 3527 section 3), else the relay's address.
    #[must_use]
    pub fn link(&self) -> Option<Ipv4Addr> {
        let relay = self.relay()?;
        let mut selected = None;
        walk(&self.relay_info, |code, value| {
            if code == 5 {
                selected = address(value).filter(|link| !link.is_unspecified());
            }
        });
        Some(selected.unwrap_or(relay))
    }

    /// The small board that this is, though it claims to be a BIOS PC: no boot program for a PC runs on it.
    #[must_use]
    pub fn board(&self) -> Option<&'static str> {
        let pc = self.architectures.iter().all(|number| matches!(number, 0 | 20));
        let mark = self.guid.get(1..4) == Some(b"RPi");
        let maker = self.mac().is_some_and(|Mac([a, b, c, ..])| RASPBERRY_PI.contains(&[a, b, c]));
        (self.client == Client::Pxe && pc && (mark || maker)).then_some("raspberry pi")
    }

    /// The client's Ethernet address, if it sent one that is possible.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        let bytes: [u8; 6] = self.chaddr[..6].try_into().ok()?;
        let real = bytes != [0; 6] && bytes[0] & 1 == 0;
        (self.htype == 1 && self.hlen == 6 && real).then_some(Mac(bytes))
    }

    /// The client's identity, as far as a packet has it.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker { mac: self.mac(), uuid: uuid(&self.guid), serial: None }
    }
}

/// The first halves of Raspberry Pi's Ethernet addresses (IEEE's list): its boot ROM claims to be a BIOS PC, and
/// older ones have a GUID without the mark.
const RASPBERRY_PI: [[u8; 3]; 7] = [
    [0xb8, 0x27, 0xeb],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x28, 0xcd, 0xc1],
    [0xd8, 0x3a, 0xdd],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];

/// The kind of client, from how it calls itself; iPXE is tested first, because it also sends `PXEClient`.
fn client(options: &Options) -> Client {
    let vendor = options.get(60);
    // iPXE sends its user class without the length that RFC 3004 wants before it. Either way the four letters are
    // there. Its encapsulated options show it too, even if the user class was changed.
    let says = |word: &[u8; 4]| options.get(77).windows(4).any(|four| four == word);
    // gPXE, iPXE's predecessor in ROMs of about 2010, has option 175 too but cannot read our scripts: it counts as a
    // PXE ROM, whose next program is iPXE.
    let gpxe = says(b"gPXE") && !says(b"iPXE");
    let encapsulated = options.get(175);
    if says(b"iPXE") || (!encapsulated.is_empty() && !gpxe) {
        return Client::Ipxe { http: encapsulated.is_empty() || ipxe_has_http(encapsulated) };
    }
    if gpxe || vendor.starts_with(b"PXEClient") {
        Client::Pxe
    } else if vendor.starts_with(b"HTTPClient") {
        Client::HttpBoot
    } else if vendor.starts_with(b"swarmboot") {
        Client::Loader
    } else {
        marked(options)
    }
}

/// A client that does not say what it is: options 93, 94 and 97 are of a network boot (RFC 4578 section 2), and some
/// firmware sends `PXEClient` in its DISCOVER only. One of them alone would prove little; no OS sends two.
fn marked(options: &Options) -> Client {
    let listed = options.get(93);
    if listed.len() < 2 || (options.get(94).is_empty() && options.get(97).is_empty()) {
        return Client::Ordinary;
    }
    // Numbers 15 to 19 of IANA's list are firmware that boots over HTTP.
    let http = architectures(listed, &[]).iter().all(|number| (15..=19).contains(number));
    if http { Client::HttpBoot } else { Client::Pxe }
}

/// Whether iPXE's own options (175) have feature 19, HTTP. gPXE and iPXE list only what they were built with.
fn ipxe_has_http(encapsulated: &[u8]) -> bool {
    let mut http = false;
    walk(encapsulated, |code, value| http |= code == 19 && value.first() != Some(&0));
    http
}

/// The architectures of option 93, else the one that option 60 has as text, else BIOS: old ROMs send neither, and no
/// UEFI is that old.
fn architectures(option: &[u8], vendor_class: &[u8]) -> Vec<u16> {
    let listed: Vec<u16> =
        option.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    if !listed.is_empty() {
        return listed;
    }
    let text = String::from_utf8_lossy(vendor_class);
    let told =
        text.split_once("Arch:").and_then(|(_, rest)| rest.get(..5)).and_then(|digits| digits.parse().ok());
    vec![told.unwrap_or(0)]
}

/// Option 97 (RFC 4578 section 2.3): a type byte 0 and the SMBIOS UUID, whose first three fields have the low byte
/// first. `None` for all zeros and all ones, which boards send whose maker never set a UUID, and for what small boards
/// make up: one word four times, or a maker's mark in letters followed by a digit.
fn uuid(guid: &[u8]) -> Option<String> {
    let [0, id @ ..] = guid else { return None };
    let id: &[u8; 16] = id.try_into().ok()?;
    let repeated = id.chunks_exact(4).all(|word| *word == id[..4]);
    if repeated || (id.starts_with(b"RPi") && id[3].is_ascii_digit()) {
        return None;
    }
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let digits = hex::encode(order.map(|at| id[at]));
    Some(format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    ))
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

/// RFC 2132 section 9.10: 576 is the least that every host accepts.
fn max_bytes(option: &[u8]) -> u16 {
    <[u8; 2]>::try_from(option).map_or(576, u16::from_be_bytes).clamp(576, 1500)
}

#[cfg(test)]
mod tests;
