//! Another DHCP server gives out the addresses: dnsmasq is the network's DHCP server, swarmboot only adds what to boot.

use lab::disk;
use lab::dnsmasq::Dnsmasq;
use lab::images::{BANNER_A, BANNER_B};
use lab::net::Net;
use lab::rack::{self, Rack};
use lab::scratch::Scratch;
use lab::server::Server;
use lab::vm::{Bus, Firmware, Model, Spec};

#[test]
#[ignore = "needs root and virtual machines: run ./tests/run"]
fn beside_a_dhcp_server_that_is_not_ours() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let dnsmasq = Dnsmasq::start(&net, segment, scratch.path()).unwrap();
    let server = Server::start_proxy(&net, segment, scratch.path()).unwrap();
    let mut rack = Rack::with(server).unwrap();
    let blank = |name: &str| disk::blank(&scratch.file(name), 2 << 30).unwrap();
    let specs = [
        Spec::new(1, Firmware::Bios, segment).model(Model::E1000e).disk(Bus::Virtio, &blank("disk1")),
        Spec::new(2, Firmware::Uefi, segment).disk(Bus::Sata, &blank("disk2")),
    ];
    let mut machines: Vec<_> =
        specs.iter().map(|spec| spec.power_on(&net, scratch.path()).unwrap()).collect();
    rack.name(&specs[0].nics[0].mac, "bios-1").unwrap();
    rack.name(&specs[1].nics[0].mac, "uefi-1").unwrap();
    let first = rack.order("debian-a", &["bios-1"], &[]).unwrap();
    let second = rack.order("debian-b", &["uefi-1"], &[]).unwrap();
    rack.deployed(&first).unwrap();
    rack.deployed(&second).unwrap();
    rack::at_login(&mut machines[0], BANNER_A, "bios-1").unwrap();
    rack::at_login(&mut machines[1], BANNER_B, "uefi-1").unwrap();
    for spec in &specs {
        assert!(dnsmasq.log().contains(&spec.nics[0].mac), "{} has no address of dnsmasq's", spec.name);
    }
}
