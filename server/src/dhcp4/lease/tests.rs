//! The address pool over days: which machine keeps its address, which gets one, and what takes one out of the pool.

use super::*;
use crate::dhcp4::testing::{Packet, US};
use proptest::prelude::*;

const fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn pool(first: u8, last: u8, kept: Vec<Lease>) -> Pool {
    let place = Place { address: US, prefix: 24 };
    Pool::new(Range { start: ip(first), end: ip(last) }, place, vec![US], kept, Manners::default())
}

fn checking(first: u8, last: u8) -> Pool {
    Pool { manners: Manners { checks: true, ..Manners::default() }, ..pool(first, last, vec![]) }
}

fn discover(mac: u8) -> Packet {
    Packet::new(1).mac(mac)
}

fn request(mac: u8, address: Ipv4Addr) -> Packet {
    Packet::new(3).mac(mac).option(54, &US.octets()).option(50, &address.octets())
}

fn ask(pool: &mut Pool, packet: &Packet, now: u64) -> (Verdict, Option<Lease>) {
    pool.answer(&packet.request(), 100, now)
}

fn takes(pool: &mut Pool, mac: u8, now: u64) -> Ipv4Addr {
    let Verdict::Offered(address) = ask(pool, &discover(mac), now).0 else { panic!("no offer for {mac}") };
    assert_eq!(ask(pool, &request(mac, address), now).0, Verdict::Granted(address));
    address
}

#[test]
fn a_machine_keeps_its_address_whatever_it_calls_itself() {
    let mut pool = pool(100, 200, vec![]);
    let first = takes(&mut pool, 1, 0);
    for (round, id) in [&b"\x01abcdef"[..], b"\xff\x00\x01", b"anything"].into_iter().enumerate() {
        let packet = discover(1).option(61, id);
        assert_eq!(ask(&mut pool, &packet, 50 * round as u64).0, Verdict::Offered(first));
    }
    // Clones of one OS send one identifier from many machines.
    let clone = discover(2).option(61, b"anything");
    assert_ne!(ask(&mut pool, &clone, 0).0, Verdict::Offered(first));
}

#[test]
fn a_machine_gets_its_address_again_after_a_restart_or_a_lost_database() {
    let mut before = pool(100, 200, vec![]);
    let address = takes(&mut before, 7, 0);
    let saved = ask(&mut before, &request(7, address), 10).1.unwrap();
    let json = serde_json::to_string(&saved).unwrap();
    let mut after = pool(100, 200, vec![serde_json::from_str(&json).unwrap()]);
    assert_eq!(ask(&mut after, &discover(7), 10_000).0, Verdict::Offered(address));
    assert_eq!(ask(&mut pool(100, 200, vec![]), &discover(7), 0).0, Verdict::Offered(address));
}

#[test]
fn an_ended_lease_is_reused_only_when_nothing_else_is_left() {
    let mut pool = pool(10, 12, vec![]);
    let old = takes(&mut pool, 1, 0);
    takes(&mut pool, 2, 10);
    takes(&mut pool, 3, 20);
    assert_eq!(ask(&mut pool, &discover(4), 50).0, Verdict::Exhausted);
    assert_eq!(ask(&mut pool, &discover(4), 1000).0, Verdict::Offered(old));
}

#[test]
fn a_conflict_takes_an_address_out_for_a_while_and_only_its_holder_can_say_so() {
    let mut pool = pool(10, 10, vec![]);
    let address = takes(&mut pool, 1, 0);
    let decline = |mac| Packet::new(4).mac(mac).option(54, &US.octets()).option(50, &address.octets());
    assert_eq!(ask(&mut pool, &decline(2), 1).1, None);
    assert_eq!(ask(&mut pool, &decline(1), 1).1.unwrap().state, LeaseState::Quarantined);
    assert_eq!(ask(&mut pool, &discover(1), 300).0, Verdict::Exhausted);
    assert_eq!(ask(&mut pool, &discover(1), 700).0, Verdict::Offered(address));
}

#[test]
fn one_client_does_not_empty_the_pool_by_declining() {
    let mut pool = pool(100, 149, vec![]);
    let mut quarantined = 0;
    for now in 0..200 {
        let address = takes(&mut pool, 1, now);
        let decline = Packet::new(4).mac(1).option(54, &US.octets()).option(50, &address.octets());
        let lease = ask(&mut pool, &decline, now).1.unwrap();
        quarantined += usize::from(lease.state == LeaseState::Quarantined);
    }
    assert_eq!(quarantined, DHCP_DECLINES_MAX);
    // Nor can many machines together.
    for mac in 2..60 {
        let Verdict::Offered(address) = ask(&mut pool, &discover(mac), 200).0 else { panic!("{mac}") };
        let decline = Packet::new(4).mac(mac).option(54, &US.octets()).option(50, &address.octets());
        assert!(ask(&mut pool, &decline, 200).1.is_some());
    }
    let out = pool.by_address.values().filter(|lease| lease.state == LeaseState::Quarantined).count();
    assert!(out <= 50 / 4, "{out}");
}

#[test]
fn a_request_by_our_name_alone_takes_the_open_offer() {
    let mut pool = pool(100, 200, vec![]);
    let Verdict::Offered(address) = ask(&mut pool, &discover(1), 0).0 else { panic!("no offer") };
    let takes = |mac| Packet::new(3).mac(mac).option(54, &US.octets());
    assert_eq!(ask(&mut pool, &takes(1), 5).0, Verdict::Granted(address));
    assert!(matches!(ask(&mut pool, &takes(2), 5).0, Verdict::Silent(_)), "it was offered nothing");
    assert!(matches!(ask(&mut pool, &takes(1), 500).0, Verdict::Silent(_)), "its lease has ended");
    assert!(matches!(ask(&mut pool, &Packet::new(3).mac(1), 5).0, Verdict::Silent(_)), "whom does it mean?");
}

#[test]
fn an_address_is_looked_for_before_it_is_given() {
    let mut pool = checking(10, 11);
    let Verdict::Check(first) = ask(&mut pool, &discover(1), 0).0 else { panic!("not checked") };
    // It asks again during the probe, and so does another machine.
    assert_eq!(ask(&mut pool, &discover(1), 1).0, Verdict::Check(first));
    let Verdict::Check(second) = ask(&mut pool, &discover(2), 1).0 else { panic!("not checked") };
    assert_ne!(first, second);
    // Another host has the first: it is quarantined, and the client gets none of the two.
    let saved = pool.checked(first, Some(Mac([2, 0, 0, 0, 0, 99])), 1).unwrap();
    assert_eq!((saved.state, saved.address), (LeaseState::Quarantined, first));
    assert_eq!(ask(&mut pool, &discover(1), 1).0, Verdict::Exhausted);
    // No host has the second.
    assert_eq!(pool.checked(second, None, 1), None);
    assert_eq!(ask(&mut pool, &discover(2), 1).0, Verdict::Offered(second));
    assert_eq!(ask(&mut pool, &request(2, second), 1).0, Verdict::Granted(second));
    assert_eq!(ask(&mut pool, &discover(2), 50).0, Verdict::Offered(second), "it has it");
    // Much later it is probed and given again; the host that claims it is the machine itself.
    assert_eq!(ask(&mut pool, &discover(2), 5000).0, Verdict::Check(second));
    assert_eq!(pool.checked(second, discover(2).request().mac(), 5000), None);
    assert_eq!(ask(&mut pool, &discover(2), 5000).0, Verdict::Offered(second));
}

#[test]
fn a_released_address_is_free_and_remembered() {
    let mut pool = pool(10, 10, vec![]);
    let address = takes(&mut pool, 1, 0);
    let release = Packet::new(7).mac(1).option(54, &US.octets()).ciaddr(address);
    assert!(matches!(ask(&mut pool, &release, 5), (Verdict::Silent(_), Some(Lease { until: 5, .. }))));
    assert_eq!(ask(&mut pool, &discover(1), 6).0, Verdict::Offered(address));
}

#[test]
fn what_a_request_for_an_address_gets() {
    let mut pool = pool(100, 101, vec![]);
    let mine = takes(&mut pool, 1, 0);
    let other = ip(201 - mine.octets()[3]);
    let named = |address: Ipv4Addr| request(2, address);
    let reboot = |address: Ipv4Addr| Packet::new(3).mac(2).option(50, &address.octets());
    let renew = |mac, address: Ipv4Addr| Packet::new(3).mac(mac).ciaddr(address);
    let elsewhere = |verdict| matches!(verdict, Verdict::Silent(_));
    let refused = |verdict| matches!(verdict, Verdict::Refused(_));
    let laptop = Ipv4Addr::new(192, 168, 1, 5);
    assert!(elsewhere(ask(&mut pool, &reboot(laptop), 1).0), "another server may serve its network");
    let relayed = reboot(laptop).relay(ip(254));
    assert!(elsewhere(ask(&mut pool, &relayed, 1).0), "through a relay too");
    assert!(refused(ask(&mut pool, &named(laptop), 1).0), "wrong network, but we are named");
    pool.manners.authoritative = true;
    assert!(refused(ask(&mut pool, &reboot(laptop), 1).0), "nobody else can serve it");
    let foreign = reboot(laptop).option(54, &[10, 0, 0, 254]);
    assert!(elsewhere(ask(&mut pool, &foreign, 1).0), "another server was chosen");
    assert!(refused(ask(&mut pool, &reboot(mine), 1).0), "another machine's");
    assert!(elsewhere(ask(&mut pool, &reboot(ip(9)), 1).0), "outside the range: not ours to judge");
    assert!(refused(ask(&mut pool, &named(ip(9)), 1).0), "outside the range, but we are named");
    assert!(refused(ask(&mut pool, &named(US), 1).0), "our own");
    assert_eq!(ask(&mut pool, &renew(1, mine), 1).0, Verdict::Granted(mine));
    assert!(refused(ask(&mut pool, &renew(2, mine), 1).0), "renewing another machine's");
    assert_eq!(ask(&mut pool, &reboot(other), 1).0, Verdict::Granted(other));
    let foreign = Packet::new(3).mac(3).option(54, &[10, 0, 0, 254]).option(50, &other.octets());
    assert!(elsewhere(ask(&mut pool, &foreign, 1).0), "another server was chosen");
    assert!(elsewhere(ask(&mut pool, &Packet::new(3).mac(3), 1).0), "no address named");
}

proptest! {
    #[test]
    fn no_two_machines_ever_hold_one_address(
        events in prop::collection::vec((0_u8..12, 0_u8..6, 98_u8..108, 0_u64..80), 1..200)
    ) {
        let mut pool = pool(100, 105, vec![]);
        let mut now = 0;
        for (mac, what, last, passes) in events {
            now += passes;
            let packet = match what {
                0 | 1 => discover(mac),
                2 => request(mac, ip(last)),
                3 => Packet::new(3).mac(mac).ciaddr(ip(last)),
                4 => Packet::new(7).mac(mac).ciaddr(ip(last)),
                _ => Packet::new(4).mac(mac).option(50, &ip(last).octets()),
            };
            let holders = pool.by_holder.clone();
            let (verdict, saved) = ask(&mut pool, &packet, now);
            if let Verdict::Offered(address) | Verdict::Granted(address) = verdict {
                prop_assert!((100..=105).contains(&address.octets()[3]));
                let name = packet.request().mac().unwrap().to_string();
                prop_assert_eq!(&pool.by_address[&address].holder, &name);
                let others = holders.iter().filter(|(who, at)| **at == address && **who != name);
                for (other, _) in others {
                    prop_assert!(!pool.by_holder.contains_key(other));
                }
            }
            prop_assert_eq!(matches!(verdict, Verdict::Granted(_)), saved.as_ref().is_some_and(|lease| {
                lease.state == LeaseState::Held && what < 4
            }));
            for (who, at) in &pool.by_holder {
                prop_assert_eq!(&pool.by_address[at].holder, who);
            }
        }
    }
}
