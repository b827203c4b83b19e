//! Commands that are refused, and their errors: each says what, why and what to do, and nothing is lost by it.

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use lab::net::Net;
use lab::process::{self, Beside};
use lab::rack::Rack;
use lab::scratch::Scratch;
use lab::server::{Answer, Server};
use lab::wait;
use lab::{agent, images};

/// Runs `serve` in the network of `net`, with arguments with which it cannot start.
fn serve(net: &Net, scratch: &Scratch, uid: u32, arguments: &[&str]) -> Answer {
    let program = process::program("swarmboot").unwrap();
    let mut command = net.command("setpriv");
    command.args([&format!("--reuid={uid}"), "--clear-groups"]).arg(program);
    command.arg("--socket").arg(scratch.file("other.sock")).arg("serve").args(arguments);
    command.process_group(0);
    let result = command.output().unwrap();
    Answer {
        code: result.status.code().unwrap_or(-1),
        data: String::from_utf8_lossy(&result.stdout).into_owned(),
        talk: String::from_utf8_lossy(&result.stderr).into_owned(),
    }
}

/// Checks that an error says what, why and what to do, and nothing that only a programmer understands.
fn says(answer: &Answer, code: i32, words: &[&str]) {
    println!("{}", answer.talk);
    assert_eq!(answer.code, code, "{answer:?}");
    for word in ["error: ", "hint: "].iter().chain(words) {
        assert!(answer.talk.contains(word), "no `{word}` in: {}", answer.talk);
    }
    assert!(!answer.talk.contains("panicked"), "{}", answer.talk);
}

#[test]
#[ignore = "needs root: run ./tests/run"]
fn a_server_that_cannot_serve_says_why() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let state = scratch.file("other").display().to_string();
    let interface = segment.interface();

    says(&serve(&net, &scratch, 0, &["--state", &state]), 2, &["no network interface"]);
    says(&serve(&net, &scratch, 0, &["--state", &state, "--interface", "eth77"]), 1, &["eth77", "cause: "]);
    let backwards = ["--state", &state, "--interface", &interface, "--dhcp-range", "10.77.0.9-10.77.0.1"];
    says(&serve(&net, &scratch, 0, &backwards), 2, &["10.77.0.9-10.77.0.1"]);
    let elsewhere = ["--state", &state, "--interface", &interface, "--dhcp-range", "10.9.0.1-10.9.0.9"];
    says(&serve(&net, &scratch, 0, &elsewhere), 1, &["DHCP", "cause: "]);
    let nobody = serve(&net, &scratch, 65_534, &["--state", &state, "--interface", &interface]);
    says(&nobody, 1, &["ermission denied"]);

    let mut first = Server::start(&net, segment, scratch.path()).unwrap();
    let second = serve(&net, &scratch, 0, &["--state", &state, "--interface", &interface]);
    says(&second, 1, &["8069", "in use"]);
    first.stop().unwrap();
    let nobody_there = first.ask(["machine", "list"]).unwrap();
    says(&nobody_there, 3, &["swarmboot serve"]);
}

#[test]
#[ignore = "needs root: run ./tests/run"]
fn a_server_that_is_stopped_while_it_starts_stops_in_order() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let mut command = net.command(process::program("swarmboot").unwrap());
    command.arg("--socket").arg(scratch.file("admin.sock")).arg("serve");
    command.arg("--state").arg(scratch.file("state")).args([
        "--interface",
        &segment.interface(),
        "--proxy-dhcp",
    ]);
    let mut server = Beside::start("the server", &mut command, &scratch.file("server.log")).unwrap();
    // The first file that the server makes, long before its listeners are open.
    let key = scratch.file("state/identity.key");
    wait::until("the server to begin", Duration::from_secs(30), || Ok(key.exists().then_some(()))).unwrap();
    server.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = server.wait(Duration::from_secs(30)).unwrap();
    assert!(ended.success(), "{ended}: {}", server.said());
}

#[test]
#[ignore = "needs root: run ./tests/run"]
fn what_cannot_be_used_is_refused_and_nothing_is_left_of_it() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let server = Server::start(&net, segment, scratch.path()).unwrap();
    let status = server.json(["status"]).unwrap();
    assert!(status["warnings"][0].as_str().unwrap().contains("kit import"), "{status}");

    let text = scratch.file("kernel.deb");
    std::fs::write(&text, "not a package").unwrap();
    let kit = server.ask(["kit", "import", "--deb", &text.display().to_string()]).unwrap();
    assert_eq!((kit.code, kit.talk.contains("error: ")), (1, true), "{kit:?}");
    assert_eq!(server.json(["kit", "list"]).unwrap().as_array().unwrap().len(), 0);

    let image = std::fs::read(images::debian().unwrap().a).unwrap();
    let whole = scratch.file("disk.raw");
    std::fs::write(&whole, &image[..64 << 20]).unwrap();
    process::output("xz", ["-0", "-k", &whole.display().to_string()]).unwrap();
    let packed = std::fs::read(scratch.file("disk.raw.xz")).unwrap();
    let cut = scratch.file("cut.raw.xz");
    std::fs::write(&cut, &packed[..packed.len() / 2]).unwrap();
    let mut broken = packed;
    let middle = broken.len() / 2;
    broken[middle] ^= 0x10;
    let changed = scratch.file("changed.raw.xz");
    std::fs::write(&changed, &broken).unwrap();
    for file in [&cut, &changed] {
        let answer = server.ask(["image", "add", "bad", &file.display().to_string()]).unwrap();
        println!("{}", answer.talk);
        assert_eq!((answer.code, answer.talk.contains("error: ")), (1, true), "{answer:?}");
    }
    assert_eq!(server.json(["image", "list"]).unwrap().as_array().unwrap().len(), 0);
    let unknown = server.ask(["deploy", "start", "--image", "none", "--machines", "m1", "--yes"]).unwrap();
    assert_eq!(unknown.code, 1, "{unknown:?}");

    let misspelt = server.ask(["swarm", "limit", "20M", "--site", "brnach"]).unwrap();
    says(&misspelt, 1, &["no site `brnach`", "cause: "]);
    assert_eq!(server.json(["swarm", "limit"]).unwrap()["sites"], serde_json::json!({}));
}

#[test]
#[ignore = "needs root: run ./tests/run"]
fn a_disk_that_is_too_small_is_not_touched() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let rack = Rack::new(&net, segment, scratch.path()).unwrap();
    let target = lab::disk::random(&scratch.file("small"), 64 << 20, 1).unwrap();
    let before = lab::disk::hash(&target).unwrap();
    let agent = agent::start(&net, segment, &rack.server, scratch.path(), "small-1", &target).unwrap();
    let order = ["deploy", "start", "--image", "debian-a", "--machines", "small-1", "--yes"];
    let answer = rack.server.ask(order).unwrap();
    // Both sizes are named, in bytes.
    says(&answer, 1, &["small-1", "1047527424", "67108864"]);
    wait::pause(Duration::from_secs(5)).unwrap();
    drop(agent);
    assert_eq!(lab::disk::hash(&target).unwrap(), before);
}
