//! The server over a virtual cable: a veth pair in a network namespace, one end the server's, the other a machine that
//! sends raw frames. Needs root; without it these tests say so and pass.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::id::Mac;
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::bind::{Config, bind};
use super::decide::{Decision, Mode, Network, Port, ServerProfile};
use super::lease::Lease;
use super::place::Range;
use super::rivals::Rival;
use super::testing::{Packet, beside, decided};
use super::wire::{frame, interface_address};
use super::{Place, reply};
use crate::fleet::boot_policy::{BootPolicies, BootPolicy, Sighting};

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "SWARMBOOT_TEST_NAMESPACE";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Whether this process is inside the namespace; if not, runs `test` again in a new one, and returns `false`.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        for line in [
            "link set lo up",
            "link add srv type veth peer name rom",
            "addr add 10.9.0.1/24 dev srv",
            "link set srv up",
            "link set rom up",
        ] {
            let done = Command::new("ip").args(line.split(' ')).status().unwrap();
            assert!(done.success(), "ip {line}");
        }
        return true;
    }
    let us = std::env::current_exe().unwrap();
    let name = format!("dhcp4::wire_tests::{test}");
    let mut command = Command::new("unshare");
    command.arg("-n").arg(us).args(["--exact", &name, "--nocapture"]).env(INSIDE, "1");
    if !nix::unistd::geteuid().is_root() {
        eprintln!("{test}: not root, so there is no wire to try it on");
        return false;
    }
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// The machine's end of the cable.
struct Rom {
    socket: Socket,
    /// Addresses that other hosts on this end have.
    taken: Vec<(Ipv4Addr, Mac)>,
}

impl Rom {
    fn open() -> Self {
        let all = 0x0003_u16;
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(all.to_be())))).unwrap();
        nix::sys::socket::bind(socket.as_raw_fd(), &interface_link("rom")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self { socket, taken: vec![] }
    }

    fn frame(&self, from: Ipv4Addr, to: Ipv4Addr, packet: &Packet) {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0xff; 6])
            .ipv4(from.octets(), to.octets(), 64)
            .udp(if from.is_unspecified() { 68 } else { 67 }, 67);
        let mut frame = Vec::new();
        builder.write(&mut frame, &packet.bytes()).unwrap();
        nix::sys::socket::send(self.socket.as_raw_fd(), &frame, nix::sys::socket::MsgFlags::empty()).unwrap();
    }

    fn says(&self, packet: &Packet) {
        self.frame(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, packet);
    }

    /// The next DHCP answer within `wait`: its bytes, and the address that it gives. Answers ARP for the addresses in
    /// `taken` meanwhile.
    fn hears(&mut self, wait: Duration) -> Option<(Vec<u8>, Ipv4Addr)> {
        let began = Instant::now();
        let mut frame = [0; 2048];
        while began.elapsed() < wait {
            let Ok(length) = self.socket.read(&mut frame) else { continue };
            let frame = &frame[..length];
            match frame.get(12..14) {
                Some([8, 6]) => self.arp(frame),
                Some([8, 0]) if frame.len() > 282 && frame[36..38] == [0, 68] && frame[34..36] == [0, 67] => {
                    let dhcp = frame[42..].to_vec();
                    let given = Ipv4Addr::from(<[u8; 4]>::try_from(&dhcp[16..20]).unwrap());
                    return Some((dhcp, given));
                }
                _ => {}
            }
        }
        None
    }

    fn arp(&self, asked: &[u8]) {
        let target = Ipv4Addr::from(<[u8; 4]>::try_from(&asked[38..42]).unwrap());
        let Some((_, mac)) = self.taken.iter().find(|(address, _)| *address == target) else { return };
        let mut answer = asked[..42].to_vec();
        answer[..6].copy_from_slice(&asked[6..12]);
        answer[6..12].copy_from_slice(&mac.0);
        answer[20..22].copy_from_slice(&[0, 2]);
        answer[22..28].copy_from_slice(&mac.0);
        answer[28..32].copy_from_slice(&target.octets());
        answer[32..38].copy_from_slice(&asked[6..12]);
        nix::sys::socket::send(self.socket.as_raw_fd(), &answer, nix::sys::socket::MsgFlags::empty())
            .unwrap();
    }
}

fn interface_link(name: &str) -> nix::sys::socket::LinkAddr {
    let all = nix::ifaddrs::getifaddrs().unwrap();
    let mut links = all.filter(|entry| entry.interface_name == name);
    links.find_map(|entry| entry.address.and_then(|address| address.as_link_addr().copied())).unwrap()
}

/// A server at its end of the cable, in a thread of its own.
struct Served {
    seen: mpsc::Receiver<Sighting>,
    saved: mpsc::Receiver<Lease>,
    rivals: watch::Receiver<Vec<Rival>>,
    cancel: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

fn serve(first: u8, last: u8) -> Served {
    let range = Range { start: Ipv4Addr::new(10, 9, 0, first), end: Ipv4Addr::new(10, 9, 0, last) };
    let network = Network { range, router: None, dns: vec![], lease_seconds: 3600 };
    let config = Config {
        interface: "srv".to_owned(),
        mode: Mode::Full(network),
        http_port: 8069,
        discovery: tokio::sync::watch::channel(true).1,
        programs: watch::channel(beside().programs).1,
        sites: vec![],
        authoritative: false,
    };
    assert_eq!(interface_address("srv").unwrap().address, SERVER);
    let (sightings, seen) = mpsc::channel(4096);
    let (changed, saved) = mpsc::channel(4096);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let (ready, bound) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = bind(config).unwrap();
            let (_publish, policies) = watch::channel(Arc::new(BootPolicies::default()));
            ready.send(server.rivals()).unwrap();
            server.run(policies, sightings, vec![], changed, stop).await.unwrap();
        });
    });
    let rivals = bound.recv().unwrap();
    Served { seen, saved, rivals, cancel, thread }
}

impl Served {
    fn stop(self) {
        self.cancel.cancel();
        self.thread.join().unwrap();
    }
}

/// A host at the other end of the cable asks who answers machines, as `doctor` does.
#[test]
fn who_answers_machines_can_be_asked() {
    if !inside("who_answers_machines_can_be_asked") {
        return;
    }
    let done = Command::new("ip").args(["addr", "add", "10.9.0.2/24", "dev", "rom"]).status().unwrap();
    assert!(done.success());
    let served = serve(10, 20);
    let rom = interface_address("rom").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answers = runtime.block_on(super::probe(&rom, Duration::from_secs(3))).unwrap();
    for asked in [super::Asked::Bios, super::Asked::Uefi] {
        let answer = answers.iter().find(|answer| answer.asked == asked && !answer.second);
        let answer = answer.unwrap_or_else(|| panic!("{asked:?} is not answered: {answers:?}"));
        assert!(answer.server == SERVER && answer.addresses && answer.file.is_some(), "{answers:?}");
    }
    served.stop();
}

#[test]
fn an_address_that_somebody_has_is_not_given() {
    if !inside("an_address_that_somebody_has_is_not_given") {
        return;
    }
    let mut served = serve(10, 11);
    let mut rom = Rom::open();
    let stranger = Mac([2, 0, 0, 0, 0, 0x77]);
    // Another host has the address that a machine of this name would be offered first.
    rom.says(&Packet::pxe(0));
    let (_, free) = rom.hears(Duration::from_secs(2)).expect("an offer, after the wire was asked");
    rom.taken.push((free, stranger));
    let other = Ipv4Addr::new(10, 9, 0, 21 - free.octets()[3]);
    rom.taken = vec![(other, stranger)];
    rom.says(&Packet::pxe(0).mac(2));
    assert!(rom.hears(Duration::from_secs(1)).is_none(), "the other is somebody's: none is left");
    let conflict = served.saved.try_recv().unwrap();
    assert_eq!((conflict.address, conflict.holder.as_str()), (other, "conflict"));
    let Ok(Sighting::PowerOn { .. }) = served.seen.try_recv() else { panic!("not seen") };
    served.stop();
}

#[test]
fn answers_that_wait_for_arp_keep_nobody_waiting() {
    if !inside("answers_that_wait_for_arp_keep_nobody_waiting") {
        return;
    }
    let mut served = serve(10, 250);
    let mut rom = Rom::open();
    // Two thousand requests through relays of our network that do not exist.
    for n in 0..2000_u16 {
        let relay = Ipv4Addr::new(10, 9, 0, u8::try_from(n % 200).unwrap() + 20);
        let packet = Packet::new(1).mac(3).option(60, b"x").option(61, &n.to_be_bytes()).relay(relay);
        rom.frame(relay, SERVER, &packet);
    }
    let began = Instant::now();
    let packet = Packet::pxe(0).broadcast();
    rom.says(&packet);
    let mut answer = None;
    while answer.is_none() && began.elapsed() < Duration::from_secs(8) {
        answer = rom.hears(Duration::from_secs(1)).filter(|(dhcp, _)| dhcp[28..34] == packet.bytes()[28..34]);
        if answer.is_none() {
            rom.says(&packet);
        }
    }
    assert!(answer.is_some(), "no answer");
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    while served.seen.try_recv().is_ok() {}
    served.stop();
}

#[test]
fn another_server_on_the_wire_is_noticed() {
    if !inside("another_server_on_the_wire_is_noticed") {
        return;
    }
    let served = serve(10, 20);
    let rom = Rom::open();
    let other = Ipv4Addr::new(10, 9, 0, 66);
    let profile = ServerProfile { place: Place { address: other, prefix: 24 }, ..beside() };
    let request = Packet::pxe(0).request();
    let Decision::Answer(answer) = decided(&request, Port::Dhcp, BootPolicy::Load, &profile) else {
        panic!("silent")
    };
    let bytes = reply::encode(&request, &answer, &profile).unwrap();
    let all = Mac([0xff; 6]);
    let offer = frame(Mac([2, 0, 0, 0, 0, 66]), other, all, Ipv4Addr::BROADCAST, (67, 68), &bytes).unwrap();
    nix::sys::socket::send(rom.socket.as_raw_fd(), &offer, nix::sys::socket::MsgFlags::empty()).unwrap();
    // A client that takes the offer of a third server.
    rom.says(&Packet::new(3).mac(8).option(54, &[10, 9, 0, 67]).option(50, &[10, 9, 0, 30]));
    let began = Instant::now();
    while served.rivals.borrow().len() < 2 && began.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut heard = served.rivals.borrow().clone();
    heard.sort_by_key(|rival| rival.address);
    let wanted = [
        Rival { address: other, addresses: false, boots: Some("undionly.kpxe".to_owned()) },
        Rival { address: Ipv4Addr::new(10, 9, 0, 67), addresses: true, boots: None },
    ];
    assert_eq!(heard, wanted);
    served.stop();
}

#[test]
fn a_request_that_says_less_gets_what_the_offer_carried() {
    if !inside("a_request_that_says_less_gets_what_the_offer_carried") {
        return;
    }
    let served = serve(10, 20);
    let mut rom = Rom::open();
    rom.says(&Packet::pxe(0));
    let (offer, address) = rom.hears(Duration::from_secs(2)).unwrap();
    let carries = |dhcp: &[u8]| dhcp.windows(13).any(|part| part == b"undionly.kpxe");
    assert!(carries(&offer));
    // Without option 60; without 60, 93 to 97; without 50.
    let marks = |packet: Packet| packet.option(93, &[0, 0]).option(94, &[1, 2, 1]);
    let request = || Packet::new(3).option(54, &SERVER.octets());
    let wanted = address.octets();
    for packet in [marks(request().option(50, &wanted)), request().option(50, &wanted), request()] {
        rom.says(&packet);
        let (ack, given) = rom.hears(Duration::from_secs(2)).unwrap();
        assert!(carries(&ack) && ack[240..].windows(3).any(|part| part == [53, 1, 5]), "{packet:?}");
        assert_eq!(given, address);
    }
    // A laptop with an address of another network wakes up on this link: that is for another server (E8).
    rom.says(&Packet::new(3).mac(5).option(50, &[198, 51, 100, 5]));
    assert!(rom.hears(Duration::from_millis(500)).is_none());
    served.stop();
}
