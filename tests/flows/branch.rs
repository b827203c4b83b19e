//! A branch behind a thin line: its second and third machine take kernel and loader from the first; one that lies is
//! found out where the firmware can check, and never asked where it cannot.

use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use lab::away::{self, Away, SERVER};
use lab::images::{self, BANNER_A};
use lab::liar::Liar;
use lab::net::{Net, Segment};
use lab::rack::Rack;
use lab::scratch::Scratch;
use lab::server::Server;
use lab::vm::{Bus, Firmware, Spec, Vm};
use lab::{agent, disk, process, wait};

pub(crate) const DISK_BYTES: u64 = 2 << 30;
/// The rate of the branch's line, in Mbit/s.
pub(crate) const LINE: f64 = 20.0;
/// The timeout of one step of several machines.
const LIMIT: Duration = Duration::from_secs(1500);

/// A server behind the branch's line, with these further lines in its configuration, and a kit with this iPXE.
pub(crate) fn rack<'n>(away: &'n Away, segment: Segment, folder: &Path, more: &str) -> Rack<'n> {
    let config = folder.join("swarmboot.toml");
    let site = format!(
        "{more}[[site]]\nname = \"branch\"\nsubnets = [\"{}/24\"]\nlimit = \"19M\"\n",
        segment.address(0)
    );
    std::fs::write(&config, site).unwrap();
    let config = config.display().to_string();
    let words = ["--interface", "eth0", "--proxy-dhcp", "--config", &config];
    let server = Server::start_with(&away.server, folder, &words).unwrap();
    kit(&server, "new", &images::ipxe().unwrap());
    let image = images::debian().unwrap().a.display().to_string();
    server.run(["image", "add", "debian-a", &image]).unwrap();
    Rack { server }
}

/// Imports a kit with the lab's kernel and the iPXE of this package, which machines boot from now on.
fn kit(server: &Server<'_>, name: &str, ipxe: &Path) {
    let mut words = images::kit_import(&images::kit_packages_with(ipxe).unwrap());
    words.extend(["--name".to_owned(), name.to_owned()]);
    server.run(words).unwrap();
}

/// How many jobs of the deployment are at `step` or past it.
pub(crate) fn past(rack: &Rack<'_>, deployment: &str, steps: &[&str], count: usize) {
    let what = format!("{count} machines to be at {}", steps[0]);
    rack.server
        .wait_json(&what, &["deploy", "status", deployment], LIMIT, |shown| {
            let there = |job: &&serde_json::Value| {
                job["state"] == "deployed" || steps.iter().any(|step| job["step"] == *step)
            };
            (shown["jobs"].as_array()?.iter().filter(there).count() >= count).then_some(())
        })
        .unwrap();
}

/// A machine at one of these has booted.
const FROM_TRANSFER: [&str; 7] = ["transfer", "verify", "personalise", "seal", "linger", "reboot", "confirm"];

pub(crate) const AFTER_TRANSFER: [&str; 3] = ["linger", "reboot", "confirm"];

/// Waits until each machine's console shows the installed system.
fn all_up(machines: &mut [Vm]) {
    for vm in machines {
        vm.wait_for(BANNER_A, Duration::from_secs(900)).unwrap();
    }
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/run"]
fn full_three_machines_of_a_branch_take_their_boot_files_once() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let away = Away::new(&net, segment, Some(LINE), scratch.path()).unwrap();
    let mut rack = rack(&away, segment, scratch.path(), "boot_peers = \"any\"\n");
    let blank = |name: &str| disk::blank(&scratch.file(name), DISK_BYTES).unwrap();
    let specs = [
        Spec::new(1, Firmware::Uefi, segment).disk(Bus::Virtio, &blank("disk1")),
        Spec::new(2, Firmware::Bios, segment).disk(Bus::Virtio, &blank("disk2")),
        Spec::new(3, Firmware::Uefi, segment).disk(Bus::Virtio, &blank("disk3")),
    ];
    let order = rack.order("debian-a", &[], &["--open", "-l", "site=branch", "--limit", "3"]).unwrap();
    let mut machines = vec![specs[0].power_on(&net, scratch.path()).unwrap()];
    past(&rack, &order, &FROM_TRANSFER, 1);
    // What an agent holds for its neighbours it fetches beside the image.
    wait::pause(Duration::from_secs(15)).unwrap();
    machines.push(specs[1].power_on(&net, scratch.path()).unwrap());
    past(&rack, &order, &FROM_TRANSFER, 2);
    // The third machine's firmware gets the older iPXE of the distribution, which cannot check a hash.
    let old = images::kit_packages().unwrap().pop().unwrap();
    kit(&rack.server, "old", &old);
    machines.push(specs[2].power_on(&net, scratch.path()).unwrap());
    past(&rack, &order, &AFTER_TRANSFER, 3);
    all_up(&mut machines);
    rack.server.check_running().unwrap();
    let log = rack.server.run(["logs"]).unwrap();
    println!("{log}\n{}", rack.server.run(["swarm", "status"]).unwrap());
    let status = rack.server.json(["swarm", "status"]).unwrap();
    let branch = status["sites"].as_array().unwrap().iter().find(|site| site["site"] == "branch").unwrap();
    let boot = branch["sent"]["boot_files"].as_u64().unwrap();
    println!("{boot} bytes of boot files went over the line for three machines");
    // One set is 12 MB: the first machine's, and the one that its agent holds. Each for itself would be 48.
    assert!(boot < 30_000_000, "{boot} bytes of boot files went over the line");
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/run"]
fn full_a_neighbour_that_lies_is_found_out_or_not_asked() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let away = Away::new(&net, segment, Some(LINE), scratch.path()).unwrap();
    // The default: only who can check takes boot files from a neighbour.
    let mut rack = rack(&away, segment, scratch.path(), "");
    let order = rack.order("debian-a", &[], &["--open", "-l", "site=branch", "--limit", "3"]).unwrap();

    // The site's first machine is a process, so that what it gives out can be spoiled on its way.
    let host = away::host(&net, segment, 50).unwrap();
    let liar = Liar::start(&host, SocketAddrV4::new(segment.address(50).parse().unwrap(), 8069)).unwrap();
    let target = disk::blank(&scratch.file("disk0"), DISK_BYTES).unwrap();
    let mut first = agent::command(&host, SERVER, "first", &target).unwrap();
    first.args(["--serve-boot-files", "0.0.0.0:8069"]);
    let _first = process::Beside::start("first", &mut first, &scratch.file("first.log")).unwrap();
    past(&rack, &order, &FROM_TRANSFER, 1);

    let blank = |name: &str| disk::blank(&scratch.file(name), DISK_BYTES).unwrap();
    let uefi = Spec::new(1, Firmware::Uefi, segment).disk(Bus::Virtio, &blank("disk1"));
    let bios = Spec::new(2, Firmware::Bios, segment).disk(Bus::Virtio, &blank("disk2"));
    let mut machines = vec![uefi.power_on(&net, scratch.path()).unwrap()];
    past(&rack, &order, &FROM_TRANSFER, 2);
    let log = rack.server.run(["logs"]).unwrap();
    println!("{log}\n{}", rack.server.log());
    let wrong = format!("the neighbour {}:8069 gave out a boot file with a wrong hash", segment.address(50));
    assert!(log.contains(&wrong), "nobody found the flipped bit");
    let flips = liar.flips();
    assert!(flips > 0, "nothing was flipped");

    let refused = "its iPXE runs on BIOS, where it cannot check a hash";
    assert!(!rack.server.log().contains(refused), "nobody on BIOS has asked yet");
    machines.push(bios.power_on(&net, scratch.path()).unwrap());
    past(&rack, &order, &AFTER_TRANSFER, 3);
    all_up(&mut machines);
    println!("{}\n{}", rack.server.run(["logs"]).unwrap(), rack.server.log());
    assert!(rack.server.log().contains(refused), "the log does not say why BIOS machines ask the server");
    assert!(rack.server.log().contains("boot_peers = \"any\""), "it does not name the setting");
    rack.server.check_running().unwrap();
}
