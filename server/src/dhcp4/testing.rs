//! Packets as firmware sends them, for the tests of all files of this module. Touches nothing.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::decide::{Decision, Mode, Network, Port, ServerProfile, decide};
use super::lease::Verdict;
use super::place::{Place, Range};
use super::reply;
use super::request::BootRequest;
use crate::boot::choose::Programs;
use crate::fleet::boot_policy::BootPolicy;

/// The server's address in all tests.
pub(super) const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The address that a pool gives in tests of the decision.
pub(super) const GIVEN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 107);

/// Builds a request.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    header: Vec<u8>,
    options: Vec<(u8, Vec<u8>)>,
}

impl Packet {
    /// A message of this type (option 53) from `52:54:00:00:00:01`.
    pub(super) fn new(kind: u8) -> Self {
        let mut header = vec![0; 240];
        header[..4].copy_from_slice(&[1, 1, 6, 0]);
        header[4..8].copy_from_slice(&[0xca, 0xfe, 0xba, 0xbe]);
        header[236..].copy_from_slice(&[99, 130, 83, 99]);
        Self { header, options: vec![(53, vec![kind])] }.mac(1)
    }

    /// A PXE ROM's DISCOVER.
    pub(super) fn pxe(architecture: u16) -> Self {
        let vendor = format!("PXEClient:Arch:{architecture:05}:UNDI:003016");
        Self::new(1)
            .option(60, vendor.as_bytes())
            .option(93, &architecture.to_be_bytes())
            .option(94, &[1, 3, 16])
    }

    /// A UEFI HTTP boot client's DISCOVER.
    pub(super) fn http(architecture: u16) -> Self {
        let vendor = format!("HTTPClient:Arch:{architecture:05}:UNDI:003001");
        Self::pxe(architecture).replace(60, vendor.as_bytes())
    }

    /// iPXE's DISCOVER.
    pub(super) fn ipxe(architecture: u16, http: bool) -> Self {
        let features: &[u8] = if http { &[19, 1, 1, 24, 1, 1] } else { &[24, 1, 1] };
        Self::pxe(architecture).option(77, b"iPXE").option(175, features)
    }

    pub(super) fn kind(self, kind: u8) -> Self {
        self.replace(53, &[kind])
    }

    pub(super) fn mac(mut self, last: u8) -> Self {
        self.header[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, last]);
        self
    }

    pub(super) fn broadcast(mut self) -> Self {
        self.header[10] = 0x80;
        self
    }

    pub(super) fn ciaddr(mut self, address: Ipv4Addr) -> Self {
        self.header[12..16].copy_from_slice(&address.octets());
        self
    }

    pub(super) fn relay(mut self, address: Ipv4Addr) -> Self {
        self.header[24..28].copy_from_slice(&address.octets());
        self
    }

    pub(super) fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.options.push((code, value.to_vec()));
        self
    }

    pub(super) fn replace(mut self, code: u8, value: &[u8]) -> Self {
        self.options.retain(|(known, _)| *known != code);
        self.option(code, value)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.clone();
        for (code, value) in &self.options {
            bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend(value);
        }
        bytes.push(255);
        bytes
    }

    pub(super) fn request(&self) -> BootRequest {
        BootRequest::parse(&self.bytes()).unwrap()
    }
}

/// The profile of a full server.
pub(super) fn full() -> ServerProfile {
    let range = Range { start: Ipv4Addr::new(10, 0, 0, 100), end: Ipv4Addr::new(10, 0, 0, 200) };
    let network = Network {
        range,
        router: Some(Ipv4Addr::new(10, 0, 0, 254)),
        dns: vec![Ipv4Addr::new(9, 9, 9, 9)],
        lease_seconds: 3600,
    };
    ServerProfile { mode: Mode::Full(network), ..beside() }
}

/// The profile of a proxy.
pub(super) fn beside() -> ServerProfile {
    let available = ["undionly.kpxe", "snponly.efi", "snponly-arm64.efi"].map(str::to_owned);
    ServerProfile {
        place: Place { address: US, prefix: 24 },
        http_port: 8069,
        mode: Mode::Proxy,
        discovery: true,
        programs: Programs::new(available, None),
    }
}

/// Decides as if the pool gave [`GIVEN`].
pub(super) fn decided(
    request: &BootRequest,
    port: Port,
    policy: BootPolicy,
    profile: &ServerProfile,
) -> Decision {
    use super::request::Ask;
    decide(request, port, policy, profile, |_| match request.ask {
        Ask::Discover => Verdict::Offered(GIVEN),
        Ask::Request => Verdict::Granted(GIVEN),
        Ask::Decline | Ask::Release | Ask::Inform => Verdict::Silent("no address"),
    })
}

/// Answers `request` in both modes at both ports, and checks what holds for every answer.
pub(super) fn answer_everywhere(request: &BootRequest) {
    for profile in [full(), beside()] {
        for port in [Port::Dhcp, Port::Pxe] {
            let Decision::Answer(answer) = decided(request, port, BootPolicy::Load, &profile) else {
                continue;
            };
            let bytes = reply::encode(request, &answer, &profile).unwrap();
            assert!(bytes.len() >= 300);
            assert!(bytes.len() + 28 <= usize::from(request.max_bytes).max(28 + 240 + 260 + 300));
            assert_eq!((bytes[0], &bytes[4..8]), (2, &request.xid.to_be_bytes()[..]));
            assert_eq!(bytes[2], request.hlen);
            let to = reply::destination(request, &answer, port, SocketAddrV4::new(GIVEN, 68));
            let nobody = Ipv4Addr::UNSPECIFIED;
            assert!(!matches!(to, reply::Destination::Unicast(to) if *to.ip() == nobody));
        }
    }
}
