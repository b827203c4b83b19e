//! A machine that does not come up is reported, with the likely cause, after one try. All of these flows take long, so
//! their names begin with `full_` and the short gate leaves them out.

use std::time::Duration;

use lab::disk;
use lab::images;
use lab::net::Net;
use lab::rack::{self, Rack};
use lab::scratch::Scratch;
use lab::vm::{Bus, Firmware, Spec};
use lab::wait;

/// Makes the first boot entry the last one, as an OS does that puts itself first.
const LEAVE_NETWORK_BOOT: &str = r##"#!/bin/sh
vars=/sys/firmware/efi/efivars
order=$vars/BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -e "$order" ] || mount -t efivarfs efivarfs $vars
chattr -i "$order"
python3 - "$order" <<'END'
import sys
data = open(sys.argv[1], "rb").read()
head, order = data[:4], data[4:]
with open(sys.argv[1], "r+b", buffering=0) as file:
    file.write(head + order[2:] + order[:2])
END
"##;

/// Waits until the job of a deployment has this note, and checks that `status` shows it as well.
fn noted(rack: &Rack<'_>, deployment: &str, kind: &str) {
    let words = ["deploy", "status", deployment];
    let what = format!("{deployment} to be noted as {kind}");
    let note = rack.server.wait_json(&what, &words, rack::DEPLOY_LIMIT, |shown| {
        let note = &shown["jobs"][0]["note"];
        (note["silence"] == kind).then(|| note.clone())
    });
    println!("{}", note.unwrap());
    let status = rack.server.json(["status"]).unwrap();
    assert!(!status["warnings"].as_array().unwrap().is_empty(), "`status` does not say it: {status}");
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/full"]
fn full_an_image_without_a_fallback_loader_is_said_everywhere() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let image = images::variant("noboot", &scratch.file("debian-noboot.img")).unwrap();
    let added = rack.server.ask(["image", "add", "debian-noboot", &image.display().to_string()]).unwrap();
    println!("{}{}", added.talk, added.data);
    assert_eq!(added.code, 0);
    assert!(format!("{}{}", added.talk, added.data).to_lowercase().contains("bootx64.efi"), "{added:?}");
    let disk = disk::blank(&scratch.file("disk"), 2 << 30).unwrap();
    let spec = Spec::new(1, Firmware::Uefi, segment).disk(Bus::Sata, &disk);
    let _vm = spec.power_on(&net, scratch.path()).unwrap();
    rack.name(&spec.nics[0].mac, "esp-1").unwrap();
    let words = ["deploy", "start", "--image", "debian-noboot", "--machines", "esp-1", "--dry-run"];
    let would = rack.server.ask(words).unwrap();
    assert!(would.data.to_lowercase().contains("bootx64.efi"), "{would:?}");
    let order = rack.order("debian-noboot", &["esp-1"], &[]).unwrap();
    noted(&rack, &order, "disk-does-not-boot");
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/full"]
fn full_a_machine_that_leaves_network_boot_is_told_of_after_one_boot() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let mut rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let disk = disk::blank(&scratch.file("disk"), 2 << 30).unwrap();
    let spec = Spec::new(1, Firmware::Uefi, segment).disk(Bus::Sata, &disk);
    let mut vm = spec.power_on(&net, scratch.path()).unwrap();
    rack.name(&spec.nics[0].mac, "leave-1").unwrap();
    let script = scratch.file("leave.sh");
    std::fs::write(&script, LEAVE_NETWORK_BOOT).unwrap();
    let flags = ["--user-data", &script.display().to_string()];
    let first = rack.order("debian-a", &["leave-1"], &flags).unwrap();
    rack.deployed(&first).unwrap();
    rack::at_login(&mut vm, images::BANNER_A, "leave-1").unwrap();
    // The call home comes before the user's own scripts; and a request for an address within three minutes of another
    // counts as the same start of the OS.
    wait::pause(Duration::from_secs(200)).unwrap();
    drop(vm);
    let second = rack.order("debian-b", &["leave-1"], &[]).unwrap();
    let _vm = spec.power_on(&net, scratch.path()).unwrap();
    noted(&rack, &second, "own-disk");
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/full"]
fn full_secure_boot_is_told_of_after_one_try() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let disk = disk::blank(&scratch.file("disk"), 256 << 20).unwrap();
    let spec = Spec::new(1, Firmware::UefiSecure, segment).disk(Bus::Sata, &disk);
    let _vm = spec.power_on(&net, scratch.path()).unwrap();
    let words = ["machine", "list"];
    let note = rack.server.wait_json("Secure Boot to be noted", &words, rack::REPORT_LIMIT, |machines| {
        let note = &machines[0]["note"];
        (note["silence"] == "program-not-started").then(|| note.clone())
    });
    println!("{}", note.unwrap());
    assert!(rack.server.run(["machine", "list"]).unwrap().contains("Secure Boot"));
    assert!(rack.server.run(["logs"]).unwrap().contains("did not start it"));
}
