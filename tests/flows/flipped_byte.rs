//! One byte goes wrong on the disk of a machine that others fetch from: they throw the chunk away and name the sender,
//! and every disk holds the image all the same. The agents are processes: only the swarm is under test.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use lab::net::Net;
use lab::rack::{self, Rack};
use lab::scratch::Scratch;
use lab::{agent, disk, images};

const DISK_BYTES: u64 = 2 << 30;

/// The timeout of a whole order for agents that are processes.
const LIMIT: Duration = Duration::from_secs(300);

/// The first MiB after `from` that is not all zeros, in the image at `path`.
fn full_chunk(path: &Path, from: u64) -> u64 {
    let image = File::open(path).unwrap();
    let mut bytes = vec![0; 1 << 20];
    let full = |at: &u64| {
        image.read_exact_at(&mut bytes, at * disk::MIB).unwrap();
        bytes.iter().filter(|&&byte| byte == 0).count() < bytes.len() / 10
    };
    (from..).find(full).unwrap()
}

/// Flips one bit in the middle of the MiB `chunk`.
fn flip(path: &Path, chunk: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let at = chunk * disk::MIB + disk::MIB / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
#[ignore = "needs root: run ./tests/run"]
fn a_wrong_byte_of_a_peer_is_thrown_away_and_the_peer_is_named() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let image = images::debian().unwrap().a;
    // The first machine has the image on its disk already, and serves others from there.
    let first_disk = disk::holding(&scratch.file("first"), &image, DISK_BYTES).unwrap();
    let others = ["other-1", "other-2"];
    let other_disks = others.map(|name| disk::blank(&scratch.file(name), DISK_BYTES).unwrap());
    let start = |rack: &Rack<'_>, name: &str, target: &Path| {
        agent::start(&net, segment, &rack.server, scratch.path(), name, target).unwrap()
    };
    let first = start(&rack, "first-1", &first_disk);
    let waiting = start(&rack, others[0], &other_disks[0]);
    let late = start(&rack, others[1], &other_disks[1]);

    // The gate waits for two machines and one is there, so the first stays in the swarm when its disk is done; the last
    // one's process is stopped until the byte is flipped.
    late.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let wanted = rack.order("debian-a", &others, &["--gather", "2"]).unwrap();
    rack.server
        .wait_json("other-1 to wait", &["deploy", "status", &wanted], LIMIT, |deployment| {
            let mut jobs = deployment["jobs"].as_array()?.iter();
            jobs.any(|job| job["name"] == others[0] && job["step"] == "gather").then_some(())
        })
        .unwrap();
    let holding = rack.order("debian-a", &["first-1"], &[]).unwrap();
    rack.at_step(&holding, "linger", 0).unwrap();
    let chunk = full_chunk(&image, 200);
    flip(&first_disk, chunk);
    assert!(disk::differences(&first_disk, &image).unwrap().contains(&(chunk * disk::MIB)));
    late.signal(nix::sys::signal::Signal::SIGCONT).unwrap();

    let ended = [waiting, late].map(|mut agent| agent.wait(LIMIT).unwrap());
    assert!(ended.iter().all(ExitStatus::success), "{ended:?}");
    let log = rack.server.run(["logs"]).unwrap();
    let accusation = format!("chunk {chunk} from first-1 was thrown away");
    let told: Vec<&str> = log.lines().filter(|line| line.contains(&accusation)).collect();
    println!("{}", told.join("\n"));
    assert!(!told.is_empty(), "nobody was accused in:\n{log}");
    // Personalising writes the partition table, at both ends of the image.
    let last = (std::fs::metadata(&image).unwrap().len() - 1) / disk::MIB * disk::MIB;
    for other in &other_disks {
        let wrong = disk::differences(other, &image).unwrap();
        assert!(wrong.iter().all(|at| [0, last].contains(at)), "{} differs at {wrong:?}", other.display());
    }
    let shown = rack.server.json(["deploy", "status", &wanted]).unwrap();
    let copies = rack::copies_sent(&shown).unwrap();
    println!("{copies:.4} copies came from the server, which alone had the chunk besides");
    assert!(copies > 0.0, "{shown}");
    drop(first);
}
