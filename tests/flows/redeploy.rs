//! Another OS is deployed onto a disk that holds one: the machine boots the new OS, whatever its boot order says.

use lab::disk;
use lab::images::{self, BANNER_B};
use lab::net::Net;
use lab::rack::{self, Rack};
use lab::scratch::Scratch;
use lab::vm::{Bus, Firmware, Spec};

#[test]
#[ignore = "needs root and virtual machines: run ./tests/run"]
fn a_machine_with_an_os_gets_another_one() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let mut rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let old = images::debian().unwrap().a;
    let disk = disk::holding(&scratch.file("disk"), &old, 2 << 30).unwrap();
    let spec = Spec::new(1, Firmware::Bios, segment).disk(Bus::Scsi, &disk);

    // Without an order it is inspected and sent to its own disk, which boots the old OS.
    let mut vm = spec.power_on(&net, scratch.path()).unwrap();
    rack.name(&spec.nics[0].mac, "web-1").unwrap();
    vm.wait_for(images::BANNER_A, rack::REPORT_LIMIT).unwrap();

    let deployment = rack.order("debian-b", &["web-1"], &[]).unwrap();
    vm.reset().unwrap();
    let shown = rack.deployed(&deployment).unwrap();
    rack::at_login(&mut vm, BANNER_B, "web-1").unwrap();
    // The two images share most of their chunks, and chunks that the disk held already were not fetched.
    let sources = &shown["jobs"][0]["sources"];
    println!("reinstall: {sources}");
    assert!(sources["disk"].as_u64() > Some(0), "nothing of the old disk was reused: {sources}");
    assert!(rack::copies_sent(&shown).unwrap() < 0.9, "{shown}");
}
