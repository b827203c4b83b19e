//! Both ports on the loopback: what cannot be bound, and which requests are answered.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::super::bind::{Config, bind_at};
use super::super::place::Range;
use super::*;
use crate::dhcp4::testing::{Packet, beside, full};

fn config(interface: &str, mode: Mode) -> Config {
    let programs = watch::channel(beside().programs).1;
    Config {
        interface: interface.to_owned(),
        mode,
        http_port: 8069,
        discovery: tokio::sync::watch::channel(true).1,
        programs,
        sites: vec![],
        authoritative: false,
    }
}

fn range(start: [u8; 4], end: [u8; 4]) -> Mode {
    let Mode::Full(mut network) = full().mode else { panic!("not full") };
    network.range = Range { start: start.into(), end: end.into() };
    Mode::Full(network)
}

#[tokio::test]
async fn what_cannot_be_served_is_said_with_its_cause() {
    let refused = |config| bind_at(config, 0, 0, 68).map(|_| ()).unwrap_err();
    let error = refused(config("no such thing", Mode::Proxy));
    assert!(matches!(error, DhcpError::Interface { .. }) && error.hint().contains("ip -brief"));
    for (mode, why) in [
        (range([127, 0, 0, 9], [127, 0, 0, 8]), "ends before"),
        (range([127, 0, 0, 0], [127, 9, 0, 0]), "more than"),
        (range([10, 0, 0, 1], [10, 0, 0, 9]), "127.0.0.1/8"),
    ] {
        let error = refused(config("lo", mode)).to_string();
        assert!(error.contains(why), "{error}");
    }
    let taken = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = bind_at(config("lo", Mode::Proxy), port, 0, 68).map(|_| ()).unwrap_err();
    assert!(error.hint().contains("another program"), "{error:?}");
}

#[tokio::test]
async fn a_rom_at_port_4011_is_answered_seen_and_cannot_be_disturbed_by_noise() {
    let bound = bind_at(config("lo", Mode::Proxy), 0, 0, 0).unwrap();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port(Port::Pxe)));
    let dhcp = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port(Port::Dhcp)));
    let (_publish, policies) = watch::channel(Arc::new(BootPolicies::default()));
    let (sightings, mut seen) = mpsc::channel(2);
    let (changed, _) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let server = tokio::spawn(bound.run(policies, sightings, vec![], changed, cancel.clone()));

    let rom = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 1500];
    for round in 0..3 {
        rom.send_to(&[round; 700], at).await.unwrap();
        rom.send_to(&Packet::new(1).bytes(), at).await.unwrap();
        rom.send_to(&Packet::pxe(7).kind(3).ciaddr(Ipv4Addr::LOCALHOST).bytes(), at).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), rom.recv_from(&mut buffer));
        let (length, from) = answer.await.unwrap().unwrap();
        assert_eq!(from, at);
        assert!(buffer[..length].windows(12).any(|part| part == b"snponly.efi\0"));
    }
    let Some(Sighting::PowerOn { firmware, answer, .. }) = seen.recv().await else { panic!("not seen") };
    assert_eq!(
        (firmware.to_string().as_str(), answer.to_string().as_str()),
        ("uefi x64", "proxy offer of snponly.efi")
    );
    let Some(Sighting::Address { address, .. }) = seen.recv().await else { panic!("no address") };
    assert_eq!(address, Ipv4Addr::LOCALHOST);
    // A BIOS never comes to 4011: it takes another server's offer by broadcast.
    let takes = Packet::pxe(0).kind(3).option(50, &[192, 0, 2, 40]).option(54, &[192, 0, 2, 1]);
    rom.send_to(&takes.bytes(), dhcp).await.unwrap();
    let taken = tokio::time::timeout(Duration::from_secs(5), seen.recv()).await.unwrap();
    let Some(Sighting::Address { address, asker }) = taken else { panic!("no address") };
    assert_eq!(address, Ipv4Addr::new(192, 0, 2, 40));
    assert!(asker.mac.is_some());
    cancel.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_server_gives_addresses_and_hands_over_what_to_save() {
    let bound = bind_at(config("lo", range([127, 0, 0, 100], [127, 0, 0, 110])), 0, 0, 0).unwrap();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port(Port::Dhcp)));
    let (_publish, policies) = watch::channel(Arc::new(BootPolicies::default()));
    let (sightings, _seen) = mpsc::channel(1);
    let (changed, mut saved) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let server = tokio::spawn(bound.run(policies, sightings, vec![], changed, cancel.clone()));
    let os = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let wish = Ipv4Addr::new(127, 0, 0, 105);
    let packet = Packet::new(3).option(50, &wish.octets());
    os.send_to(&packet.bytes(), at).await.unwrap();
    let lease = tokio::time::timeout(Duration::from_secs(5), saved.recv()).await.unwrap().unwrap();
    assert_eq!((lease.address, lease.holder.as_str()), (wish, "52:54:00:00:00:01"));
    cancel.cancel();
    server.await.unwrap().unwrap();
}
