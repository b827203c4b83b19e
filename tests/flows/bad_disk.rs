//! Two of four machines cannot write: one disk is full in the middle of the image, on another writing fails. Their jobs
//! fail and say why, and the others get their image. The agents are processes: only their writing is under test.

use std::path::PathBuf;
use std::time::Duration;

use lab::net::Net;
use lab::scratch::Scratch;
use lab::server::Server;
use lab::small::Small;
use lab::{agent, disk};

/// The timeout of a whole order for agents that are processes.
const LIMIT: Duration = Duration::from_secs(300);

const IMAGE_BYTES: u64 = 96 * disk::MIB;
const DISK_BYTES: u64 = 128 * disk::MIB;
const ROOM: u64 = 32 * disk::MIB;

#[test]
#[ignore = "needs root: run ./tests/run"]
fn whose_disk_fails_is_named_and_the_others_finish() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let server = Server::start(&net, segment, scratch.path()).unwrap();
    // Random bytes, which do not compress, so that no chunk is zero or sent twice.
    let image = disk::random(&scratch.file("image"), IMAGE_BYTES, 1).unwrap();
    server.run(["image", "add", "noise", &image.display().to_string(), "--no-table"]).unwrap();
    let full = Small::file(scratch.path(), "full", DISK_BYTES, ROOM).unwrap();
    let broken = Small::device(scratch.path(), "broken", DISK_BYTES, ROOM).unwrap();
    let good = ["good-1", "good-2"].map(|name| disk::blank(&scratch.file(name), DISK_BYTES).unwrap());
    let targets = [
        ("full-1", full.target().to_owned()),
        ("broken-1", broken.target().to_owned()),
        ("good-1", good[0].clone()),
        ("good-2", good[1].clone()),
    ];
    let start = |(name, target): &(&str, PathBuf)| {
        agent::start(&net, segment, &server, scratch.path(), name, target).unwrap()
    };
    let agents: Vec<_> = targets.iter().map(start).collect();

    let words = ["deploy", "start", "--image", "noise", "--yes", "--no-personalise", "--no-confirm"];
    let machines =
        ["--machines", "full-1", "--machines", "broken-1", "--machines", "good-[1-2]", "--gather", "4"];
    let order = server.json(words.into_iter().chain(machines)).unwrap();
    let deployment = order["deployment"].as_str().unwrap();
    let shown = server
        .wait_json("all jobs to end", &["deploy", "status", deployment], LIMIT, |shown| {
            let over = |job: &serde_json::Value| job["state"] == "deployed" || job["state"] == "failed";
            shown["jobs"].as_array()?.iter().all(over).then(|| shown.clone())
        })
        .unwrap();
    for job in shown["jobs"].as_array().unwrap() {
        let (name, state, cause) = (&job["name"], &job["state"], job["cause"].to_string());
        println!("{name} {state} {cause}");
        let wanted = match name.as_str().unwrap() {
            "full-1" => "No space left on device",
            "broken-1" => "Input/output error",
            _ => {
                assert_eq!(state, "deployed");
                continue;
            }
        };
        assert_eq!(state, "failed");
        assert!(cause.contains(wanted), "{cause}");
    }
    for disk in &good {
        assert!(disk::differences(disk, &image).unwrap().is_empty(), "{}", disk.display());
    }
    drop(agents);
}
