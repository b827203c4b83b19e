//! `deployed` is proven: an OS on another disk, or one that took an older order's CIDATA, is not taken for the one that
//! was ordered. Flows whose names begin with `full_` take long, and are left out of the short gate.

use std::time::Duration;

use lab::disk;
use lab::images::{self, BANNER_A, BANNER_B};
use lab::net::{Net, Segment};
use lab::rack::{self, Rack};
use lab::scratch::Scratch;
use lab::vm::{Bus, Firmware, Spec, Vm};
use lab::wait;
use serde_json::Value;

/// Whether a job has ended, with or without success.
fn has_ended(job: &Value) -> bool {
    ["failed", "deployed", "refused", "cancelled"].iter().any(|end| job["state"] == *end)
}

/// Waits until `enough` is true of the only job of a deployment, and returns the job.
fn awaited(rack: &mut Rack<'_>, vm: &Vm, deployment: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let job = wait::until(&format!("{deployment} to end"), rack::DEPLOY_LIMIT, || {
        rack.server.check_running()?;
        wait::pause(Duration::from_secs(1))?;
        let job = rack.server.json(["deploy", "status", deployment])?["jobs"][0].take();
        Ok(enough(&job).then_some(job))
    });
    job.unwrap_or_else(|error| {
        let logs = rack.server.run(["logs"]).unwrap_or_default();
        panic!("{error:#}\n{logs}\n{}", vm.console())
    })
}

/// The kinds of the warnings that an order of `image` for `machine` onto `disk` would have, and their text.
fn warned(rack: &Rack<'_>, image: &str, machine: &str, disk: &str) -> (Vec<String>, String) {
    let words = ["deploy", "start", "--image", image, "--machines", machine, "--disk", disk, "--dry-run"];
    let answer = rack.server.ask(["-o", "json"].into_iter().chain(words)).unwrap();
    let shown: Value = serde_json::from_str(&answer.data).unwrap();
    let line = &shown["machines"][0];
    let warnings = line["warnings"].as_array().cloned().unwrap_or_default();
    let names =
        warnings.iter().filter_map(|warning| warning["warning"].as_str().map(str::to_owned)).collect();
    (names, line["refused"].as_str().unwrap_or_default().to_owned())
}

/// An old OS on the first disk, and an order for the second: the old one boots, and finds the new CIDATA.
fn old_os_first(firmware: Firmware, bus: Bus) {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let mut rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let old = disk::holding(&scratch.file("old"), &images::debian().unwrap().b, 2 << 30).unwrap();
    let new = disk::blank(&scratch.file("new"), 2 << 30).unwrap();
    let spec = Spec::new(1, firmware, segment).disk(bus, &old).disk(bus, &new);
    let mut vm = spec.power_on(&net, scratch.path()).unwrap();
    rack.name(&spec.nics[0].mac, "two-1").unwrap();
    vm.wait_for(BANNER_B, rack::DEPLOY_LIMIT).unwrap();

    let rule = format!("serial={}", spec.disks[1].serial);
    let (warnings, refused) = warned(&rack, "debian-a", "two-1", &rule);
    println!("{warnings:?} {refused}");
    if firmware == Firmware::Bios {
        assert!(warnings.contains(&"other-disk-boots".to_owned()) && refused.contains("--accept other-disk"));
    } else {
        assert!(warnings.contains(&"other-disk-may-boot".to_owned()) && refused.is_empty());
    }
    let order = rack.order("debian-a", &["two-1"], &["--disk", &rule, "--accept", "other-disk"]).unwrap();
    vm.reset().unwrap();
    let job = awaited(&mut rack, &vm, &order, |job| has_ended(job) || !job["note"].is_null());
    println!("{} {} {}", job["state"], job["cause"], job["note"]);
    // Whichever disk the firmware booted, the result has to be true.
    if job["state"] == "deployed" {
        assert_eq!(firmware, Firmware::Uefi, "a BIOS starts its first disk");
        rack::at_login(&mut vm, BANNER_A, "two-1").unwrap();
        assert!(!vm.has_shown(&format!("{BANNER_B} two-1")), "the old OS passed for the new one");
    } else if job["state"] == "failed" {
        let cause = job["cause"].as_str().unwrap();
        assert!(cause.contains("an OS on another disk called home"), "{cause}");
    } else {
        // The old OS ignored the new CIDATA.
        assert_eq!(vm.console().matches(BANNER_B).count(), 2, "{job}");
        let other = job["note"]["other"].as_str().unwrap();
        assert!(other.contains(&spec.disks[0].serial), "{job}");
    }
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/full"]
fn full_an_old_os_on_the_first_disk_is_never_deployed_bios() {
    old_os_first(Firmware::Bios, Bus::Virtio);
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/full"]
fn full_an_old_os_on_the_first_disk_is_never_deployed_uefi() {
    old_os_first(Firmware::Uefi, Bus::Sata);
}

/// A BIOS machine with two blank disks.
fn with_two_blank_disks(scratch: &Scratch, segment: Segment) -> Spec {
    let blank = |name: &str| disk::blank(&scratch.file(name), 2 << 30).unwrap();
    let spec = Spec::new(1, Firmware::Bios, segment);
    spec.disk(Bus::Virtio, &blank("one")).disk(Bus::Virtio, &blank("two"))
}

/// A BIOS has one first disk, and here that is not the ordered one: the boot script goes on to the next disk.
#[test]
#[ignore = "needs root and virtual machines: run ./tests/full"]
fn full_a_blank_first_disk_does_not_keep_the_second_from_starting() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let mut rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let spec = with_two_blank_disks(&scratch, segment);
    let mut vm = spec.power_on(&net, scratch.path()).unwrap();
    rack.name(&spec.nics[0].mac, "second-1").unwrap();
    let rule = format!("serial={}", spec.disks[1].serial);
    let (warnings, refused) = warned(&rack, "debian-a", "second-1", &rule);
    assert_eq!(warnings, ["not-first-disk"]);
    assert!(refused.contains("--accept other-disk"), "{refused}");
    let order = rack.order("debian-a", &["second-1"], &["--disk", &rule, "--accept", "other-disk"]).unwrap();
    rack.deployed(&order).unwrap();
    rack::at_login(&mut vm, BANNER_A, "second-1").unwrap();
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/full"]
fn full_the_same_image_on_both_disks() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let mut rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let spec = with_two_blank_disks(&scratch, segment);
    let mut vm = spec.power_on(&net, scratch.path()).unwrap();
    rack.name(&spec.nics[0].mac, "twin-1").unwrap();
    let rule = |disk: usize| format!("serial={}", spec.disks[disk].serial);
    let order = |rack: &Rack<'_>, disk: usize, host: &str| {
        let flags = ["--disk", &rule(disk), "--hostname", host, "--accept", "other-disk"];
        rack.order("debian-a", &["twin-1"], &flags).unwrap()
    };

    let first = order(&rack, 0, "first");
    rack.deployed(&first).unwrap();
    rack::at_login(&mut vm, BANNER_A, "first").unwrap();
    for (disk, host) in [(1, "second"), (0, "third")] {
        let again = order(&rack, disk, host);
        vm.reset().unwrap();
        let job = awaited(&mut rack, &vm, &again, has_ended);
        println!("{host}: {} {}", job["state"], job["cause"]);
        if job["state"] == "deployed" {
            rack::at_login(&mut vm, BANNER_A, host).unwrap();
        } else {
            let cause = job["cause"].as_str().unwrap();
            assert!(cause.contains("CIDATA") || cause.contains("another disk"), "{cause}");
        }
    }
    let (warnings, refused) = warned(&rack, "debian-a", "twin-1", &rule(1));
    for wanted in ["other-disk-boots", "other-seed", "same-uuid"] {
        assert!(warnings.iter().any(|warning| warning == wanted), "no {wanted} in {warnings:?}");
    }
    assert!(refused.contains("--accept other-disk"), "{refused}");
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/full"]
fn full_two_cables_and_an_image_that_leaves_the_network_to_cloud_init() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let silent = net.segment().unwrap();
    let mut rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let image = images::variant("net", &scratch.file("debian-net.img")).unwrap();
    rack.server.run(["image", "add", "debian-net", &image.display().to_string()]).unwrap();
    let disk = disk::blank(&scratch.file("disk"), 2 << 30).unwrap();
    let spec =
        Spec::new(1, Firmware::Bios, silent).nic(lab::vm::Model::Virtio, segment).disk(Bus::Virtio, &disk);
    let mut vm = spec.power_on(&net, scratch.path()).unwrap();
    rack.name(&spec.nics[1].mac, "cables-1").unwrap();
    let order = rack.order("debian-net", &["cables-1"], &[]).unwrap();
    rack.deployed(&order).unwrap();
    rack::at_login(&mut vm, BANNER_A, "cables-1").unwrap();
}
