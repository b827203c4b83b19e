//! Packets of all kinds of clients as they are parsed, and packets that are refused.

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
        (Packet::pxe(0).option(77, b"iPXE").option(175, &[235, 3, 1, 0, 0]), Client::Ipxe { http: false }),
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
    assert_eq!(Packet::pxe(0).option(82, &[5, 4, 10, 0, 0, 0]).request().link(), None, "no relay sent it");
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
