//! Starting and stopping the server: with jobs that run, however many, and on a disk that hangs.

use std::path::Path;
use std::sync::Arc;

use common::id::{DeploymentId, Hash, ImageId, JobId, MachineId};
use common::trust::KeyPair;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::bind::BACKLOG;
use super::start::start_swarm;
use super::wire::{CONFIRM_WITHIN, POLL_SECONDS};
use super::*;
use crate::api::shapes::JobState;
use crate::boot::{BootKits, BootSettings};
use crate::config::Addresses;
use crate::fleet::decide::Settings;
use crate::fleet::deployment::Deployment;
use crate::fleet::identity::Fingerprint;
use crate::fleet::job::Job;
use crate::fleet::machine::Machine;
use crate::fleet::order::CheckedOrder;
use crate::fleet::state::Change;
use crate::fleet::{self, FleetHandle};
use crate::image::Images;
use crate::kit::Kits;
use crate::provision::Provisioning;
use crate::records::Records;
use crate::swarm;
use crate::tailor::{Bundles, Loaders};
use crate::traffic::{LineLimits, Sites};

const KEY: [u8; 32] = [7; 32];

fn machine_key(number: u32) -> KeyPair {
    let mut secret = [1; 32];
    secret[..4].copy_from_slice(&number.to_le_bytes());
    KeyPair::from_secret(secret)
}

/// Records with `count` running jobs of one image, as a killed server leaves them.
fn running_jobs(path: &Path, count: u32) -> Records {
    let mut records = Records::open(path).unwrap();
    let order: CheckedOrder = serde_json::from_value(
        serde_json::json!({"image": "debian", "selection": {"machines": [], "labels": []}}),
    )
    .unwrap();
    let (now, deployment) = (Timestamp::now(), DeploymentId(1));
    let mut changes = vec![Change::Deployment(Box::new(Deployment {
        id: deployment,
        ordered: now,
        image: ImageId(Hash([3; 32])),
        image_name: "debian".to_owned(),
        wire_bytes: 1,
        request: order,
        open: false,
        paused: None,
        placed_with: None,
    }))];
    for number in 1..=count {
        let (id, key) = (MachineId(number.into()), machine_key(number).public());
        changes.push(Change::Machine(Box::new(Machine::new(
            id,
            Fingerprint::default(),
            "lab".to_owned(),
            now,
        ))));
        let mut job = Job::new(JobId(number.into()), deployment, id, now);
        (job.state, job.key, job.attempt) = (JobState::Running, Some(key), 1);
        changes.push(Change::Job(Box::new(job)));
    }
    records.commit(&changes).unwrap();
    records
}

pub(super) struct Again {
    pub(super) fleet: FleetHandle,
    swarm: swarm::SwarmHandle,
    count: usize,
    _dir: tempfile::TempDir,
    _crew: Supervisor,
    _task: crate::fleet::FleetTask,
}

impl Again {
    async fn known(&self) -> usize {
        self.swarm.status().await.unwrap().iter().map(|swarm| swarm.nodes.len()).sum()
    }
}

/// A restarted server with `count` running jobs, as far as the swarm and the fleet go.
pub(super) async fn start_again(count: u32) -> Again {
    let dir = tempfile::tempdir().unwrap();
    let records = running_jobs(&dir.path().join("records.sqlite"), count);
    let program = dir.path().join("program");
    std::fs::write(&program, b"program").unwrap();
    let keys = KeyPair::from_secret(KEY);
    let images = Images::open(dir.path()).unwrap();
    let (facts, told) = mpsc::channel(BACKLOG);
    let node = swarm::bind(&keys, "/ip4/127.0.0.1/tcp/0", Arc::new(images.clone()), facts).await.unwrap();
    let handle = node.handle();
    let bundles = Arc::new(Bundles::open(dir.path(), &program).unwrap());
    let (kits, loaders) = (Kits::open(dir.path()).unwrap(), Loaders::open(dir.path()).unwrap());
    let boot = BootSettings { loader: program, http: ([10, 0, 0, 1], 8069).into(), prefer: None };
    let provisioning = Arc::new(Provisioning {
        images,
        kits: Arc::new(BootKits::new(kits, boot, loaders, Arc::clone(&bundles))),
        bundles,
        swarm: handle.clone(),
        key: keys.public(),
        peers: Default::default(),
    });
    let settings = Settings {
        poll_seconds: POLL_SECONDS,
        confirm_within: CONFIRM_WITHIN,
        token_key: KEY,
        ..crate::fleet::testing::settings()
    };
    let (fleet, task) = fleet::start(Box::new(records), provisioning, keys, settings).unwrap();
    let (mut supervisor, ends) = (Supervisor::new(), Ends::default());
    let started = start_swarm(&mut supervisor, node, (told, Default::default()), &fleet, &ends.inner);
    let count =
        tokio::time::timeout(Duration::from_secs(20), started).await.expect("the server comes up").unwrap();
    Again { fleet, swarm: handle, count, _dir: dir, _crew: supervisor, _task: task }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_running_jobs_survives_a_restart() {
    for count in [0, 64, 65, 2000] {
        let again = start_again(count).await;
        assert_eq!((again.count, again.known().await), (count as usize, count as usize));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_jobs_of_a_large_order_are_dismissed_when_it_is_cancelled() {
    let again = start_again(2000).await;
    again
        .fleet
        .cancel(
            DeploymentId(1),
            serde_json::from_str(r#"{"selection": {"machines": [], "labels": []}}"#).unwrap(),
        )
        .await
        .unwrap();
    let left = async {
        while again.known().await > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let left = tokio::time::timeout(Duration::from_secs(30), left).await;
    assert!(left.is_ok(), "{} stay let in", again.known().await);
}

/// A configuration on the loopback, with its state in `dir`.
pub(super) fn config(dir: &Path) -> Config {
    Config {
        interface: "lo".to_owned(),
        addresses: Addresses::Proxy,
        authoritative: false,
        router: None,
        dns: vec![],
        discovery: true,
        order_expires: None,
        state: dir.join("state"),
        socket: dir.join("admin.sock"),
        http_port: 0,
        swarm_port: 0,
        rules: Default::default(),
        max_machines: 50,
        sites: Sites::default(),
        limits: LineLimits::default(),
        keep_events: None,
        keep_bytes: None,
        reserve_bytes: 0,
        connections_per_address: 64,
        boot_peers: Default::default(),
        api: None,
        metrics_address: None,
        subscriptions: crate::subscribers::Subscriptions::default(),
        file: None,
        uefi_program: None,
        kernel_args: Default::default(),
        log: "info".to_owned(),
        log_json: false,
    }
}

/// The disk hangs while the stores are opened: a FIFO stands in for a file that is opened for writing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_signal_ends_a_start_whose_disk_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (state, socket) = (config.state.clone(), config.socket.clone());
    let program = dir.path().join("program");
    std::fs::write(&program, b"program").unwrap();
    std::fs::create_dir_all(state.join("kits")).unwrap();
    let hangs = state.join("kits/.lock");
    nix::unistd::mkfifo(&hangs, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // From here on the signal does not end the process of the tests.
    let _ours = signal(SignalKind::terminate()).unwrap();
    let programs = Programs { loader: program.clone(), agent: program };
    let server = tokio::spawn(serve(config, || Ok(programs)));
    while !state.join("images").exists() {
        assert!(!server.is_finished(), "{:?}", server.await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!server.is_finished(), "it waits for the disk");
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), server).await;
    // Opens the FIFO's other end, so that the hanging thread can end.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&hangs).unwrap();
    assert!(matches!(ended, Ok(Ok(Ok(())))), "{ended:?}");
    assert!(!socket.exists());
    drop(reader);
}
