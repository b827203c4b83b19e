//! UEFI HTTP boot: the firmware itself speaks HTTP, and sends nothing to the TFTP listener.

use lab::disk;
use lab::images::BANNER_A;
use lab::net::Net;
use lab::rack::{self, Rack};
use lab::scratch::Scratch;
use lab::vm::{Bus, Firmware, Spec};

#[test]
#[ignore = "needs root and virtual machines: run ./tests/run"]
fn uefi_http_boot_needs_no_tftp() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let mut rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let disk = disk::blank(&scratch.file("disk"), 2 << 30).unwrap();
    let spec = Spec::new(1, Firmware::UefiHttp, segment).disk(Bus::Virtio, &disk);
    let mut vm = spec.power_on(&net, scratch.path()).unwrap();
    rack.name(&spec.nics[0].mac, "http-1").unwrap();
    let deployment = rack.order("debian-a", &["http-1"], &[]).unwrap();
    rack.deployed(&deployment).unwrap();
    rack::at_login(&mut vm, BANNER_A, "http-1").unwrap();
    let log = rack.server.run(["logs"]).unwrap();
    println!("{log}");
    assert!(log.contains(".efi over http"), "no boot program went out over HTTP");
    assert!(!log.contains("over tftp"), "something was asked over TFTP");
}
