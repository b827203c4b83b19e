//! A relay over the loopback with a server that notes what it is asked: the ways that work, and every loss.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use common::id::Hash;
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

/// Waits until the server was asked for so many files, and a moment for more.
async fn files(bench: &Bench, count: usize) -> Vec<String> {
    for _ in 0..400 {
        if bench.seed.files.lock().len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    tokio::time::sleep(Duration::from_millis(150)).await;
    bench.seed.files.lock().clone()
}

#[tokio::test]
async fn boot_files_are_at_the_site_before_a_machine_asks_and_again_when_they_change() {
    let bench = Bench::new().await;
    bench.seed.tell_stage(None);
    let mut branch = bench.told().await;
    branch.fetch_ahead();
    assert_eq!(files(&bench, 1).await, ["GET k/vmlinuz"]);
    let small = kernel().repeat(2);
    bench.seed.tell_files(&[("vmlinuz", &kernel()), ("loader-8086.img", &small)]);
    assert_eq!(files(&bench, 2).await, ["GET k/vmlinuz", "GET k/loader-8086.img"], "what is new alone");
    branch.knows(|site| site.boot().is_some_and(|boot| boot.files.len() == 2)).await;
    bench.lose_server().await;
    for (path, wanted) in [("/boot/k/vmlinuz", kernel()), ("/boot/k/loader-8086.img", small)] {
        let (status, bytes) = branch.ask("GET", path, b"").await;
        assert!(status == StatusCode::OK && bytes == wanted, "{path}");
    }
}

#[tokio::test]
async fn boot_files_wait_for_the_time_of_a_staged_image_and_for_machines_that_boot() {
    let bench = Bench::new().await;
    bench.seed.tell_stage(Some(false));
    let mut branch = bench.told().await;
    branch.fetch_ahead();
    assert!(files(&bench, 1).await.is_empty() && bench.seed.files.lock().is_empty(), "it is not due");
    bench.seed.tell_stage(Some(true));
    assert_eq!(files(&bench, 1).await, ["GET k/vmlinuz"]);

    // Nothing is staged any more, and machines keep asking.
    bench.seed.tell_stage(None);
    branch.knows(|site| site.work().is_some_and(|work| work.images.is_empty())).await;
    branch.ask("GET", "/boot/k/vmlinuz", b"").await;
    let small = kernel().repeat(2);
    bench.seed.tell_files(&[("vmlinuz", &kernel()), ("loader-8086.img", &small)]);
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        branch.ask("GET", "/boot/k/vmlinuz", b"").await;
    }
    assert_eq!(bench.seed.files.lock().len(), 1, "the line is theirs");
    assert_eq!(files(&bench, 2).await.len(), 2, "then it is idle");
}

#[tokio::test]
async fn a_driver_is_kept_by_the_hash_of_what_it_unpacks_to() {
    let bench = Bench::new().await;
    let branch = bench.told().await;
    let path = format!("/v1/driver/{}", Hash::of(&kernel()));
    bench.seed.changed.store(true, Ordering::Relaxed);
    let (status, wrong) = branch.ask("GET", &path, b"").await;
    assert!(status != StatusCode::OK || wrong.is_empty(), "another driver never arrives whole");
    bench.seed.changed.store(false, Ordering::Relaxed);
    for _ in 0..3 {
        let (status, frame) = branch.ask("GET", &path, b"").await;
        assert!(status == StatusCode::OK && zstd::decode_all(&frame[..]).unwrap() == kernel());
    }
    assert_eq!(bench.seed.files.lock().len(), 2, "the line paid once for each that it sent");
    let (status, _) = branch.ask("GET", &format!("/v1/object/{}", Hash::of(&kernel())), b"").await;
    assert_ne!(status, StatusCode::OK, "the frame is no file of that hash");
    let (status, _) = branch.ask("GET", "/v1/driver/none", b"").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn two_relays_at_one_site_both_serve_and_ask_the_server_once_each() {
    let bench = Bench::new().await;
    let first = bench.told().await;
    let dir = tempfile::tempdir().unwrap();
    let mut second = Branch::start(dir.path(), bench.at, Some(bench.seed.word.clone())).await.unwrap();
    second.knows(|site| site.known().machines.is_some()).await;
    for branch in [&first, &second] {
        assert!(branch.script(1).await.contains("swarmboot.key="));
        let (status, bytes) = branch.ask("GET", "/boot/k/vmlinuz", b"").await;
        assert!(status == StatusCode::OK && bytes == kernel());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = || -> Vec<usize> {
        let states = bench.seed.states.lock();
        let relays: std::collections::BTreeSet<_> = states.iter().map(|state| state.relay).collect();
        relays.iter().map(|relay| states.iter().filter(|state| state.relay == *relay).count()).collect()
    };
    let before = asked();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(before.len() == 2 && asked() == before, "each has one request that the server holds");
}

#[tokio::test]
async fn a_server_of_another_version_ends_the_relay_with_what_to_do() {
    let bench = Bench::new().await;
    let mut branch = bench.told().await;
    bench.seed.newer.store(true, Ordering::Relaxed);
    bench.seed.site.send_modify(|_| ());
    let fault = tokio::time::timeout(PATIENCE, &mut branch.ended).await.unwrap().unwrap();
    for words in ["9.9", env!("CARGO_PKG_VERSION"), "do not understand each other", "install the server's"] {
        assert!(fault.text().contains(words), "{words}: {}", fault.text());
    }
}

#[tokio::test]
async fn a_relay_whose_clock_is_wrong_serves_like_any_other() {
    let bench = Bench::new().await;
    bench.seed.tell_kit();
    bench.seed.tell_machines(&[(1, SitePolicy::Job)]);
    let clocks: [fn() -> SystemTime; 2] = [
        || SystemTime::UNIX_EPOCH - Duration::from_secs(60),
        || SystemTime::now() + Duration::from_secs(400 * 86_400),
    ];
    for clock in clocks {
        let dir = tempfile::tempdir().unwrap();
        let word = Some(bench.seed.word.clone());
        let mut branch = Branch::start_at(dir.path(), bench.at, word, clock).await.unwrap();
        branch.knows(|site| site.known().machines.is_some()).await;
        assert!(branch.script(1).await.contains("swarmboot.key="));
        let (status, _) = branch.ask("POST", "/v1/report", b"hardware").await;
        assert_eq!(status, StatusCode::OK);
    }
    let clocks: Vec<i64> = bench.seed.states.lock().iter().map(|state| state.clock).collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let late = i64::try_from(now).unwrap() + 399 * 86_400;
    assert!(clocks.contains(&0) && clocks.iter().any(|clock| *clock > late), "{clocks:?}");
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
