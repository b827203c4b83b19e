//! Tests of the client with right and wrong answers of DHCP servers; the clock is an argument.

use dhcproto::v4::{Decodable as _, Message};
use proptest::prelude::*;

use super::*;

const MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

fn sent(effects: &[Effect]) -> (Ipv4Addr, Message) {
    let packets: Vec<_> = effects
        .iter()
        .filter_map(|e| if let Effect::Send(to, p) = e { Some((*to, p)) } else { None })
        .collect();
    assert_eq!(packets.len(), 1, "{effects:?}");
    assert!(packets[0].1.len() >= PACKET_BYTES_MIN);
    (packets[0].0, Message::from_bytes(packets[0].1).unwrap())
}

fn kind(message: &Message) -> MessageType {
    message.opts().msg_type().unwrap()
}

/// A DHCP server's answer of `kind` to `request`, with `address`.
fn answer(request: &Message, kind: MessageType, address: Ipv4Addr, options: &[DhcpOption]) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(request.xid(), none, address, none, none, &MAC.0);
    message.set_opcode(Opcode::BootReply);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message.opts_mut().insert(DhcpOption::ServerIdentifier(SERVER));
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message.to_vec().unwrap()
}

fn usual() -> Vec<DhcpOption> {
    vec![
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![SERVER]),
        DhcpOption::AddressLeaseTime(240),
    ]
}

/// A client that got its lease at 1,000 ms, and that lease.
fn bound(options: &[DhcpOption]) -> (Client, Lease) {
    let mut client = Client::new(MAC, 1, 0);
    let (_, discover) = sent(&client.handle(Event::Tick, 0));
    let offer = answer(&discover, MessageType::Offer, ADDRESS, options);
    let (_, request) = sent(&client.handle(Event::Packet(&offer), 1_000));
    let ack = answer(&request, MessageType::Ack, ADDRESS, options);
    let effects = client.handle(Event::Packet(&ack), 1_500);
    let [Effect::Configure(lease)] = &effects[..] else { panic!("{effects:?}") };
    let lease = lease.clone();
    (client, lease)
}

#[test]
fn a_machine_gets_an_address_as_the_client_its_firmware_was() {
    let mut client = Client::new(MAC, 1, 0);
    let (to, discover) = sent(&client.handle(Event::Tick, 0));
    assert_eq!((to, kind(&discover)), (Ipv4Addr::BROADCAST, MessageType::Discover));
    assert!(discover.flags().broadcast());
    assert_eq!(discover.chaddr(), MAC.0);
    let options = discover.opts();
    assert!(options.get(OptionCode::ClientIdentifier).is_none());
    let class = DhcpOption::ClassIdentifier(b"swarmboot".to_vec());
    assert_eq!(options.get(OptionCode::ClassIdentifier), Some(&class));

    let offer = answer(&discover, MessageType::Offer, ADDRESS, &usual());
    let (to, request) = sent(&client.handle(Event::Packet(&offer), 10));
    assert_eq!((to, kind(&request)), (Ipv4Addr::BROADCAST, MessageType::Request));
    assert_eq!(
        (
            request.opts().get(OptionCode::RequestedIpAddress),
            request.opts().get(OptionCode::ServerIdentifier),
            request.ciaddr()
        ),
        (
            Some(&DhcpOption::RequestedIpAddress(ADDRESS)),
            Some(&DhcpOption::ServerIdentifier(SERVER)),
            Ipv4Addr::UNSPECIFIED
        )
    );
    let (_, lease) = bound(&usual());
    let wanted = Lease {
        address: ADDRESS,
        prefix: 24,
        router: Some(SERVER),
        server: SERVER,
        since_ms: 1_000,
        seconds: 240,
        renew_s: 120,
        rebind_s: 210,
    };
    assert_eq!(lease, wanted);
}

#[test]
fn it_asks_for_ever_with_pauses_that_stay_short() {
    let mut client = Client::new(MAC, 77, 0);
    let (mut now, mut asked) = (0, 0);
    let mut transactions = std::collections::HashSet::new();
    while now < 300_000 {
        let (_, discover) = sent(&client.handle(Event::Tick, now));
        assert!(transactions.insert(discover.xid()));
        assert_eq!(u64::from(discover.secs()), now / 1000);
        let pause = client.due_ms() - now;
        assert!((1_000..=10_000).contains(&pause), "{pause}");
        now = client.due_ms();
        asked += 1;
    }
    assert!(asked >= 30, "{asked}");
}

#[test]
fn machines_that_start_together_do_not_ask_together() {
    let due = |seed: u32| {
        let mut client = Client::new(MAC, seed, 0);
        let _ = client.handle(Event::Tick, 0);
        client.due_ms()
    };
    let distinct: std::collections::HashSet<u64> =
        (0..40u32).map(|n| due(n.wrapping_mul(0x9e37_79b9))).collect();
    assert!(distinct.len() > 20, "{}", distinct.len());
}

#[test]
fn what_is_not_for_us_is_passed_over() {
    let mut client = Client::new(MAC, 1, 0);
    let (_, discover) = sent(&client.handle(Event::Tick, 0));
    let good = answer(&discover, MessageType::Offer, ADDRESS, &usual());
    let change = |at: usize, to: u8| {
        let mut packet = good.clone();
        packet[at] = to;
        packet
    };
    let table = [
        ("a request", change(0, 1)),
        ("an impossible hardware length", change(2, 200)),
        ("another transaction", change(4, !good[4])),
        ("another machine", change(33, !good[33])),
        ("no magic", change(236, 0)),
        ("a proxy's offer", answer(&discover, MessageType::Offer, Ipv4Addr::UNSPECIFIED, &usual())),
        (
            "an address that nobody can have",
            answer(&discover, MessageType::Offer, Ipv4Addr::LOCALHOST, &usual()),
        ),
        ("an acknowledgement too early", answer(&discover, MessageType::Ack, ADDRESS, &usual())),
        ("a cut packet", good[..200].to_vec()),
        ("nothing", vec![]),
    ];
    for (what, packet) in table {
        assert_eq!(client.handle(Event::Packet(&packet), 5), vec![], "{what}");
        assert!(matches!(client.state, State::Selecting { .. }), "{what}");
    }
    assert_eq!(client.handle(Event::Packet(&good), 5).len(), 1);
}

#[test]
fn an_offer_that_is_not_kept_is_given_up_and_a_refusal_heard() {
    let mut client = Client::new(MAC, 1, 0);
    let (_, discover) = sent(&client.handle(Event::Tick, 0));
    let offer = answer(&discover, MessageType::Offer, ADDRESS, &usual());
    let (_, request) = sent(&client.handle(Event::Packet(&offer), 0));
    let kinds: Vec<MessageType> =
        (0..4).map(|_| kind(&sent(&client.handle(Event::Tick, client.due_ms())).1)).collect();
    assert_eq!(kinds[..3], [MessageType::Request; 3]);
    assert_eq!(kinds[3], MessageType::Discover);
    // An ACK for the transaction that was given up comes too late.
    let late = answer(&request, MessageType::Ack, ADDRESS, &usual());
    assert_eq!(client.handle(Event::Packet(&late), client.due_ms()), vec![]);

    let mut client = Client::new(MAC, 1, 0);
    let (_, discover) = sent(&client.handle(Event::Tick, 0));
    let offer = answer(&discover, MessageType::Offer, ADDRESS, &usual());
    let _ = client.handle(Event::Packet(&offer), 0);
    let no = answer(
        &discover,
        MessageType::Nak,
        Ipv4Addr::UNSPECIFIED,
        &[DhcpOption::Message("full\u{1b}".to_owned())],
    );
    assert_eq!(client.handle(Event::Packet(&no), 10), vec![Effect::Refused("full ".to_owned())]);
    assert!(client.due_ms() > 10);
}

#[test]
fn a_lease_is_renewed_in_good_time_from_its_server() {
    let (mut client, lease) = bound(&usual());
    assert_eq!(client.due_ms(), 1_000 + 120_000);
    assert_eq!(client.handle(Event::Tick, 60_000), vec![]);
    let (to, request) = sent(&client.handle(Event::Tick, 121_000));
    assert_eq!((to, kind(&request), request.ciaddr()), (SERVER, MessageType::Request, ADDRESS));
    assert!(request.opts().get(OptionCode::ServerIdentifier).is_none());
    assert!(!request.flags().broadcast());
    let ack = answer(&request, MessageType::Ack, ADDRESS, &usual());
    let renewed = Lease { since_ms: 121_000, ..lease };
    assert_eq!(client.handle(Event::Packet(&ack), 121_100), vec![Effect::Configure(renewed)]);
    assert_eq!(client.due_ms(), 121_000 + 120_000);
}

#[test]
fn a_lease_that_nobody_renews_is_asked_of_all_and_then_given_back() {
    let (mut client, lease) = bound(&usual());
    let (mut broadcasts, mut unicasts) = (0, 0);
    let mut guard = 0;
    let end = loop {
        guard += 1;
        assert!(guard < 50);
        let now = client.due_ms();
        let effects = client.handle(Event::Tick, now);
        match &effects[..] {
            [Effect::Send(Ipv4Addr::BROADCAST, _)] => broadcasts += 1,
            [Effect::Send(to, _)] if *to == SERVER => unicasts += 1,
            [Effect::Deconfigure(ended), Effect::Send(Ipv4Addr::BROADCAST, _)] if *ended == lease => {
                break now;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(unicasts >= 1 && broadcasts >= 1);
    assert_eq!(end, 1_000 + 240_000);
    assert_eq!(client.lease(), None);
}

#[test]
fn a_lease_taken_back_is_given_up_at_once() {
    let (mut client, lease) = bound(&usual());
    let (_, request) = sent(&client.handle(Event::Tick, 121_000));
    let no = answer(&request, MessageType::Nak, Ipv4Addr::UNSPECIFIED, &[]);
    let effects = client.handle(Event::Packet(&no), 121_100);
    assert_eq!(effects, vec![Effect::Refused(String::new()), Effect::Deconfigure(lease)]);
    let (_, discover) = sent(&client.handle(Event::Tick, client.due_ms()));
    assert_eq!(kind(&discover), MessageType::Discover);
}

#[test]
fn only_its_own_server_takes_a_lease_back() {
    let from = |request: &Message, kind, server: Option<Ipv4Addr>, address| {
        let mut message = Message::new_with_id(
            request.xid(),
            Ipv4Addr::UNSPECIFIED,
            address,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            &MAC.0,
        );
        message.set_opcode(Opcode::BootReply);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::AddressLeaseTime(240));
        if let Some(server) = server {
            message.opts_mut().insert(DhcpOption::ServerIdentifier(server));
        }
        message.to_vec().unwrap()
    };
    let none = Ipv4Addr::UNSPECIFIED;
    let stranger = Some(Ipv4Addr::new(10, 0, 0, 66));
    let (mut client, lease) = bound(&usual());
    // At T1 its own server is asked, at T2 any server.
    for (now, asks) in [(121_000, SERVER), (211_000, Ipv4Addr::BROADCAST)] {
        let (to, request) = sent(&client.handle(Event::Tick, now));
        assert_eq!(to, asks);
        for server in [None, stranger] {
            let no = from(&request, MessageType::Nak, server, none);
            assert_eq!(client.handle(Event::Packet(&no), now + 1), vec![], "{server:?} at {now}");
        }
        assert_eq!(client.lease(), Some(&lease));
        if asks == SERVER {
            let other = from(&request, MessageType::Ack, stranger, Ipv4Addr::new(10, 0, 0, 67));
            assert_eq!(client.handle(Event::Packet(&other), now + 1), vec![], "nobody else was asked");
        } else {
            let other = from(&request, MessageType::Ack, stranger, ADDRESS);
            let effects = client.handle(Event::Packet(&other), now + 1);
            assert!(
                matches!(&effects[..], [Effect::Configure(lease)] if Some(lease.server) == stranger),
                "{effects:?}"
            );
        }
    }
}

#[test]
fn a_lease_of_odd_lengths_still_makes_sense() {
    let with = |options: &[DhcpOption]| bound(options).1;
    let forever = with(&[DhcpOption::AddressLeaseTime(u32::MAX)]);
    assert_eq!((forever.seconds, forever.at(forever.renew_s)), (u32::MAX, u64::MAX));
    assert_eq!(with(&[]).seconds, u32::MAX);
    let short = with(&[DhcpOption::AddressLeaseTime(0)]);
    assert!(short.seconds >= LEASE_S_MIN && short.renew_s < short.rebind_s && short.rebind_s < short.seconds);
    let crossed =
        with(&[DhcpOption::AddressLeaseTime(100), DhcpOption::Renewal(99), DhcpOption::Rebinding(50)]);
    assert!(crossed.renew_s <= crossed.rebind_s && crossed.rebind_s < 100, "{crossed:?}");
    assert_eq!(with(&[DhcpOption::SubnetMask(Ipv4Addr::new(255, 0, 255, 0))]).prefix, 8);
}

#[test]
fn a_resumed_lease_is_kept_as_if_nothing_had_happened() {
    let (client, lease) = bound(&usual());
    let resumed = Client::resume(MAC, 5, 50_000, lease.clone());
    assert_eq!((resumed.due_ms(), resumed.lease()), (client.due_ms(), Some(&lease)));
}

proptest! {
    /// No bytes from the network make the client panic, send in a tight loop, or accept a packet that it must not.
    #[test]
    fn no_packet_breaks_the_client(tail in proptest::collection::vec(any::<u8>(), 0..400), flips in proptest::collection::vec((0usize..300, any::<u8>()), 0..6)) {
        let mut client = Client::new(MAC, 1, 0);
        let (_, discover) = sent(&client.handle(Event::Tick, 0));
        let mut packet = answer(&discover, MessageType::Offer, ADDRESS, &usual());
        packet.truncate(240);
        packet.extend(tail);
        for (at, to) in flips {
            if let Some(byte) = packet.get_mut(at) {
                *byte = to;
            }
        }
        for now in 0..4 {
            let effects = client.handle(Event::Packet(&packet), now);
            prop_assert!(effects.len() <= 2);
            for effect in effects {
                if let Effect::Configure(lease) = effect {
                    prop_assert!(usable(lease.address) && lease.prefix <= 32 && lease.renew_s <= lease.rebind_s);
                }
            }
        }
    }
}
