//! Power loss in the middle of a transfer: of the machine first, then of the server. The disk with half an image does
//! not boot, and the next power-on finishes the job.

use lab::disk;
use lab::images::BANNER_A;
use lab::net::Net;
use lab::rack::{self, Rack};
use lab::scratch::Scratch;
use lab::vm::{Bus, Firmware, Spec};

#[test]
#[ignore = "needs root and virtual machines: run ./tests/run"]
fn a_half_written_disk_never_boots_and_is_finished() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let mut rack = Rack::new(&net, segment, scratch.path()).unwrap();
    // The disk begins with another OS, so it boots, and must not boot any more once writing has begun. The rest is
    // blank, so that the whole image has to be sent.
    let old = lab::images::debian().unwrap().b;
    let disk = disk::holding_start(&scratch.file("disk"), &old, 32 << 20, 2 << 30).unwrap();
    assert!(!disk::is_blank_until(&disk, 1 << 20).unwrap());
    let spec = Spec::new(1, Firmware::Bios, segment).disk(Bus::Virtio, &disk);

    let vm = spec.power_on(&net, scratch.path()).unwrap();
    rack.name(&spec.nics[0].mac, "db-1").unwrap();
    drop(vm);
    let deployment = rack.order("debian-a", &["db-1"], &[]).unwrap();
    let vm = spec.power_on(&net, scratch.path()).unwrap();
    net.limit(&vm.taps()[0], 20).unwrap();
    rack.at_step(&deployment, "transfer", 1).unwrap();
    drop(vm);
    assert!(disk::is_blank_until(&disk, 1 << 20).unwrap(), "the first MiB is there before the rest");

    // The next power-on continues with what is on the disk, and a server that is killed meanwhile loses nothing.
    let mut vm = spec.power_on(&net, scratch.path()).unwrap();
    net.limit(&vm.taps()[0], 50).unwrap();
    rack.at_step(&deployment, "transfer", 1).unwrap();
    rack.server.kill();
    rack.server.start_again().unwrap();
    let shown = rack.deployed(&deployment).unwrap();
    rack::at_login(&mut vm, BANNER_A, "db-1").unwrap();
    assert!(shown["jobs"][0]["attempt"].as_u64() >= Some(2), "{shown}");
    let log = rack.server.run(["logs", "db-1"]).unwrap();
    println!("{log}");
    for step in
        ["inspect", "tailor", "join", "transfer", "verify", "personalise", "seal", "reboot", "confirm"]
    {
        assert!(log.contains(step), "no {step} in the log");
    }
}
