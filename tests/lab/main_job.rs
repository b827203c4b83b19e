//! The main job: four machines power on, three are deployed, one is left alone. Owns its order and its checks; the demo
//! prints its steps, the flow of the same name runs it as a test.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::disk;
use crate::images::{BANNER_A, BANNER_B};
use crate::net::Net;
use crate::process;
use crate::rack::{self, Rack};
use crate::scratch::Scratch;
use crate::vm::{Bus, Firmware, Model, Spec, Vm};
use crate::wait;

const DISK_BYTES: u64 = 2 << 30;
const STRANGER_BYTES: u64 = 256 << 20;
/// The most copies of the shared image that may leave the server. Two machines that each fetch all of it make 2.0.
const COPIES_MAX: f64 = 1.6;

/// The callbacks of a run: for each step, and for the end, before the rack is taken down.
pub struct Audience<'a> {
    /// Called with a line about each step.
    pub tell: &'a dyn Fn(&str),
    /// Called with the rack while it is still up.
    pub linger: &'a dyn Fn(&Rack<'_>, &Net) -> Result<()>,
}

impl std::fmt::Debug for Audience<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audience")
    }
}

/// Runs the main job.
///
/// # Errors
/// When anything differs from the README.
pub fn run(audience: &Audience<'_>) -> Result<()> {
    let begun = Instant::now();
    let tell = |text: &str| (audience.tell)(&format!("[{:>4} s] {text}", begun.elapsed().as_secs()));
    let scratch = Scratch::new()?;
    let (net, segment) = Net::with_segment()?;
    tell("server: DHCP, TFTP, HTTP and the swarm's first seed, in a network of its own");
    let mut rack = Rack::new(&net, segment, scratch.path())?;
    for line in rack.server.run(["kit", "list"])?.lines().chain(rack.server.run(["image", "list"])?.lines()) {
        tell(line);
    }

    let blank = |name: &str| disk::blank(&scratch.file(name), DISK_BYTES);
    let specs = [
        Spec::new(1, Firmware::Bios, segment).disk(Bus::Virtio, &blank("disk1")?),
        Spec::new(2, Firmware::Bios, segment).model(Model::E1000).disk(Bus::Sata, &blank("disk2")?),
        Spec::new(3, Firmware::Uefi, segment).disk(Bus::Nvme, &blank("disk3")?),
    ];
    let names = ["rack1-01", "rack1-02", "rack1-03"];
    let stranger_disk = disk::random(&scratch.file("disk4"), STRANGER_BYTES, 4)?;
    let before = disk::hash(&stranger_disk)?;
    let stranger = Spec::new(4, Firmware::Bios, segment).disk(Bus::Virtio, &stranger_disk);

    let mut machines: Vec<Vm> = vec![];
    for spec in specs.iter().chain([&stranger]) {
        let disk = &spec.disks[0];
        tell(&format!(
            "power on: {} ({:?}, {:?} disk, {:?} NIC)",
            spec.name, spec.firmware, disk.bus, spec.nics[0].model
        ));
        machines.push(spec.power_on(&net, scratch.path())?);
        wait::pause(Duration::from_secs(3))?;
    }
    for (spec, name) in specs.iter().zip(names) {
        rack.name(&spec.nics[0].mac, name)?;
        tell(&format!("{} reported its hardware and waits; it is called {name} now", spec.name));
    }
    rack.discovered(&stranger.nics[0].mac)?;
    tell("vm4 reported its hardware; nobody orders anything for it");

    let shared = rack.order("debian-a", &names[..2], &["--gather", "2"])?;
    let other = rack.order("debian-b", &names[2..], &[])?;
    tell(&format!(
        "ordered: {shared} writes debian-a to {} and {}, {other} debian-b to {}",
        names[0], names[1], names[2]
    ));
    let (shared, other) = (rack.deployed(&shared)?, rack.deployed(&other)?);
    tell("all three installed systems have called home");
    for ((vm, name), banner) in machines.iter_mut().zip(names).zip([BANNER_A, BANNER_A, BANNER_B]) {
        rack::at_login(vm, banner, name)?;
        tell(&format!("{} shows `{name} login:` of \"{banner}\"", vm.name()));
    }

    show(&rack, &tell)?;
    check_swarm(&shared, &tell)?;
    check_swarm_bytes(&other)?;
    sizes(&rack, &tell)?;
    let listed = rack.machine(&stranger.nics[0].mac)?;
    ensure!(listed["state"] == "discovered", "vm4 is {}", listed["state"]);
    ensure!(
        listed["hardware"]["disks"].as_array().is_some_and(|disks| disks.len() == 1),
        "vm4's disk is not listed"
    );
    drop(machines.pop());
    ensure!(disk::hash(&stranger_disk)? == before, "vm4's disk was written");
    tell("vm4 is listed as discovered, and its disk is the same, byte for byte");
    (audience.linger)(&rack, &net)?;
    drop(machines);
    rack.server.stop()?;
    tell("done");
    Ok(())
}

fn show(rack: &Rack<'_>, tell: &dyn Fn(&str)) -> Result<()> {
    for command in
        [&["logs"][..], &["machine", "list"], &["deploy", "status", "d1"], &["deploy", "status", "d2"]]
    {
        tell(&format!("$ swarmboot {}", command.join(" ")));
        for line in rack.server.run(command)?.lines() {
            tell(line);
        }
    }
    Ok(())
}

fn check_swarm(deployment: &Value, tell: &dyn Fn(&str)) -> Result<()> {
    let copies = rack::copies_sent(deployment)?;
    tell(&format!("the shared image left the server {copies:.2} times for 2 machines"));
    ensure!(copies < COPIES_MAX, "the shared image left the server {copies:.2} times");
    check_swarm_bytes(deployment)?;
    for job in deployment["jobs"].as_array().into_iter().flatten() {
        ensure!(job["sources"]["peers"].as_u64() > Some(0), "{} took nothing from a peer", job["name"]);
    }
    Ok(())
}

/// Reports the sizes of what machines fetch: the loader for all of them, the bundles made for these three.
fn sizes(rack: &Rack<'_>, tell: &dyn Fn(&str)) -> Result<()> {
    let bytes = |path: &Path| -> Result<u64> { Ok(std::fs::metadata(path)?.len()) };
    for kit in rack.server.json(["kit", "list"])?.as_array().into_iter().flatten() {
        let (modules, loader) = (&kit["modules"], &kit["loader_bytes"]);
        tell(&format!(
            "size: loader initramfs {loader} bytes, of a kernel with {modules} modules in the kit"
        ));
    }
    for entry in std::fs::read_dir(rack.server.state().join("bundles"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "zst") {
            tell(&format!("size: tailored bundle {} bytes, agent and drivers", bytes(&path)?));
        }
    }
    for name in ["swarmboot", "swarmboot-loader", "swarmboot-agent"] {
        tell(&format!("size: {name} {} bytes, static", bytes(&process::program(name)?)?));
    }
    Ok(())
}

/// Checks that the sources of every job add up to the image.
fn check_swarm_bytes(deployment: &Value) -> Result<()> {
    for job in deployment["jobs"].as_array().into_iter().flatten() {
        let sources = &job["sources"];
        let fetched = sources["server"].as_u64().unwrap_or(0) + sources["peers"].as_u64().unwrap_or(0);
        ensure!(
            fetched > 0 && sources["unsent"].as_u64() > Some(0),
            "the bytes of {} are unknown: {sources}",
            job["name"]
        );
    }
    Ok(())
}
