//! Core: encodes an answer, and decides where and how it is sent. Touches dhcproto.
//!
//! Faults of dhcproto 0.15.0 that are avoided here: it does not pad to BOOTP's 300 bytes (old ROMs drop shorter
//! packets), panics on a file name over 128 bytes, writes option 82 twice when given as raw bytes, and truncates
//! lengths over 255. Its default message draws a random transaction id; ours always has the request's.

use std::net::{Ipv4Addr, SocketAddrV4};

use common::id::Mac;
use dhcproto::v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Encodable, Encoder};

use super::decide::{Answer, Boot, BootFile, Kind, Mode, Port, ServerProfile, Vendor};
use super::request::BootRequest;

/// BOOTP's shortest packet (RFC 951).
const BOOTP_BYTES_MIN: usize = 300;
/// Bytes of the IP and UDP headers, which option 57 counts.
const HEADERS: usize = 28;
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// Where an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To an address that answers ARP.
    Unicast(SocketAddrV4),
    /// To all hosts of the link, at this port.
    Broadcast(u16),
    /// To a client that does not have its address yet, in a frame to its Ethernet address.
    Frame {
        /// The Ethernet address that the frame is for.
        mac: Mac,
        /// The address that it is being given.
        address: Ipv4Addr,
    },
}

/// Where the answer to a request that came from `source` goes: RFC 2131 section 4.1, and for port 4011 back to
/// where it came from (EDK2 sends from 4011 and listens there, BIOS ROMs use 68).
#[must_use]
pub fn destination(request: &BootRequest, answer: &Answer, port: Port, source: SocketAddrV4) -> Destination {
    if port == Port::Pxe {
        return if source.ip().is_unspecified() {
            Destination::Broadcast(source.port())
        } else {
            Destination::Unicast(source)
        };
    }
    if let Some(relay) = request.relay() {
        return Destination::Unicast(SocketAddrV4::new(relay, SERVER_PORT));
    }
    if answer.kind == Kind::Nak {
        return Destination::Broadcast(CLIENT_PORT);
    }
    if !request.ciaddr.is_unspecified() {
        return Destination::Unicast(SocketAddrV4::new(request.ciaddr, CLIENT_PORT));
    }
    match (answer.lease, request.mac()) {
        (Some((address, _)), Some(mac)) if !request.broadcast() => Destination::Frame { mac, address },
        _ => Destination::Broadcast(CLIENT_PORT),
    }
}

/// Encodes the packet, at most as long as option 57 allows: options that firmware can do without are left out for that,
/// last of all those that RFCs only recommend.
///
/// # Errors
///
/// When dhcproto cannot encode it; no answer of this server is known to cause that.
pub fn encode(
    request: &BootRequest,
    answer: &Answer,
    profile: &ServerProfile,
) -> Result<Vec<u8>, dhcproto::error::EncodeError> {
    let room = usize::from(request.max_bytes) - HEADERS;
    let mut message = header(request, answer, profile);
    add_options(&mut message, request, answer, profile);
    let mut bytes = with_relay_info(&message, request)?;
    let expendable = [
        OptionCode::ClientIdentifier,
        OptionCode::Unknown(150),
        OptionCode::TFTPServerName,
        OptionCode::ClientMachineIdentifier,
    ];
    for code in expendable {
        if bytes.len() <= room {
            break;
        }
        message.opts_mut().remove(code);
        bytes = with_relay_info(&message, request)?;
    }
    bytes.resize(bytes.len().max(BOOTP_BYTES_MIN), 0);
    Ok(bytes)
}

fn header(request: &BootRequest, answer: &Answer, profile: &ServerProfile) -> Message {
    let zero = Ipv4Addr::UNSPECIFIED;
    let ciaddr = if answer.kind == Kind::Ack { request.ciaddr } else { zero };
    let yiaddr = answer.lease.map_or(zero, |(address, _)| address);
    // A boot client reads siaddr before option 54; others ignore it.
    let siaddr = if answer.boot.is_some() { profile.place.address } else { zero };
    let hardware = &request.chaddr[..usize::from(request.hlen)];
    let mut message = Message::new_with_id(request.xid, ciaddr, yiaddr, siaddr, request.giaddr, hardware);
    // An answer that has no address of the client can only be broadcast, by a relay too.
    let nobody = yiaddr.is_unspecified() && ciaddr.is_unspecified();
    let flags = if nobody { request.flags | 0x8000 } else { request.flags };
    message.set_opcode(Opcode::BootReply).set_htype(HType::from(request.htype)).set_flags(Flags::new(flags));
    if let Some(boot) = &answer.boot {
        message.set_sname_str(profile.place.address.to_string());
        // U-Boot reads only this field. URLs are not put in it, because they may not fit.
        if let Some(BootFile::Tftp(file)) = &boot.file
            && file.len() < 128
        {
            message.set_fname_str(file);
        }
    }
    message
}

fn add_options(message: &mut Message, request: &BootRequest, answer: &Answer, profile: &ServerProfile) {
    let kind = match answer.kind {
        Kind::Offer => MessageType::Offer,
        Kind::Ack => MessageType::Ack,
        Kind::Nak => MessageType::Nak,
    };
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(profile.place.address));
    if let Some((_, seconds)) = answer.lease {
        options.insert(DhcpOption::AddressLeaseTime(seconds));
        options.insert(DhcpOption::Renewal(seconds / 2));
        options.insert(DhcpOption::Rebinding(seconds / 8 * 7));
    }
    let mut raw = |code: u8, bytes: &[u8]| {
        if !bytes.is_empty() && bytes.len() <= 255 {
            options.insert(DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), bytes.to_vec())));
        }
    };
    if let (true, Mode::Full(network)) = (answer.network, &profile.mode) {
        let mask = u32::MAX.checked_shl(32 - u32::from(profile.place.prefix)).unwrap_or(0);
        raw(1, &mask.to_be_bytes());
        raw(28, &(profile.place.address.to_bits() | !mask).to_be_bytes());
        raw(3, network.router.map(|router| router.octets()).as_ref().map_or(&[], <[u8; 4]>::as_slice));
        let dns: Vec<u8> = network.dns.iter().take(8).flat_map(Ipv4Addr::octets).collect();
        raw(6, &dns);
    }
    // RFC 6842 and RFC 4578: these are echoed.
    raw(61, &request.client_id);
    raw(97, &request.guid);
    if let Some(boot) = &answer.boot {
        add_boot(boot, profile, raw);
    }
}

fn add_boot(boot: &Boot, profile: &ServerProfile, mut raw: impl FnMut(u8, &[u8])) {
    match boot.vendor {
        Some(Vendor::Pxe) => raw(60, b"PXEClient"),
        Some(Vendor::Http) => raw(60, b"HTTPClient"),
        None => {}
    }
    if boot.no_menu {
        raw(43, &[6, 1, 8, 255]);
    }
    if boot.no_proxy {
        raw(175, &[176, 1, 1]);
    }
    match &boot.file {
        Some(BootFile::Tftp(file)) => {
            raw(66, profile.place.address.to_string().as_bytes());
            raw(150, &profile.place.address.octets());
            // EDK2 writes a zero one byte past an option 67 that does not end in one.
            raw(67, &[file.as_bytes(), b"\0"].concat());
        }
        Some(BootFile::Url(url)) => raw(67, &[url.as_bytes(), b"\0"].concat()),
        None => {}
    }
}

/// The message, with the relay's option 82 as it came and as the last option (RFC 3046 section 2.2).
fn with_relay_info(
    message: &Message,
    request: &BootRequest,
) -> Result<Vec<u8>, dhcproto::error::EncodeError> {
    let mut bytes = Vec::with_capacity(512);
    message.encode(&mut Encoder::new(&mut bytes))?;
    if let Ok(length @ 1..) = u8::try_from(request.relay_info.len()) {
        bytes.pop();
        bytes.extend([82, length]);
        bytes.extend(&request.relay_info);
        bytes.push(255);
    }
    Ok(bytes)
}
