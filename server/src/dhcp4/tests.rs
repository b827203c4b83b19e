//! Every kind of firmware from its first packet to the script; every combination of firmware, message, mode and policy.
//! Touches nothing.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::decide::{Answer, Boot, BootFile, Decision, Kind, Port, ServerProfile, Vendor, decide};
use super::lease::Verdict;
use super::reply::{self, Destination};
use super::testing::{GIVEN, Packet, US, beside, decided, full};
use crate::fleet::boot_policy::{BootPolicy, Unanswered};

const STANDINGS: [BootPolicy; 4] =
    [BootPolicy::Unknown, BootPolicy::Load, BootPolicy::BootDisk, BootPolicy::Ignore];

fn answered(packet: &Packet, port: Port, profile: &ServerProfile) -> Answer {
    match decided(&packet.request(), port, BootPolicy::Load, profile) {
        Decision::Answer(answer) => answer,
        other => panic!("{packet:?} was not answered: {other:?}"),
    }
}

fn silent(packet: &Packet, port: Port, policy: BootPolicy, profile: &ServerProfile) -> bool {
    matches!(decided(&packet.request(), port, policy, profile), Decision::Silence(_))
}

fn tftp(name: &str) -> Option<BootFile> {
    Some(BootFile::Tftp(name.to_owned()))
}

fn url(path: &str) -> Option<BootFile> {
    Some(BootFile::Url(format!("http://10.0.0.1:8069/{path}")))
}

/// Every client, with the boot part of a full server's answer, of a proxy's offer, and of the answer at port 4011.
fn table() -> Vec<(&'static str, Packet, Boot, Boot, Option<Boot>)> {
    let make = |vendor, no_menu, no_proxy, file: &Option<BootFile>| Boot {
        vendor,
        no_menu,
        no_proxy,
        file: file.clone(),
    };
    let pxe = Some(Vendor::Pxe);
    let http = Some(Vendor::Http);
    let bios = tftp("undionly.kpxe");
    let mut rows = vec![
        (
            "bios",
            Packet::pxe(0),
            make(None, false, false, &bios),
            make(pxe, true, false, &bios),
            Some(make(pxe, true, false, &bios)),
        ),
        (
            "ipxe without http",
            Packet::ipxe(0, false),
            make(None, false, true, &bios),
            make(pxe, true, false, &bios),
            Some(make(pxe, true, false, &bios)),
        ),
    ];
    for (words, number, file) in [
        ("uefi x64", 7, "snponly.efi"),
        ("uefi x64", 9, "snponly.efi"),
        ("uefi arm64", 11, "snponly-arm64.efi"),
    ] {
        let file = tftp(file);
        rows.push((
            words,
            Packet::pxe(number),
            make(None, false, false, &file),
            make(pxe, false, false, &None),
            Some(make(pxe, false, false, &file)),
        ));
    }
    for (words, number, file) in
        [("uefi http x64", 16, "nbp/snponly.efi"), ("uefi http arm64", 19, "nbp/snponly-arm64.efi")]
    {
        let boot = make(http, false, false, &url(file));
        rows.push((words, Packet::http(number), boot.clone(), boot, None));
    }
    for number in [0, 7, 11, 4711] {
        let proxy = make(pxe, false, false, &url("boot.ipxe"));
        rows.push((
            "ipxe",
            Packet::ipxe(number, true),
            make(None, false, true, &url("boot.ipxe")),
            proxy.clone(),
            Some(proxy),
        ));
    }
    rows
}

#[test]
fn every_firmware_gets_its_shape_in_both_modes_at_both_ports() {
    for (words, packet, in_lease, in_offer, at_4011) in table() {
        let offer = answered(&packet, Port::Dhcp, &full());
        let wanted = Answer {
            kind: Kind::Offer,
            lease: Some((GIVEN, 600)),
            network: true,
            boot: Some(in_lease.clone()),
            firmware: offer.firmware,
        };
        assert_eq!(offer, wanted, "{words}");
        assert_eq!(offer.firmware.to_string(), words);
        let ack = answered(&packet.clone().kind(3), Port::Dhcp, &full());
        assert_eq!(ack, Answer { kind: Kind::Ack, ..wanted }, "{words}");

        let offer = answered(&packet, Port::Dhcp, &beside());
        assert_eq!((offer.kind, offer.lease, offer.network), (Kind::Offer, None, false), "{words}");
        assert_eq!(offer.boot, Some(in_offer), "{words}");

        for profile in [full(), beside()] {
            let asks = packet.clone().kind(3);
            match &at_4011 {
                Some(boot) => {
                    let ack = answered(&asks, Port::Pxe, &profile);
                    assert_eq!(
                        (ack.kind, ack.lease, ack.boot.as_ref()),
                        (Kind::Ack, None, Some(boot)),
                        "{words}"
                    );
                }
                None => assert!(silent(&asks, Port::Pxe, BootPolicy::Load, &profile), "{words}"),
            }
        }
    }
}

#[test]
fn standing_decides_who_is_answered_at_all() {
    for (words, packet, ..) in table() {
        for profile in [full(), beside()] {
            for policy in STANDINGS {
                let closed = ServerProfile { discovery: false, ..profile.clone() };
                let never = policy == BootPolicy::Ignore;
                assert_eq!(silent(&packet, Port::Dhcp, policy, &profile), never, "{words} {policy:?}");
                let unknown = policy == BootPolicy::Unknown;
                assert_eq!(
                    silent(&packet, Port::Dhcp, policy, &closed),
                    never || unknown,
                    "{words} {policy:?}"
                );
            }
        }
    }
}

#[test]
fn who_gets_no_answer_takes_no_address() {
    let closed = ServerProfile { discovery: false, ..full() };
    let asked = [
        (Packet::pxe(0), BootPolicy::Ignore, full()),
        (Packet::pxe(0), BootPolicy::Unknown, closed),
        (Packet::pxe(2), BootPolicy::Load, full()),
        (Packet::pxe(0), BootPolicy::Load, beside()),
    ];
    for (packet, policy, profile) in asked {
        decide(&packet.request(), Port::Dhcp, policy, &profile, |_| panic!("{packet:?} took an address"));
    }
}

#[test]
fn firmware_that_nothing_runs_on_is_left_alone() {
    for number in [1, 2, 6, 10, 12, 25, 65535] {
        for profile in [full(), beside()] {
            assert!(silent(&Packet::pxe(number), Port::Dhcp, BootPolicy::Load, &profile), "{number}");
        }
    }
}

#[test]
fn others_get_an_address_where_we_are_the_server_and_silence_where_we_are_not() {
    let closed = ServerProfile { discovery: false, ..full() };
    for (packet, words, seconds) in [
        (Packet::new(1), "os", 3600),
        (Packet::new(1).option(60, b"swarmboot"), "loader", 12 * 3600),
        (Packet::new(1).option(60, b"MSFT 5.0"), "os", 3600),
    ] {
        for policy in [BootPolicy::Unknown, BootPolicy::Load, BootPolicy::BootDisk] {
            let decision = decided(&packet.request(), Port::Dhcp, policy, &closed);
            let Decision::Answer(answer) = decision else { panic!("{words} got no address") };
            assert_eq!(
                (answer.lease, answer.boot, answer.firmware.to_string()),
                (Some((GIVEN, seconds)), None, words.to_owned())
            );
        }
        for kind in [1, 3, 4, 7, 8] {
            assert!(
                silent(&packet.clone().kind(kind), Port::Dhcp, BootPolicy::Load, &beside()),
                "{words} {kind}"
            );
            assert!(
                silent(&packet.clone().kind(kind), Port::Pxe, BootPolicy::Load, &full()),
                "{words} {kind}"
            );
        }
    }
}

#[test]
fn a_proxy_never_refuses_and_never_answers_for_another_server() {
    let foreign = Ipv4Addr::new(10, 0, 0, 254);
    for (words, packet, ..) in table() {
        let request = packet.clone().kind(3);
        assert!(silent(&request, Port::Dhcp, BootPolicy::Load, &beside()), "{words}");
        let named = request.clone().option(54, &foreign.octets());
        assert!(silent(&named, Port::Dhcp, BootPolicy::Load, &beside()), "{words}");
        let ours = request.option(54, &US.octets());
        let answer = answered(&ours, Port::Dhcp, &beside());
        assert!(answer.kind == Kind::Ack && answer.boot.unwrap().file.is_some(), "{words}");
        // The other server may be on this very host; an address is given by that one all the same.
        let leased = ours.option(50, &[10, 0, 0, 99]);
        assert!(silent(&leased, Port::Dhcp, BootPolicy::Load, &beside()), "{words}");
        for kind in [4, 7] {
            assert!(silent(&packet.clone().kind(kind), Port::Dhcp, BootPolicy::Load, &beside()), "{words}");
        }
    }
}

#[test]
fn the_pools_verdicts_become_the_right_messages() {
    let verdicts = |packet: &Packet, verdict| {
        decide(&packet.request(), Port::Dhcp, BootPolicy::Load, &full(), |_| verdict)
    };
    let nak = verdicts(&Packet::pxe(7).kind(3), Verdict::Refused("not yours"));
    let Decision::Answer(nak) = nak else { panic!("{nak:?}") };
    assert_eq!((nak.kind, nak.lease, nak.network, nak.boot), (Kind::Nak, None, false, None));
    assert_eq!(verdicts(&Packet::new(1), Verdict::Exhausted), Decision::Silence(Unanswered::Exhausted));
    assert_eq!(
        verdicts(&Packet::new(3), Verdict::Silent("why")),
        Decision::Silence(Unanswered::Other("why".to_owned()))
    );
    for kind in [4, 7] {
        assert_eq!(
            verdicts(&Packet::pxe(2).kind(kind), Verdict::Silent("x")),
            Decision::Silence(Unanswered::Other("x".to_owned()))
        );
    }
    let inform = verdicts(&Packet::new(8).ciaddr(GIVEN), Verdict::Silent("no address"));
    let Decision::Answer(inform) = inform else { panic!("{inform:?}") };
    assert_eq!((inform.kind, inform.lease, inform.network), (Kind::Ack, None, true));
}

#[test]
fn a_relayed_machine_gets_an_address_only_from_a_range_of_its_own_network() {
    let near = answered(&Packet::pxe(0).relay(Ipv4Addr::new(10, 0, 0, 2)), Port::Dhcp, &full());
    assert_eq!(near.lease, Some((GIVEN, 600)));
    let far = Packet::pxe(0).relay(Ipv4Addr::new(10, 9, 0, 2));
    let offer = answered(&far, Port::Dhcp, &full());
    assert!(offer.lease.is_none() && offer.boot.unwrap().no_menu);
    assert!(silent(&Packet::new(1).relay(Ipv4Addr::new(10, 9, 0, 2)), Port::Dhcp, BootPolicy::Load, &full()));
}

#[test]
fn the_relays_link_selection_decides_and_its_address_is_where_to_answer() {
    // A switch with an anycast gateway: its own loopback in giaddr, our network in option 82.
    let (loopback, ours) = (Ipv4Addr::new(198, 51, 100, 9), [5, 4, 10, 0, 0, 0]);
    let packet = Packet::pxe(0).relay(loopback).option(82, &ours);
    let offer = answered(&packet, Port::Dhcp, &full());
    assert_eq!(offer.lease, Some((GIVEN, 600)));
    let to = reply::destination(&packet.request(), &offer, Port::Dhcp, SocketAddrV4::new(loopback, 67));
    assert_eq!(to, Destination::Unicast(SocketAddrV4::new(loopback, 67)));
    assert!(encoded(&packet, Port::Dhcp, &full()).windows(8).any(|part| part == [82, 6, 5, 4, 10, 0, 0, 0]));
    // A relay in our network that asks for another: boot information only.
    let other = Packet::pxe(0).relay(Ipv4Addr::new(10, 0, 0, 2)).option(82, &[5, 4, 198, 51, 100, 0]);
    let offer = answered(&other, Port::Dhcp, &full());
    assert!(offer.lease.is_none() && offer.boot.is_some());
    assert_eq!(other.request().link(), Some(Ipv4Addr::new(198, 51, 100, 0)), "and its site");
}

#[test]
fn a_board_that_is_no_pc_gets_no_program_and_takes_no_address() {
    let guid = [&[0][..], b"RPi4\x11\x31\xc0\0abcdefgh"].concat();
    let board = Packet::pxe(0).option(97, &guid);
    for profile in [full(), beside()] {
        for port in [Port::Dhcp, Port::Pxe] {
            let decision =
                decide(&board.request(), port, BootPolicy::Load, &profile, |_| panic!("it took an address"));
            let Decision::Silence(Unanswered::NoProgram(why)) = decision else { panic!("{decision:?}") };
            assert!(why.contains("raspberry pi"), "{why}");
        }
    }
    assert_eq!(super::decide::firmware_of(&board.request()).to_string(), "raspberry pi");
}

#[test]
fn answers_go_where_they_can_be_heard() {
    let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    let goes = |packet: &Packet, port, profile: &ServerProfile, source| {
        reply::destination(&packet.request(), &answered(packet, port, profile), port, source)
    };
    let mac = Packet::pxe(7).request().mac().unwrap();
    let frame = Destination::Frame { mac, address: GIVEN };
    let relay = Ipv4Addr::new(10, 0, 0, 2);
    let unicast = |ip, port| Destination::Unicast(SocketAddrV4::new(ip, port));
    assert_eq!(goes(&Packet::pxe(7), Port::Dhcp, &full(), source), frame);
    assert_eq!(goes(&Packet::pxe(7).broadcast(), Port::Dhcp, &full(), source), Destination::Broadcast(68));
    assert_eq!(goes(&Packet::pxe(7), Port::Dhcp, &beside(), source), Destination::Broadcast(68));
    assert_eq!(goes(&Packet::pxe(7).relay(relay), Port::Dhcp, &full(), source), unicast(relay, 67));
    assert_eq!(goes(&Packet::pxe(7).relay(relay), Port::Dhcp, &beside(), source), unicast(relay, 67));
    assert_eq!(goes(&Packet::new(3).ciaddr(GIVEN), Port::Dhcp, &full(), source), unicast(GIVEN, 68));
    let efi = SocketAddrV4::new(GIVEN, 4011);
    let asks = Packet::pxe(7).kind(3).ciaddr(GIVEN);
    assert_eq!(goes(&asks, Port::Pxe, &beside(), efi), Destination::Unicast(efi));
    assert_eq!(goes(&asks, Port::Pxe, &beside(), source), Destination::Broadcast(68));
}

/// Follows the answers as firmware would, until it has the script's URL; returns the files on the way.
fn chain(mut packet: Packet, profile: &ServerProfile) -> Vec<String> {
    let mut way = Vec::new();
    loop {
        assert!(way.len() < 5, "it goes round in circles: {way:?}");
        let offer = answered(&packet, Port::Dhcp, profile);
        let file = offer.boot.unwrap().file.or_else(|| {
            let asks = packet.clone().kind(3).ciaddr(GIVEN);
            answered(&asks, Port::Pxe, profile).boot.unwrap().file
        });
        let architecture = packet.request().architectures[0];
        match file.expect("a boot file, from port 67 or 4011") {
            BootFile::Url(url) if url.ends_with("/boot.ipxe") => {
                way.push(url);
                return way;
            }
            // The boot programs of the kits are iPXE with HTTP.
            BootFile::Url(file) | BootFile::Tftp(file) => {
                way.push(file);
                packet = Packet::ipxe(architecture, true);
            }
        }
    }
}

#[test]
fn chainloading_terminates() {
    for profile in [full(), beside()] {
        for (words, packet, ..) in table() {
            let way = chain(packet, &profile);
            let programs = if words == "ipxe" { 0 } else { 1 };
            assert_eq!(way.len(), programs + 1, "{words}: {way:?}");
        }
    }
}

fn encoded(packet: &Packet, port: Port, profile: &ServerProfile) -> Vec<u8> {
    reply::encode(&packet.request(), &answered(packet, port, profile), profile).unwrap()
}

/// The options, with their end, without the padding.
fn options(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte == 255).unwrap();
    &bytes[240..=end]
}

#[test]
fn a_full_servers_offer_to_bios_byte_by_byte() {
    let packet = Packet::pxe(0).option(61, b"\x01id").option(97, &[7; 17]).option(82, &[1, 2, 3, 4]);
    let bytes = encoded(&packet.relay(Ipv4Addr::new(10, 0, 0, 2)), Port::Dhcp, &full());
    assert_eq!(bytes[..12], [2, 1, 6, 0, 0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 0]);
    assert_eq!(bytes[12..28], [0, 0, 0, 0, 10, 0, 0, 107, 10, 0, 0, 1, 10, 0, 0, 2]);
    assert_eq!(bytes[28..44], [0x52, 0x54, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[44..53], *b"10.0.0.1\0");
    assert_eq!(bytes[108..122], *b"undionly.kpxe\0");
    let wanted = [
        &[1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 254, 6, 4, 9, 9, 9, 9][..],
        &[28, 4, 10, 0, 0, 255, 51, 4, 0, 0, 2, 88, 53, 1, 2, 54, 4, 10, 0, 0, 1],
        &[58, 4, 0, 0, 1, 44, 59, 4, 0, 0, 2, 13],
        b"\x3d\x03\x01id\x42\x0810.0.0.1\x43\x0eundionly.kpxe\0",
        &[97, 17, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 150, 4, 10, 0, 0, 1],
        &[82, 4, 1, 2, 3, 4, 255],
    ]
    .concat();
    assert_eq!(options(&bytes), wanted);
}

#[test]
fn a_proxys_two_answers_to_uefi_byte_by_byte() {
    let offer = encoded(&Packet::pxe(7), Port::Dhcp, &beside());
    assert_eq!(offer.len(), 300);
    assert_eq!(offer[10..28], [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(options(&offer), b"\x35\x01\x02\x36\x04\x0a\x00\x00\x01\x3c\x09PXEClient\xff");
    assert_eq!(offer[108..236], [0; 128]);

    let ack = encoded(&Packet::pxe(7).kind(3).ciaddr(GIVEN), Port::Pxe, &beside());
    assert_eq!(ack[10..24], [0, 0, 10, 0, 0, 107, 0, 0, 0, 0, 10, 0, 0, 1]);
    let wanted =
        b"\x35\x01\x05\x36\x04\x0a\x00\x00\x01\x3c\x09PXEClient\x42\x0810.0.0.1\x43\x0csnponly.efi\0\x96\x04\x0a\x00\x00\x01\xff";
    assert_eq!(options(&ack), wanted);
}

#[test]
fn a_proxys_offer_to_bios_and_a_leases_script_byte_by_byte() {
    let offer = encoded(&Packet::pxe(0), Port::Dhcp, &beside());
    assert!(options(&offer).windows(6).any(|part| part == [43, 4, 6, 1, 8, 255]));
    let script = encoded(&Packet::ipxe(7, true), Port::Dhcp, &full());
    let has = |part: &[u8]| options(&script).windows(part.len()).any(|window| window == part);
    assert!(has(b"\x43\x1fhttp://10.0.0.1:8069/boot.ipxe\0"));
    assert!(has(&[175, 3, 176, 1, 1]) && !has(b"PXEClient"));
    assert_eq!(script[108..236], [0; 128]);
}

#[test]
fn dhcproto_reads_what_we_send() {
    use dhcproto::{Decodable, Decoder, v4};
    for (words, packet, ..) in table() {
        for profile in [full(), beside()] {
            let bytes = encoded(&packet, Port::Dhcp, &profile);
            let message = v4::Message::decode(&mut Decoder::new(&bytes)).unwrap();
            assert_eq!(message.opts().msg_type(), Some(v4::MessageType::Offer), "{words}");
            assert_eq!((message.xid(), message.hlen()), (0xcafe_babe, 6), "{words}");
        }
    }
}

#[test]
fn a_long_packet_gives_up_what_it_can_and_keeps_the_relays_part() {
    let packet = Packet::pxe(0).option(61, &[1; 200]).option(97, &[7; 17]).option(82, &[9; 100]);
    let bytes = encoded(&packet, Port::Dhcp, &full());
    assert!(bytes.len() <= 548, "{}", bytes.len());
    assert!(options(&bytes).ends_with(&[&[82, 100][..], &[9; 100], &[255]].concat()));
    assert!(options(&bytes).windows(15).any(|part| part == b"\x0eundionly.kpxe\0"));
    let roomy = encoded(&packet.option(57, &[5, 192]), Port::Dhcp, &full());
    assert!(options(&roomy).windows(202).any(|part| part[..2] == [61, 200]));
}
