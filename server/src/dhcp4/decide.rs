//! Core: decides what a request is answered, from the request and the machine's boot policy. Touches `common`.
//!
//! What each kind of firmware makes of an answer (read from the sources of EDK2 and iPXE, and from the workarounds in
//! dnsmasq and pixiecore):
//!
//! | client | we are the DHCP server | proxyDHCP, port 67 | port 4011 |
//! | --- | --- | --- | --- |
//! | BIOS ROM | address, file; no option 60 | 60, 43 {6 = 8}, file | the same |
//! | UEFI PXE | address, file; no option 60 | 60 only: "come to 4011" | 60, file |
//! | UEFI HTTP boot | address, 60, URL | 60, URL | silence |
//! | iPXE | address, script's URL, "no proxy" | 60, script's URL | the same |
//! | anyone else | address | silence | silence |
//!
//! With option 60 from a full server UEFI would go to port 4011 though it has its file already. As a proxy, option 60
//! alone is what "seemingly all" UEFI accepts; an offer that skips 4011 is ignored by some.

use std::net::Ipv4Addr;

use super::lease::{Verdict, lease_seconds};
use super::place::{Place, Range};
use super::request::{Ask, BootRequest, Client};
use crate::boot::choose::{self, Family, NoProgram, Programs, Transport};
use crate::fleet::boot_policy::{BootPolicy, ClientKind, Unanswered};

/// The port that a request was received at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Port {
    /// 67.
    Dhcp,
    /// 4011, where PXE clients ask for their boot file after a proxy offer.
    Pxe,
}

/// What the network's DHCP server gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The range of addresses that are given out.
    pub range: Range,
    /// The default gateway, if there is one.
    pub router: Option<Ipv4Addr>,
    /// Name servers, of which the first 8 are sent.
    pub dns: Vec<Ipv4Addr>,
    /// The lease of an installed OS, in seconds; at least 60.
    pub lease_seconds: u32,
}

/// Which kind of DHCP server this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The network's own DHCP server.
    Full(Network),
    /// A proxy beside another DHCP server: boot answers only, never an address, never a refusal.
    Proxy,
}

/// What the server is in its network, as answers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerProfile {
    /// The server's address and network.
    pub place: Place,
    /// The port of the machines' HTTP at that address.
    pub http_port: u16,
    /// Whether it gives out addresses.
    pub mode: Mode,
    /// Whether machines are answered that no admin has named, approved or ordered anything for.
    pub discovery: bool,
    /// The boot programs that can be served.
    pub programs: Programs,
}

/// What is done about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Send this answer.
    Answer(Answer),
    /// Probe whether this address is in use, then decide again.
    Check(Ipv4Addr),
    /// Send nothing, for this reason.
    Silence(Unanswered),
}

/// The kind of an answer (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers a DISCOVER; a client may get several and choose.
    Offer,
    /// Answers a REQUEST or an INFORM.
    Ack,
    /// Tells the client to give up its address.
    Nak,
}

/// An answer, before it is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which message of DHCP it is.
    pub kind: Kind,
    /// The client's address and its lease in seconds; `None` from a proxy, in a refusal, and in answer to an INFORM.
    pub lease: Option<(Ipv4Addr, u32)>,
    /// Whether it has subnet mask, router and name servers.
    pub network: bool,
    /// How to boot; `None` for a client that did not ask for a network boot.
    pub boot: Option<Boot>,
    /// The kind of client, for the log.
    pub firmware: ClientKind,
}

/// Which vendor class (option 60) an answer carries, so that firmware takes it as meant for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// `PXEClient`.
    Pxe,
    /// `HTTPClient`.
    Http,
}

/// What the client is to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootFile {
    /// A file of this server's TFTP.
    Tftp(String),
    /// A URL of this server's HTTP.
    Url(String),
}

/// The part of an answer about booting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The vendor class (option 60); `None` leaves the option out.
    pub vendor: Option<Vendor>,
    /// Option 43 {6 = 8}: take the file of this answer, without discovery of other servers and without a menu.
    pub no_menu: bool,
    /// Option 175 {176 = 1}: iPXE need not wait two seconds for a proxy.
    pub no_proxy: bool,
    /// What to boot; `None` sends the client to port 4011 for it.
    pub file: Option<BootFile>,
}

/// Decides what a request is answered. `lease` asks the address pool; it is called only when an address is to be given,
/// so that machines that get no answer take no address either.
pub fn decide(
    request: &BootRequest,
    port: Port,
    policy: BootPolicy,
    profile: &ServerProfile,
    lease: impl FnOnce(u32) -> Verdict,
) -> Decision {
    let netboots = request.client.netboots();
    if policy == BootPolicy::Ignore {
        return silence("it is not served here");
    }
    if netboots && policy == BootPolicy::Unknown && !profile.discovery {
        return silence("it is unknown, and discovery is off");
    }
    // A relay of a network that this server has no addresses for is sent boot information only.
    let local = request.link().is_none_or(|link| profile.place.reaches(link));
    match &profile.mode {
        Mode::Full(network) if port == Port::Dhcp && local => full(request, profile, network, lease),
        Mode::Full(_) | Mode::Proxy if netboots => proxy(request, port, profile),
        Mode::Full(_) | Mode::Proxy => silence("it does not ask to network-boot"),
    }
}

fn full(
    request: &BootRequest,
    profile: &ServerProfile,
    network: &Network,
    lease: impl FnOnce(u32) -> Verdict,
) -> Decision {
    // First whether it can boot at all: a machine that cannot takes no address.
    let leaves = matches!(request.ask, Ask::Decline | Ask::Release);
    let (boot, firmware) = if request.client.netboots() && !leaves {
        match boot(request, Shape::Full, profile) {
            Ok((boot, firmware)) => (Some(boot), firmware),
            Err(no) => return no_program(&no),
        }
    } else {
        (None, firmware_of(request))
    };
    let seconds = lease_seconds(request.client, network.lease_seconds);
    let answer = |kind, address: Option<Ipv4Addr>, boot| {
        let lease = address.map(|address| (address, seconds));
        Decision::Answer(Answer { kind, lease, network: kind != Kind::Nak, boot, firmware })
    };
    match lease(seconds) {
        Verdict::Offered(address) => answer(Kind::Offer, Some(address), boot),
        Verdict::Granted(address) => answer(Kind::Ack, Some(address), boot),
        Verdict::Refused(_) => answer(Kind::Nak, None, None),
        // RFC 2131 section 4.3.5: the network's parameters, but no address and no times, to a client with an address.
        Verdict::Silent(_) if request.ask == Ask::Inform && !request.ciaddr.is_unspecified() => {
            answer(Kind::Ack, None, boot)
        }
        Verdict::Silent(why) => silence(why),
        Verdict::Check(address) => Decision::Check(address),
        Verdict::Exhausted => Decision::Silence(Unanswered::Exhausted),
    }
}

fn proxy(request: &BootRequest, port: Port, profile: &ServerProfile) -> Decision {
    // A client that requests an address means the server that offered it, even where that one has our address (dnsmasq
    // on the same host): EDK2 takes our answer without an address for that server's, and declines the lease.
    let ours = request.server == Some(profile.place.address) && request.wanted.is_none();
    let (kind, shape) = match (port, request.ask) {
        (Port::Dhcp, Ask::Discover) => (Kind::Offer, Shape::ProxyOffer),
        // A request on port 67 is for the server that gave the address, unless it names us.
        (Port::Dhcp, Ask::Request) if ours => (Kind::Ack, Shape::ProxyFile),
        (Port::Dhcp, Ask::Inform) | (Port::Pxe, Ask::Request | Ask::Inform) => (Kind::Ack, Shape::ProxyFile),
        (Port::Pxe, Ask::Discover) => (Kind::Offer, Shape::ProxyFile),
        (_, Ask::Request | Ask::Decline | Ask::Release) => return silence("it means another server"),
    };
    if port == Port::Pxe && request.client == Client::HttpBoot {
        return silence("HTTP boot has no business at port 4011");
    }
    match boot(request, shape, profile) {
        Ok((boot, firmware)) => {
            Decision::Answer(Answer { kind, lease: None, network: false, boot: Some(boot), firmware })
        }
        Err(no) => no_program(&no),
    }
}

/// The kind of answer that the boot file is put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// The answer of a full server, with an address.
    Full,
    /// A proxy's offer.
    ProxyOffer,
    /// A proxy's answer with the file itself.
    ProxyFile,
}

fn boot(
    request: &BootRequest,
    shape: Shape,
    profile: &ServerProfile,
) -> Result<(Boot, ClientKind), NoProgram> {
    let server = format!("http://{}:{}", profile.place.address, profile.http_port);
    let full = shape == Shape::Full;
    let pxe = (!full).then_some(Vendor::Pxe);
    if let Some(board) = request.board() {
        return Err(NoProgram::Board(board));
    }
    Ok(match request.client {
        Client::Ipxe { http: true } => {
            let file = Some(BootFile::Url(format!("{server}/boot.ipxe")));
            (Boot { vendor: pxe, no_menu: false, no_proxy: full, file }, ClientKind::Ipxe)
        }
        Client::HttpBoot => {
            let choice = choose::choose(&request.architectures, Transport::Http, &profile.programs)?;
            let file = Some(BootFile::Url(format!("{server}/nbp/{}", choice.file)));
            (Boot { vendor: Some(Vendor::Http), no_menu: false, no_proxy: false, file }, choice.firmware)
        }
        Client::Pxe | Client::Ipxe { http: false } | Client::Ordinary | Client::Loader => {
            let choice = choose::choose(&request.architectures, Transport::Tftp, &profile.programs)?;
            let ipxe = request.client == Client::Ipxe { http: false };
            // BIOS ROMs and iPXE take the file from the offer; some of their menus are broken, so no menu.
            let simple = ipxe || choice.family == Family::Bios;
            let later = shape == Shape::ProxyOffer && !simple;
            let file = (!later).then_some(BootFile::Tftp(choice.file));
            let firmware = if ipxe { ClientKind::IpxeWithoutHttp } else { choice.firmware };
            (Boot { vendor: pxe, no_menu: !full && simple, no_proxy: full && ipxe, file }, firmware)
        }
    })
}

/// The kind of a client, for the log, where no boot program was chosen.
#[must_use]
pub fn firmware_of(request: &BootRequest) -> ClientKind {
    match request.client {
        Client::Ordinary => ClientKind::Os,
        Client::Loader => ClientKind::Loader,
        Client::Pxe => request.board().map_or(ClientKind::Pxe, ClientKind::Board),
        Client::HttpBoot => ClientKind::HttpBoot,
        Client::Ipxe { .. } => ClientKind::Ipxe,
    }
}

fn silence(why: &str) -> Decision {
    Decision::Silence(Unanswered::Other(why.to_owned()))
}

fn no_program(why: &NoProgram) -> Decision {
    Decision::Silence(Unanswered::NoProgram(why.to_string()))
}
