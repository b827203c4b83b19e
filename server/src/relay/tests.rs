//! A relay over the loopback with a server that notes what it is asked: the ways that work, and every loss.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::StatusCode;
use common::wire::relay::{InviteWord, SitePolicy};
use tokio_util::sync::CancellationToken;

use super::testing::{Branch, PATIENCE, Seed, kernel};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

struct Bench {
    seed: Arc<Seed>,
    at: SocketAddr,
    dir: tempfile::TempDir,
    power: CancellationToken,
}

impl Bench {
    async fn new() -> Self {
        let (seed, power) = (Seed::new(), CancellationToken::new());
        let at = seed.serve(ANY, power.clone()).await;
        Self { seed, at, dir: tempfile::tempdir().unwrap(), power }
    }

    async fn branch(&self) -> Branch {
        Branch::start(self.dir.path(), self.at, Some(self.seed.word.clone())).await.unwrap()
    }

    /// A relay that knows the kit and some machines.
    async fn told(&self) -> Branch {
        self.seed.tell_kit();
        self.seed.tell_machines(&[(1, SitePolicy::Job), (2, SitePolicy::BootDisk), (3, SitePolicy::Ignore)]);
        let mut branch = self.branch().await;
        branch.knows(|site| site.known().machines.is_some() && site.known().boot.is_some()).await;
        branch
    }

    /// The server loses its power.
    async fn lose_server(&self) {
        self.power.cancel();
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(self.at).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it still listens");
    }
}

#[tokio::test]
async fn a_machine_boots_through_the_relay_and_the_server_sees_whom_it_is_for() {
    let bench = Bench::new().await;
    let branch = bench.told().await;
    assert_eq!(bench.seed.enrolled.lock().len(), 1);
    let (status, entry) = branch.ask("GET", "/boot.ipxe", b"").await;
    let entry = String::from_utf8(entry.to_vec()).unwrap();
    assert!(status == StatusCode::OK && entry.contains(&branch.at.to_string()), "{entry}");
    assert!(bench.seed.passed.lock().is_empty(), "the first script is the relay's own");

    assert!(branch.script(1).await.contains("swarmboot.key="));
    for _ in 0..3 {
        let (status, bytes) = branch.ask("GET", "/boot/k/vmlinuz", b"").await;
        assert!(status == StatusCode::OK && bytes == kernel());
    }
    let (status, answer) = branch.ask("POST", "/v1/report", b"hardware").await;
    assert_eq!((status, &answer[..]), (StatusCode::OK, &b"taken"[..]));

    let passed = bench.seed.passed.lock().clone();
    let lines: Vec<&str> = passed.iter().map(|(line, ..)| line.as_str()).collect();
    assert_eq!(lines, ["GET /boot.ipxe?mac=02-00-00-00-00-01", "POST /v1/report"]);
    assert!(passed.iter().all(|(_, via, _)| via.machine.is_loopback() && via.local == branch.at));
    assert_eq!(&passed[1].2[..], b"hardware");
    assert_eq!(*bench.seed.files.lock(), ["GET k/vmlinuz"], "the line paid once");
}

#[tokio::test]
async fn a_file_that_the_state_does_not_list_is_known_by_the_servers_word() {
    let bench = Bench::new().await;
    let branch = bench.told().await;
    for _ in 0..2 {
        let (status, bytes) = branch.ask("GET", "/boot/k/loader-8086.img", b"").await;
        assert!(status == StatusCode::OK && bytes == kernel().repeat(2));
    }
    assert_eq!(*bench.seed.files.lock(), ["HEAD k/loader-8086.img", "GET k/loader-8086.img"]);
    let (status, _) = branch.ask("GET", "/boot/k/passwd", b"").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = branch.ask("POST", "/v1/relay/state", b"").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "the relay's own routes are not its machines'");
}

#[tokio::test]
async fn without_the_server_a_job_waits_others_boot_their_disks_and_reports_are_kept_by_who_sends_them() {
    let bench = Bench::new().await;
    let branch = bench.told().await;
    branch.ask("GET", "/boot/k/vmlinuz", b"").await;
    bench.lose_server().await;
    let wait = branch.script(1).await;
    assert!(wait.contains("asks") && wait.contains("chain") && !wait.contains("sanboot"), "{wait}");
    let disk = branch.script(2).await;
    assert!(disk.contains("sanboot") && disk.contains("cannot be reached"), "{disk}");
    assert!(branch.script(3).await.contains("not served"));
    let (status, bytes) = branch.ask("GET", "/boot/k/vmlinuz", b"").await;
    assert!(status == StatusCode::OK && bytes == kernel(), "files are here");
    for target in ["/v1/report", "/v1/events", "/v1/confirm/abc"] {
        let (status, said) = branch.ask("POST", target, b"x").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{target}");
        assert!(String::from_utf8_lossy(&said).contains("cannot be reached"));
    }
    // A restart of the relay while the server is gone: it serves by what it was told last.
    drop(branch);
    let again = wait_for(|| Branch::start(bench.dir.path(), bench.at, None)).await;
    assert!(again.script(1).await.contains("asks") && again.script(2).await.contains("sanboot"));
}

/// The server holds its answer while nothing is new, and requests of machines must not wait for that.
#[tokio::test]
async fn a_relay_that_is_started_again_passes_requests_on_at_once() {
    let bench = Bench::new().await;
    drop(bench.told().await);
    let again = wait_for(|| Branch::start(bench.dir.path(), bench.at, None)).await;
    let passed = async {
        while !again.script(1).await.contains("swarmboot.key=") {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    tokio::time::timeout(PATIENCE, passed).await.expect("it is passed on");
}

/// Tries until the last relay has let go of its folder.
async fn wait_for<F: Future<Output = Result<Branch, crate::fault::Fault>>>(start: impl Fn() -> F) -> Branch {
    for _ in 0..200 {
        match start().await {
            Ok(branch) => return branch,
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
    panic!("the folder stays in use");
}

#[tokio::test]
async fn a_revoked_relay_ends_with_the_reason_and_does_not_start_again() {
    let bench = Bench::new().await;
    let mut branch = bench.told().await;
    bench.seed.revoked.store(true, Ordering::Relaxed);
    bench.seed.site.send_modify(|_| ());
    let fault = tokio::time::timeout(PATIENCE, &mut branch.ended).await.unwrap().unwrap();
    assert!(
        fault.text().contains("revoked") && fault.text().contains("relay invite --site branch"),
        "{}",
        fault.text()
    );
    drop(branch);
    let again = async |word: Option<InviteWord>| loop {
        match Branch::start(bench.dir.path(), bench.at, word.clone()).await {
            Err(fault) if fault.text().contains("in use") => {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            other => return other,
        }
    };
    let Err(fault) = again(None).await else { panic!("it does not serve") };
    assert!(fault.text().contains("revoked"), "{}", fault.text());
    bench.seed.revoked.store(false, Ordering::Relaxed);
    let invited = again(Some(bench.seed.word.clone())).await.unwrap();
    let enrolled: Vec<_> = bench.seed.enrolled.lock().iter().map(|enrol| enrol.relay).collect();
    assert!(enrolled.len() == 2 && enrolled[0] != enrolled[1], "with a key of its own");
    drop(invited);
}

#[tokio::test]
async fn an_invitation_that_is_not_known_or_of_another_server_ends_the_start() {
    let bench = Bench::new().await;
    let none = Branch::start(bench.dir.path(), bench.at, None).await.err().unwrap();
    assert!(none.text().contains("relay invite"), "{}", none.text());
    let used = InviteWord::generate(bench.seed.keys.public()).unwrap();
    let used = Branch::start(bench.dir.path(), bench.at, Some(used)).await.err().unwrap();
    assert!(used.text().contains("no such invitation"), "{}", used.text());
    bench.seed.changed.store(true, Ordering::Relaxed);
    let other = Branch::start(bench.dir.path(), bench.at, Some(bench.seed.word.clone())).await.err().unwrap();
    assert!(other.text().contains("not the server that the invitation is of"), "{}", other.text());
}

#[tokio::test]
async fn a_server_with_another_key_is_not_believed_and_no_script_of_it_is_passed_on() {
    let bench = Bench::new().await;
    let branch = bench.told().await;
    let before = branch.site.borrow().known();
    bench.seed.changed.store(true, Ordering::Relaxed);
    bench.seed.tell_machines(&[]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(branch.site.borrow().known(), before, "what another key signs changes nothing");
    *bench.seed.script.lock() = format!("#!ipxe\nkernel x swarmboot.key={}\n", branch_key());
    let script = branch.script(1).await;
    assert!(script.contains("asks") && !script.contains("swarmboot.key"), "{script}");
    assert!(branch.script(2).await.contains("sanboot"));
}

fn branch_key() -> common::trust::PublicKey {
    common::trust::KeyPair::from_secret([66; 32]).public()
}

#[tokio::test]
async fn news_comes_while_the_request_is_held_and_only_what_has_changed() {
    let bench = Bench::new().await;
    let mut branch = bench.told().await;
    bench.seed.tell_machines(&[(1, SitePolicy::BootDisk)]);
    branch.knows(|site| site.policies().iter().count() == 1).await;
    let known = branch.site.borrow().known();
    for _ in 0..200 {
        if bench.seed.states.lock().last().is_some_and(|last| last.known == known) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let states = bench.seed.states.lock();
    assert_eq!(states.last().unwrap().known, known);
    let nonces: std::collections::BTreeSet<&str> = states.iter().map(|state| state.nonce.as_str()).collect();
    assert_eq!(nonces.len(), states.len(), "each nonce once");
    assert!(states.iter().all(|state| state.http == branch.at && state.free == Some(1 << 30)));
}
