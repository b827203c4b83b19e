//! A server without sockets for tests: the fleet and the machines' routes over records in a folder, with a provisioner
//! and boot source that only record their calls; and machines that report to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use common::hardware::{CheckedHardware, Contents, Disk, HardwareReport, Nic, SentReport, System};
use common::id::{Hash, ImageId, JobId, Mac};
use common::plan::{DiskIdentity, Instruction, Verdict};
use common::step::{EventBatch, Sources, Step, StepEvent, What};
use common::testing;
use common::trust::{KeyPair, PublicKey, Signed};
use common::wire::http::{EventsTaken, Refused};
use common::wire::objects::Object;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::super::content::{Bytestore, Content};
use super::super::server::Leaving;
use super::super::{BootSource, Ends, public};
use crate::api::shapes::{DeployOrder, ImageShown, Warning};
use crate::boot::from_peers::Hashed;
use crate::fleet::FleetHandle;
use crate::fleet::boot_policy::{Asker, BootPolicy};
use crate::fleet::decide::{Settings, WaiterBounds};
use crate::fleet::provisioner::{NoPlan, PlanRequest, Provision, Provisioner, Soon, Target};
use crate::peers::Peers;
use crate::records::Records;
use crate::swarm::Admission;

/// A provisioner and boot source that record what they are asked.
#[derive(Default)]
pub(super) struct Rooms {
    pub(super) admitted: Mutex<Vec<Admission>>,
    pub(super) dismissed: Mutex<Vec<(PublicKey, Option<String>)>>,
    pub(super) kit: Option<PathBuf>,
    /// Whether a loader is being made, and whoever asks for one waits.
    pub(super) making: AtomicBool,
    /// The warnings that every target is given.
    pub(super) warnings: Mutex<Vec<Warning>>,
}

pub(super) fn image() -> ImageShown {
    ImageShown {
        name: "debian".to_owned(),
        id: ImageId(Hash::of(b"debian")),
        added: Timestamp::UNIX_EPOCH,
        bytes: 1 << 30,
        wire_bytes: 1 << 28,
        chunks: 1024,
        zero_chunks: 0,
        sector_bytes: 512,
        partition_table: "gpt".to_owned(),
        source: "test".to_owned(),
        traits: None,
        staged: vec![],
        updates: vec![],
    }
}

impl Provisioner for Rooms {
    fn image(&self, name: &str) -> Result<ImageShown, Refused> {
        let absent = || Refused { error: format!("no image `{name}`"), cause: None, hint: None };
        (name == "debian").then(image).ok_or_else(absent)
    }

    fn target(&self, _: &PlanRequest, hardware: &CheckedHardware) -> Result<Target, NoPlan> {
        match hardware.report().disks.as_slice() {
            [disk] => Ok(Target {
                disk: DiskIdentity::of(disk),
                words: disk.serial.clone(),
                warnings: self.warnings.lock().clone(),
            }),
            disks => Err(NoPlan::Failed(format!("{} disks match", disks.len()).into())),
        }
    }

    fn tailor(&self, request: &PlanRequest, hardware: &CheckedHardware) -> Result<Provision, NoPlan> {
        let Target { disk, words, warnings } = self.target(request, hardware)?;
        let plan = serde_json::json!({
            "deployment": request.deployment, "job": request.job, "attempt": request.attempt,
            "image": request.image, "image_bytes": 1,
            "target": disk,
            "steps": ["join", "transfer", "seal", "linger", "reboot"],
            "seed": {"key": server_key().public(), "addresses": request.server.into_iter().collect::<Vec<_>>()},
            "tuning": {"cache_bytes": 1, "fetch_parallel": 1, "write_backlog": 1, "sync_bytes": 1, "upload_parallel": 1},
            "finish": request.finish, "bundle": null,
        });
        Ok(Provision { plan: serde_json::from_value(plan).unwrap(), target: words, warnings })
    }

    fn admit(&self, admission: Admission) -> Soon<'_, ()> {
        self.admitted.lock().push(admission);
        Box::pin(async {})
    }

    fn is_here(&self, _: PublicKey) -> Soon<'_, bool> {
        Box::pin(async { false })
    }

    fn dismiss(&self, key: PublicKey, reason: Option<String>) -> Soon<'_, ()> {
        self.dismissed.lock().push((key, reason));
        Box::pin(async {})
    }
}

impl BootSource for Rooms {
    fn kit(&self) -> Option<String> {
        self.kit.is_some().then(|| "debian-12".to_owned())
    }

    fn kit_file(&self, kit: &str, file: &str) -> Option<Content> {
        let path = self.kit.clone().filter(|_| kit == "debian-12" && file == "vmlinuz")?;
        Some(Content { bytes: Bytestore::File(path), media: "application/octet-stream", tag: None })
    }

    fn loader_for(&self, nic: Option<crate::tailor::PciId>) -> String {
        while self.making.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2));
        }
        nic.map_or_else(|| "loader.img".to_owned(), |nic| format!("loader-{:04x}.img", nic.device))
    }

    fn driver(&self, hash: Hash) -> Option<Content> {
        let bytes = Bytestore::Memory(Bytes::from_static(b"frame"));
        (hash == Hash::of(b"driver")).then(|| Content { bytes, media: "application/zstd", tag: None })
    }

    fn boot_program(&self, file: &str) -> Option<Bytes> {
        (file == "snponly.efi").then(|| Bytes::from_static(b"MZ program"))
    }

    fn bundle(&self, hash: Hash) -> Option<Content> {
        let bytes = Bytestore::Memory(Bytes::from_static(b"bundle"));
        (hash == Hash::of(b"bundle")).then(|| Content {
            bytes,
            media: "application/octet-stream",
            tag: Some(hash.to_string()),
        })
    }

    fn manifest(&self, image: ImageId) -> Option<Bytes> {
        (image == self::image().id).then(|| Bytes::from_static(b"SBMF"))
    }

    fn deltas(&self, image: ImageId) -> Option<(Bytes, Hash)> {
        (image == self::image().id).then(|| (Bytes::from_static(b"SBDT"), Hash::of(b"deltas")))
    }

    fn hashed(&self, _: &str, _: &str) -> Option<(Hashed, Hashed)> {
        let hashed = |n| Hashed { object: Object { hash: Hash([n; 32]), bytes: 8 << 20 }, sha256: [n; 32] };
        Some((hashed(0xaa), hashed(0xbb)))
    }

    fn object(&self, hash: Hash) -> Option<Content> {
        self.bundle(hash)
    }
}

pub(super) fn server_key() -> KeyPair {
    KeyPair::from_secret([9; 32])
}

/// A server without sockets, with records in a temporary folder.
pub(super) struct Bench {
    pub(super) fleet: FleetHandle,
    pub(super) rooms: Arc<Rooms>,
    pub(super) routes: Router,
    pub(super) peers: Peers,
    pub(super) dir: tempfile::TempDir,
    pub(super) task: tokio::task::JoinHandle<Result<(), crate::fleet::FleetError>>,
    pub(super) cancel: CancellationToken,
}

impl Bench {
    pub(super) fn open() -> Self {
        Self::over(tempfile::tempdir().unwrap(), true)
    }

    /// A server that leaves the requests of waiting machines open for `time`.
    pub(super) fn patient(time: Duration) -> Self {
        let waiters = WaiterBounds { time, ..WaiterBounds::default() };
        Self::with(tempfile::tempdir().unwrap(), true, waiters)
    }

    pub(super) fn over(dir: tempfile::TempDir, discover: bool) -> Self {
        Self::with(dir, discover, WaiterBounds::default())
    }

    fn with(dir: tempfile::TempDir, discover: bool, waiters: WaiterBounds) -> Self {
        let kernel = dir.path().join("kernel");
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        std::fs::write(&kernel, bytes).unwrap();
        let rooms = Arc::new(Rooms { kit: Some(kernel), ..Rooms::default() });
        let settings = Settings {
            discover,
            waiters,
            order_expires: Some(SignedDuration::from_hours(168)),
            url: "http://10.0.0.1:8069".to_owned(),
            ..crate::fleet::testing::settings()
        };
        let records = Records::open(&dir.path().join("records.sqlite")).unwrap();
        let provisioner: Arc<dyn Provisioner> = Arc::clone(&rooms) as _;
        let (fleet, task) =
            crate::fleet::start(Box::new(records), provisioner, server_key(), settings).unwrap();
        let cancel = CancellationToken::new();
        let task = tokio::spawn(task.run(cancel.clone()));
        let peers = Peers::default();
        let kernel_arguments = "quiet".parse().unwrap();
        let routes =
            public(fleet.clone(), Arc::clone(&rooms) as _, kernel_arguments, discover, peers.clone());
        Self { fleet, rooms, routes, peers, dir, task, cancel }
    }

    pub(super) async fn restart(self) -> Self {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
        Self::over(self.dir, true)
    }

    pub(super) async fn call(&self, request: Request<Body>) -> Response<Body> {
        let mut request = request;
        let end = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), 8069);
        request.extensions_mut().insert(Ends { peer: end(7), local: end(1), own: end(1) });
        request.extensions_mut().insert(Leaving::default());
        hyper_util::service::TowerToHyperService::new(self.routes.clone()).call(request).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Response<Body> {
        self.call(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, body: impl Into<Body>) -> Response<Body> {
        self.call(Request::post(path).body(body.into()).unwrap()).await
    }

    pub(super) async fn post_json(&self, path: &str, body: &str) -> Response<Body> {
        let request = Request::post(path).header("Content-Type", "application/json");
        self.call(request.body(body.to_owned().into()).unwrap()).await
    }

    /// The report with a fresh nonce, as a machine sends it.
    pub(super) fn sent(&self, report: HardwareReport) -> SentReport {
        SentReport { nonce: self.fleet.nonce(), salt: "salt".to_owned(), hardware: report }
    }

    pub(super) async fn report(&self, report: HardwareReport, key: &KeyPair) -> Instruction {
        let sent = key.sign(&self.sent(report));
        let answer = self.post("/v1/report", serde_json::to_vec(&sent).unwrap()).await;
        assert_eq!(answer.status(), 200);
        let verdict: Verdict =
            read::<Signed<Verdict>>(answer).await.open(&server_key().public()).expect("the server signed it");
        assert_eq!((verdict.key, verdict.report), (key.public(), sent.digest()));
        verdict.instruction
    }

    pub(super) async fn told(
        &self,
        key: &KeyPair,
        job: JobId,
        number: u64,
        step: Step,
        what: What,
    ) -> EventsTaken {
        let sources = Some(Sources { peers: 5, ..Sources::default() });
        let events = vec![StepEvent { number, at_ms: 10, step, what, sources }];
        let batch = EventBatch { key: key.public(), job: Some(job), attempt: None, sent_at_ms: 20, events };
        let signed = key.sign(&batch);
        let answer = self.post("/v1/events", serde_json::to_vec(&signed).unwrap()).await;
        assert_eq!(answer.status(), 200);
        let taken = read::<Signed<EventsTaken>>(answer).await.open(&server_key().public()).unwrap();
        assert_eq!(taken.batch, signed.digest());
        taken
    }

    pub(super) async fn order(
        &self,
        text: serde_json::Value,
    ) -> Result<crate::api::shapes::DeployAnswer, crate::fleet::FleetError> {
        self.fleet.order(serde_json::from_value::<DeployOrder>(text).unwrap()).await
    }

    pub(super) async fn policy(&self, machine: u8) -> BootPolicy {
        let asker = Asker { mac: Some(Mac([2, 0, 0, 0, 0, machine])), uuid: None, serial: None };
        self.fleet.policies().borrow().of(&asker).1
    }
}

pub(super) async fn bytes(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

pub(super) async fn read<T: DeserializeOwned>(response: Response<Body>) -> T {
    serde_json::from_slice(&bytes(response).await).unwrap()
}

pub(super) fn key(machine: u8, boot: u8) -> KeyPair {
    KeyPair::from_secret([machine.wrapping_mul(16).wrapping_add(boot); 32])
}

pub(super) fn report(machine: u8, boot: u8, contents: &[Contents]) -> HardwareReport {
    let disk = |(number, contents): (usize, &Contents)| Disk {
        serial: format!("DISK{machine}{number}"),
        contents: *contents,
        ..testing::disk("sda")
    };
    HardwareReport {
        reporter: "test".to_owned(),
        key: key(machine, boot).public(),
        system: System { serial: format!("SN{machine}"), ..System::default() },
        disks: contents.iter().enumerate().map(disk).collect(),
        nics: vec![Nic {
            name: "eth0".to_owned(),
            link: true,
            boot: true,
            ..testing::nic(Mac([2, 0, 0, 0, 0, machine]))
        }],
        ..testing::report()
    }
}

pub(super) fn done() -> What {
    What::Done { text: String::new() }
}
