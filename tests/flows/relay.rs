//! A branch with a relay of its own: its machines boot through it, and the death of the server in the middle of their
//! transfer costs them nothing but the wait for its return.

use std::time::Duration;

use lab::away::{self, Away, SERVER};
use lab::images::BANNER_A;
use lab::net::Net;
use lab::relay::Relay;
use lab::scratch::Scratch;
use lab::vm::{Bus, Firmware, Spec, Vm};
use lab::{disk, wait};

use crate::branch::{AFTER_TRANSFER, DISK_BYTES, LINE, past, rack};

#[test]
#[ignore = "needs root and virtual machines: run ./tests/run"]
fn full_a_branch_with_a_relay_outlives_the_server() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let mut away = Away::new(&net, segment, Some(LINE), scratch.path()).unwrap();
    away.without_relay_agent();
    let mut rack = rack(&away, segment, scratch.path(), "");
    let host = away::host(&net, segment, 3).unwrap();
    let url = format!("http://{SERVER}:8069");
    let relay = Relay::start(&host, &rack.server, &url, "branch", scratch.path()).unwrap();
    let order = rack.order("debian-a", &[], &["--open", "-l", "site=branch", "--limit", "2"]).unwrap();
    let blank = |name: &str| disk::blank(&scratch.file(name), DISK_BYTES).unwrap();
    let specs = [
        Spec::new(1, Firmware::Uefi, segment).disk(Bus::Virtio, &blank("disk1")),
        Spec::new(2, Firmware::Bios, segment).disk(Bus::Sata, &blank("disk2")),
    ];
    let before = away.line(&net).unwrap();
    let mut machines: Vec<Vm> =
        specs.iter().map(|spec| spec.power_on(&net, scratch.path()).unwrap()).collect();
    past(&rack, &order, &["transfer"], 2);
    // Boot files came through the relay: one set for both machines, and what the image has cost so far.
    wait::pause(Duration::from_secs(10)).unwrap();
    rack.server.kill();
    println!("the server was killed in the middle of the transfer");
    wait::pause(Duration::from_secs(60)).unwrap();
    rack.server.start_again().unwrap();
    past(&rack, &order, &AFTER_TRANSFER, 2);
    rack.deployed(&order).unwrap();
    let after = away.line(&net).unwrap();
    for vm in &mut machines {
        vm.wait_for(BANNER_A, Duration::from_secs(900)).unwrap();
    }
    let log = rack.server.run(["logs"]).unwrap();
    println!("{log}\n{}\n{}", rack.server.run(["relay", "list"]).unwrap(), relay.log());
    let mib = (after.from_machine - before.from_machine) >> 20;
    println!("{mib} MiB went over the line for two machines");
    // One image of 108 MiB, one set of boot files, and what each says.
    assert!(mib < 150, "{mib} MiB went over the line");
}
