//! Core: bytes to [`BootRequest`]. All suspicion of packets lives here: what this module has let through is
//! never checked again. Touches `common`.
//!
//! Options are walked by hand, not by dhcproto: one malformed option makes its decoder drop all later ones
//! without a word, a second architecture in option 93 is lost, some wrong lengths are a `debug_assert`, and an
//! hlen above 16 panics when the address is asked for (all tried with 0.15.0). Firmware sends such packets.

use std::net::Ipv4Addr;

use common::id::Mac;
use common::limits::DHCP_REQUEST_BYTES_MAX;

use crate::fleet::boot_policy::Asker;

/// The BOOTP header and the magic cookie (RFC 2131 section 2).
pub(super) const HEADER: usize = 240;
pub(super) const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// What a client asks (option 53), as far as a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Looking for servers.
    Discover,
    /// Takes an offer, or renews.
    Request,
    /// Found its address in use by another.
    Decline,
    /// Gives its address back.
    Release,
    /// Has an address, wants the rest.
    Inform,
}

/// What kind of program asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// Does not want to network-boot: an installed OS, a phone.
    Ordinary,
    /// Our loader (vendor class `swarmboot`): it has booted and wants an address.
    Loader,
    /// A PXE ROM, BIOS or UEFI.
    Pxe,
    /// UEFI HTTP boot.
    HttpBoot,
    /// iPXE, from a NIC's ROM or the one that we sent.
    Ipxe {
        /// Whether it can fetch over HTTP. Some ROMs are built without.
        http: bool,
    },
}

impl Client {
    /// Whether it asks to network-boot.
    #[must_use]
    pub fn netboots(self) -> bool {
        matches!(self, Self::Pxe | Self::HttpBoot | Self::Ipxe { .. })
    }
}

/// A DHCP request, checked. Can only be made by [`BootRequest::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootRequest {
    /// What it asks.
    pub ask: Ask,
    /// What kind of program asks.
    pub client: Client,
    /// The transaction, copied into the answer.
    pub xid: u32,
    /// The flags, copied into the answer; see [`BootRequest::broadcast`].
    pub flags: u16,
    /// The address that the client already uses, or 0.0.0.0.
    pub ciaddr: Ipv4Addr,
    /// The relay it came through, or 0.0.0.0.
    pub giaddr: Ipv4Addr,
    /// Kind of hardware address; 1 is Ethernet.
    pub htype: u8,
    /// Bytes of `chaddr` in use: at most 16. Firmware that sends its GUID there says 16.
    pub hlen: u8,
    /// The hardware address, copied into the answer whole.
    pub chaddr: [u8; 16],
    /// Option 50: the address that it wants.
    pub wanted: Option<Ipv4Addr>,
    /// Option 54: the server that it means.
    pub server: Option<Ipv4Addr>,
    /// Option 57: the longest answer that it takes, with IP and UDP headers; at least 576.
    pub max_bytes: u16,
    /// Option 60, as it came.
    pub vendor_class: Vec<u8>,
    /// Option 61, as it came; empty when absent.
    pub client_id: Vec<u8>,
    /// Option 82, as it came, to be echoed; empty when absent.
    pub relay_info: Vec<u8>,
    /// Option 93: all architectures, raw, in the order of the client.
    pub architectures: Vec<u16>,
    /// Option 97, as it came, to be echoed; empty when absent.
    pub guid: Vec<u8>,
}

/// Why bytes are no request. An expected value: port 67 hears everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotARequest {
    /// Shorter than a header, or longer than a frame.
    #[error("it has {0} bytes")]
    Length(usize),
    /// A reply, or nonsense.
    #[error("its operation is {0}, not a request's 1")]
    Operation(u8),
    /// The cookie is wrong.
    #[error("it has no DHCP cookie")]
    Cookie,
    /// The hardware address cannot be.
    #[error("it claims a hardware address of {0} bytes")]
    HardwareAddress(u8),
    /// Option 53 is missing, has a wrong length, or is a server's message.
    #[error("it is no client's DHCP message")]
    MessageType,
}

impl BootRequest {
    /// Reads a packet.
    ///
    /// # Errors
    ///
    /// When it is no client's DHCP message. Malformed options alone are not an error: what could be read before
    /// and after them counts.
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

    /// Whether the answer must be broadcast, because the client cannot take unicast before it has an address.
    #[must_use]
    pub fn broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// The relay that it came through, if any.
    #[must_use]
    pub fn relay(&self) -> Option<Ipv4Addr> {
        (!self.giaddr.is_unspecified()).then_some(self.giaddr)
    }

    /// The client's subnet as its relay tells: the link selection in option 82 where there is one, because a switch
    /// with an anycast gateway puts its own loopback into giaddr (RFC 3527 section 3), else the relay's address.
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

    /// The small board that this is, when it says that it is a BIOS PC: no PC's program runs on it.
    #[must_use]
    pub fn board(&self) -> Option<&'static str> {
        let pc = self.architectures.iter().all(|number| matches!(number, 0 | 20));
        let mark = self.guid.get(1..4) == Some(b"RPi");
        let maker = self.mac().is_some_and(|Mac([a, b, c, ..])| RASPBERRY_PI.contains(&[a, b, c]));
        (self.client == Client::Pxe && pc && (mark || maker)).then_some("raspberry pi")
    }

    /// The client's Ethernet address, when that is what it gave.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        let bytes: [u8; 6] = self.chaddr[..6].try_into().ok()?;
        let real = bytes != [0; 6] && bytes[0] & 1 == 0;
        (self.htype == 1 && self.hlen == 6 && real).then_some(Mac(bytes))
    }

    /// Who asks, as far as a packet tells.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker { mac: self.mac(), uuid: uuid(&self.guid), serial: None }
    }
}

/// The first halves of Raspberry Pi's Ethernet addresses (IEEE's list): its boot ROM says that it is a BIOS PC, and
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

/// Who asks: by what it calls itself, iPXE before all else, because it also says `PXEClient`.
fn client(options: &Options) -> Client {
    let vendor = options.get(60);
    // iPXE sends its user class raw; RFC 3004 wants a length before it. Either way the four letters are there.
    // Its encapsulated options are the second proof, which a changed user class does not take away.
    let says = |word: &[u8; 4]| options.get(77).windows(4).any(|four| four == word);
    // gPXE, iPXE's ancestor in the ROMs of about 2010, has option 175 too but cannot read our scripts: a PXE ROM, whose
    // next program is iPXE.
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

/// A client that does not say what it is: options 93, 94 and 97 mark one that network-boots (RFC 4578 section 2), and
/// some firmware says `PXEClient` in its DISCOVER only. One alone would be little; no OS sends two of them.
fn marked(options: &Options) -> Client {
    let listed = options.get(93);
    if listed.len() < 2 || (options.get(94).is_empty() && options.get(97).is_empty()) {
        return Client::Ordinary;
    }
    // Numbers 15 to 19 of IANA's list are firmware that fetches over HTTP.
    let http = architectures(listed, &[]).iter().all(|number| (15..=19).contains(number));
    if http { Client::HttpBoot } else { Client::Pxe }
}

/// Whether iPXE's own options (175) hold feature 19, HTTP. gPXE and iPXE list only what they were built with.
fn ipxe_has_http(encapsulated: &[u8]) -> bool {
    let mut http = false;
    walk(encapsulated, |code, value| http |= code == 19 && value.first() != Some(&0));
    http
}

/// Option 93, or what option 60 says in text, or BIOS: old ROMs send neither, and no UEFI is that old.
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

/// Option 97 (RFC 4578 section 2.3): a type byte 0 and the SMBIOS UUID, whose first three fields have the low
/// byte first. All zeros and all ones are no UUID: boards whose maker never set one send that. Neither is what small
/// boards make up: one word four times, or a maker's mark in letters and what stands behind it.
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

/// RFC 2132 section 9.10: 576 is the least that every host takes.
fn max_bytes(option: &[u8]) -> u16 {
    <[u8; 2]>::try_from(option).map_or(576, u16::from_be_bytes).clamp(576, 1500)
}

/// The options of a packet, those of one code joined in the order of their appearance (RFC 3396), wherever they
/// stand: `file` and `sname` too when option 52 says so.
pub(super) struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    /// Of a packet with a whole header.
    pub(super) fn of(packet: &[u8]) -> Self {
        let mut options = Self(Vec::new());
        options.add(&packet[HEADER..]);
        let overload = options.get(52).first().copied().unwrap_or(0);
        if overload & 1 != 0 {
            options.add(&packet[108..236]);
        }
        if overload & 2 != 0 {
            options.add(&packet[44..108]);
        }
        options
    }

    fn add(&mut self, bytes: &[u8]) {
        walk(bytes, |code, value| match self.0.iter_mut().find(|(known, _)| *known == code) {
            Some((_, joined)) => joined.extend_from_slice(value),
            None => self.0.push((code, value.to_vec())),
        });
    }

    /// The option's bytes; empty when it is absent.
    pub(super) fn get(&self, code: u8) -> &[u8] {
        self.0.iter().find(|(known, _)| *known == code).map_or(&[], |(_, value)| value)
    }
}

/// Calls `each` with every option of a code-length-value list, until its end or the first that is cut short.
fn walk(mut bytes: &[u8], mut each: impl FnMut(u8, &[u8])) {
    loop {
        match bytes {
            [0, rest @ ..] => bytes = rest,
            [255, ..] | [] | [_] => return,
            [code, length, rest @ ..] => {
                let Some((value, after)) = rest.split_at_checked(usize::from(*length)) else { return };
                each(*code, value);
                bytes = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp4::testing::Packet;
    use proptest::prelude::*;

    #[test]
    fn a_uefi_machine_is_read_whole() {
        let guid = [0, 0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde, 1, 2, 3, 4, 5, 6, 7, 8];
        let request = Packet::pxe(7).mac(9).option(97, &guid).option(57, &[5, 192]).request();
        assert_eq!((request.client, request.ask), (Client::Pxe, Ask::Discover));
        assert_eq!((request.architectures.as_slice(), request.max_bytes), (&[7][..], 1472));
        let asker = request.asker();
        assert_eq!(asker.mac, Some(Mac([0x52, 0x54, 0, 0, 0, 9])));
        assert_eq!(asker.uuid.as_deref(), Some("12345678-9abc-def0-0102-030405060708"));
    }

    #[test]
    fn clients_are_told_apart() {
        let table = [
            (Packet::new(1), Client::Ordinary),
            (Packet::new(1).option(60, b"MSFT 5.0"), Client::Ordinary),
            (Packet::new(1).option(60, b"swarmboot"), Client::Loader),
            (Packet::pxe(0), Client::Pxe),
            (Packet::new(1).option(60, b"HTTPClient:Arch:00016:UNDI:003001"), Client::HttpBoot),
            (Packet::pxe(7).option(77, b"iPXE"), Client::Ipxe { http: true }),
            (Packet::pxe(7).option(77, b"\x04iPXE"), Client::Ipxe { http: true }),
            (Packet::pxe(0).option(175, &[19, 1, 1, 235, 3, 1, 21, 1]), Client::Ipxe { http: true }),
            (
                Packet::pxe(0).option(77, b"iPXE").option(175, &[235, 3, 1, 0, 0]),
                Client::Ipxe { http: false },
            ),
        ];
        for (packet, wanted) in table {
            assert_eq!(packet.request().client, wanted, "{packet:?}");
        }
    }

    #[test]
    fn a_client_that_does_not_say_so_is_known_by_its_marks() {
        let marks = |number: u16| Packet::new(1).option(93, &number.to_be_bytes()).option(94, &[1, 2, 1]);
        let guid = [&[0][..], &[7; 15], &[9]].concat();
        let table = [
            (marks(0), Client::Pxe),
            (marks(7).option(97, &guid), Client::Pxe),
            (marks(16), Client::HttpBoot),
            (Packet::new(1).option(93, &[0, 7]).option(97, &guid), Client::Pxe),
            (marks(22).option(60, b"U-Boot.armv8"), Client::Pxe),
            (Packet::new(1).option(93, &[0, 7]), Client::Ordinary),
            (Packet::new(1).option(94, &[1, 2, 1]).option(97, &guid), Client::Ordinary),
            (Packet::new(1).option(93, &[7]).option(94, &[1, 2, 1]), Client::Ordinary),
            (marks(7).option(60, b"swarmboot"), Client::Loader),
        ];
        for (packet, wanted) in table {
            assert_eq!(packet.request().client, wanted, "{packet:?}");
        }
    }

    #[test]
    fn gpxe_in_a_rom_is_a_pxe_rom() {
        let features = [0xb1, 5, 1, 0x10, 0xec, 0x81, 0x39, 19, 1, 1];
        let rom = Packet::pxe(0).option(77, b"gPXE").option(175, &features);
        assert_eq!(rom.request().client, Client::Pxe);
        assert_eq!(
            Packet::pxe(0).option(77, b"iPXE").option(175, &features).request().client,
            Client::Ipxe { http: true }
        );
    }

    #[test]
    fn a_small_board_that_says_it_is_a_pc_is_named() {
        let guid = [&[0][..], b"RPi4\x11\x31\xc0\0abcdefgh"].concat();
        let board = Packet::pxe(0).option(97, &guid);
        assert_eq!(board.request().board(), Some("raspberry pi"));
        assert_eq!(Packet::pxe(11).option(97, &guid).request().board(), None, "with UEFI on it");
        assert_eq!(Packet::pxe(0).request().board(), None);
        let mut old = Packet::pxe(0).bytes();
        old[28..31].copy_from_slice(&[0xb8, 0x27, 0xeb]);
        assert_eq!(BootRequest::parse(&old).unwrap().board(), Some("raspberry pi"));
        // Dell's UUIDs begin with letters too, and each is one machine's.
        let dell = [&[0][..], b"DELL\0\x34\x10\x35\x80\x4c\xb3\xc0O5J1"].concat();
        let dell = Packet::pxe(0).option(97, &dell).request();
        assert!(dell.board().is_none() && dell.asker().uuid.is_some());
    }

    #[test]
    fn the_relay_says_which_subnet_it_asks_for() {
        let (relay, link) = (Ipv4Addr::new(198, 51, 100, 9), Ipv4Addr::new(10, 0, 0, 0));
        let with = |option: &[u8]| Packet::pxe(0).relay(relay).option(82, option).request().link();
        assert_eq!(with(&[5, 4, 10, 0, 0, 0]), Some(link));
        assert_eq!(with(&[1, 2, 7, 7, 5, 4, 10, 0, 0, 0, 2, 1, 1]), Some(link));
        for odd in [&[5, 4, 10, 0][..], &[5, 2, 10, 0], &[5, 4, 0, 0, 0, 0], &[1, 1, 5], &[5], &[]] {
            assert_eq!(with(odd), Some(relay), "{odd:?}");
        }
        assert_eq!(
            Packet::pxe(0).option(82, &[5, 4, 10, 0, 0, 0]).request().link(),
            None,
            "no relay sent it"
        );
    }

    #[test]
    fn architectures_come_from_where_they_can() {
        let both = Packet::pxe(0).replace(93, &[0, 9, 0, 7]).request();
        assert_eq!(both.architectures, [9, 7]);
        let text = Packet::new(1).option(60, b"PXEClient:Arch:00007:UNDI:003016").request();
        assert_eq!(text.architectures, [7]);
        assert_eq!(Packet::new(1).option(60, b"PXEClient").request().architectures, [0]);
    }

    #[test]
    fn what_is_no_request_is_refused_by_its_name() {
        let good = Packet::pxe(7).bytes();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            BootRequest::parse(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 2), NotARequest::Operation(2));
        assert_eq!(with(2, 17), NotARequest::HardwareAddress(17));
        assert_eq!(with(236, 0), NotARequest::Cookie);
        assert_eq!(BootRequest::parse(&good[..239]), Err(NotARequest::Length(239)));
        assert_eq!(BootRequest::parse(&good[..240]), Err(NotARequest::MessageType));
        assert_eq!(BootRequest::parse(&[0; 1501]), Err(NotARequest::Length(1501)));
        for servers in [2, 5, 6, 0, 255] {
            assert_eq!(BootRequest::parse(&Packet::new(servers).bytes()), Err(NotARequest::MessageType));
        }
    }

    #[test]
    fn a_malformed_option_hides_no_other() {
        let request = Packet::new(1).option(12, &[0xff, 0xfe]).option(94, &[1]).option(50, &[1, 2]);
        let request = request.option(60, b"PXEClient").option(93, &[0, 7]).request();
        assert_eq!((request.client, request.architectures.as_slice()), (Client::Pxe, &[7][..]));
        assert_eq!(request.wanted, None);
    }

    #[test]
    fn options_are_joined_and_found_in_the_file_field() {
        let split = Packet::new(1).option(60, b"PXECl").option(12, b"x").option(60, b"ient").request();
        assert_eq!(split.client, Client::Pxe);
        let mut bytes = Packet::new(1).option(52, &[1]).bytes();
        bytes[108..121].copy_from_slice(b"\x3c\x09PXEClient\xff\x00");
        assert_eq!(BootRequest::parse(&bytes).unwrap().client, Client::Pxe);
    }

    #[test]
    fn odd_hardware_addresses_are_no_macs_and_blank_uuids_no_uuids() {
        let mut guid_as_address = Packet::pxe(7).bytes();
        guid_as_address[2] = 16;
        assert_eq!(BootRequest::parse(&guid_as_address).unwrap().mac(), None);
        for blank in [
            [0; 16],
            [0xff; 16],
            *b"RPi4\x11\x31\xc0\0abcdefgh",
            *b"RPi5\0\0\0\0\0\0\0\0\0\0\0\x01",
            *b"abcdabcdabcdabcd",
        ] {
            let guid = [&[0][..], &blank].concat();
            assert_eq!(Packet::pxe(7).option(97, &guid).request().asker().uuid, None);
        }
        assert_eq!(Packet::pxe(7).option(97, &[0; 5]).request().asker().uuid, None);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1600)) {
            let _ = BootRequest::parse(&bytes);
        }

        #[test]
        fn mutated_packets_never_panic_and_are_answerable(
            changes in prop::collection::vec((0_usize..400, any::<u8>()), 0..40),
            tail in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = Packet::pxe(7).option(97, &[1; 17]).option(82, &[1, 2, 3, 4]).bytes();
            bytes.pop();
            bytes.extend(tail);
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            if let Ok(request) = BootRequest::parse(&bytes) {
                prop_assert!(request.hlen <= 16 && request.max_bytes >= 576);
                crate::dhcp4::testing::answer_everywhere(&request);
            }
        }
    }
}
