//! A server's parts, assembled as by `serve`, without its ports: records, images, kits, swarm and fleet behind a real
//! admin socket. Owns that server and the machines that report to it; the commands connect to it as an admin's do.
//! Touches a temporary folder and the loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::hardware::{CheckedHardware, Contents, Cpu, Disk, HardwareReport, Nic, System};
use common::id::{Hash, JobId, Mac};
use common::plan::{Instruction, Verdict};
use common::step::{EventBatch, Sources, Step, StepEvent, What};
use common::testing;
use common::trust::KeyPair;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use server::api;
use server::api::remote::Fingerprint;
use server::api::shapes::ServerStatus;
use server::backup::Backup;
use server::boot::{BootKits, BootSettings};
use server::fleet::decide::{Settings, WaiterBounds};
use server::fleet::rules::{Rule, Rules};
use server::fleet::state::Change;
use server::fleet::{self, FleetHandle};
use server::http;
use server::image::Images;
use server::kit::Kits;
use server::provision::Provisioning;
use server::records::Records;
use server::serve::Stores;
use server::swarm;
use server::tailor::{Bundles, Loaders};
use server::traffic::{Sites, Traffic};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::described::Described;

/// The address at which machines would reach this server.
const HTTP: ([u8; 4], u16) = ([10, 0, 0, 1], 8069);
const KEY: [u8; 32] = [9; 32];

/// A server that runs until it is dropped.
pub(crate) struct Parts {
    folder: tempfile::TempDir,
    fleet: FleetHandle,
    /// The API's URL, and the fingerprint of its certificate.
    api: (String, String),
    certificate: CertificateDer<'static>,
    described: Described,
    cancel: CancellationToken,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Parts {
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A server whose records have these changes already.
    pub(crate) async fn with(before: &[Change]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let program = state.join("program");
        std::fs::write(&program, b"program").unwrap();
        let keys = KeyPair::from_secret(KEY);
        let kits = Kits::open(&state).unwrap();
        let bundles = Arc::new(Bundles::open(&state, &program).unwrap());
        let boot = BootSettings { loader: program, http: HTTP.into(), prefer: None };
        let loaders = Loaders::open(&state).unwrap();
        let kits = Arc::new(BootKits::new(kits, boot, loaders, Arc::clone(&bundles)));
        let stores = Stores { images: Images::open(&state).unwrap(), kits, bundles };
        let (facts, mut told) = mpsc::channel(64);
        let images = Arc::new(stores.images.clone());
        let node = swarm::bind(&keys, "/ip4/127.0.0.1/tcp/0", images, facts).await.unwrap();
        let swarm = node.handle();
        let provisioning = Provisioning {
            images: stores.images.clone(),
            kits: Arc::clone(&stores.kits),
            bundles: Arc::clone(&stores.bundles),
            swarm: swarm.clone(),
            key: keys.public(),
            peers: server::peers::Peers::default(),
        };
        let mut records = Records::open(&state.join("records.sqlite")).unwrap();
        records.commit(before).unwrap();
        let (fleet, task) =
            fleet::start(Box::new(records), Arc::new(provisioning), keys.clone(), settings()).unwrap();

        let cancel = CancellationToken::new();
        let status = status(&keys, stores.clone(), &fleet);
        let (live, live_task) = api::LiveStreams::new(fleet.clone(), swarm.clone(), Traffic::default());
        tokio::spawn(live_task.run(cancel.clone()));
        let admin = api::routes(api::Admin {
            fleet: fleet.clone(),
            images: stores.images.clone(),
            uploads: api::Uploads::default(),
            kits: Arc::clone(&stores.kits),
            swarm,
            traffic: Traffic::default(),
            status,
            tokens: fleet.tokens(),
            used: api::LastUsed::default(),
            user_name: Arc::new(|_| "root".to_owned()),
            errands: api::Errands::default(),
            streams: api::Streams::default(),
            ops: api::Ops {
                backup: Backup { state: state.clone(), configuration: None }.door(),
                ..api::Ops::default()
            },
            live,
            cancel: cancel.clone(),
        });
        let described = Described::by(&admin).await;
        let admin = described.around(admin);
        let socket = http::bind_admin(&folder.path().join("admin.sock")).await.unwrap();
        let (listener, certificate) = api_listener().await;
        let fingerprint = Fingerprint::of(&certificate).to_string();
        let api = (format!("https://{}", listener.address()), fingerprint);
        tokio::spawn(listener.run(admin.clone(), cancel.clone()));
        tokio::spawn(socket.run(admin, cancel.clone()));
        tokio::spawn(node.run(cancel.clone()));
        tokio::spawn(task.run(cancel.clone()));
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        Self { folder, fleet, api, certificate, described, cancel }
    }

    /// Fails when an answer of this server did not fit its document; returns how many did.
    pub(crate) fn verdict(&self) -> usize {
        self.described.verdict()
    }

    /// The API's URL, and the fingerprint of its certificate.
    pub(crate) fn api(&self) -> &(String, String) {
        &self.api
    }

    /// Sends bytes to the API's TLS port as they are, and returns the whole answer.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = self.sent(request).await;
        let mut answer = vec![];
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The beginning of an answer that does not end, up to `mark`.
    pub(crate) async fn until(stream: &mut TlsStream<TcpStream>, mark: &str) -> String {
        let mut answer = vec![];
        while !String::from_utf8_lossy(&answer).contains(mark) {
            let mut piece = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut piece)).await;
            let read =
                read.unwrap_or_else(|_| panic!("{mark} does not come: {}", String::from_utf8_lossy(&answer)));
            let read = read.unwrap();
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A connection to the API's TLS port over which these bytes were sent.
    pub(crate) async fn sent(&self, request: &str) -> TlsStream<TcpStream> {
        self.sent_from(1, request).await
    }

    /// The same from the loopback's address of this number.
    pub(crate) async fn sent_from(&self, address: u8, request: &str) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.bind(([127, 0, 0, address], 0).into()).unwrap();
        let server = self.api.0.trim_start_matches("https://").parse().unwrap();
        let tcp = tcp.connect(server).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// An event at a machine: `report 1 blank`, `report 2 blank data`, `told 1 transfer 40`, `failed 1 transfer`.
    pub(crate) async fn happen(&self, words: &[String]) -> String {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["report", number, disks @ ..] => self.report(number.parse().unwrap(), disks).await,
            ["told", number, step, done] => {
                let what = What::Progress { done: done.parse().unwrap(), total: 100 };
                self.tell(number.parse().unwrap(), step.parse().unwrap(), what).await
            }
            ["failed", number, step, cause @ ..] => {
                let what = What::Failed { cause: cause.join(" "), last: true };
                self.tell(number.parse().unwrap(), step.parse().unwrap(), what).await
            }
            other => panic!("nothing such happens: {other:?}"),
        }
    }

    /// Machine `number` reports `disks`; returns the instruction that it gets.
    async fn report(&self, number: u8, disks: &[&str]) -> String {
        let hardware = CheckedHardware::check(report(number, disks)).unwrap();
        let from = fleet::From {
            peer: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100 + number)),
            server: Some(IpAddr::V4(HTTP.0.into())),
            begun: Timestamp::now(),
            digest: Hash::of(&[number]),
        };
        let signed = self.fleet.report(hardware, from).await.unwrap();
        let verdict: Verdict = signed.open(&KeyPair::from_secret(KEY).public()).unwrap();
        match verdict.instruction {
            Instruction::Wait { .. } => "wait".to_owned(),
            Instruction::BootDisk { .. } => "boot your disk".to_owned(),
            Instruction::Deploy(plan) => format!("{}, to {}", plan.job, plan.target.serial),
        }
    }

    /// Machine `number` sends an event of its first job; returns the answer.
    async fn tell(&self, number: u8, step: Step, what: What) -> String {
        let sources = Some(Sources { server: 127, peers: 381, ..Sources::default() });
        let events = vec![StepEvent {
            number: Timestamp::now().as_microsecond().unsigned_abs(),
            at_ms: 10,
            step,
            what,
            sources,
        }];
        let job = Some(JobId(number.into()));
        let batch = EventBatch { key: key(number).public(), job, attempt: None, sent_at_ms: 20, events };
        let signed = self.fleet.events(batch, Hash::of(&[number])).await.unwrap();
        let taken = signed.open(&KeyPair::from_secret(KEY).public()).unwrap();
        taken.cancelled.unwrap_or_else(|| "go on".to_owned())
    }
}

/// The API's TLS listener with a certificate of its own.
async fn api_listener() -> (http::ApiBound, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.key_pair.serialize_der().try_into().unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (http::bind_api(([127, 0, 0, 1], 0).into(), Arc::new(tls)).await.unwrap(), made.cert.der().clone())
}

fn settings() -> Settings {
    Settings {
        discover: true,
        poll_seconds: 10,
        waiters: WaiterBounds::default(),
        confirm_within: SignedDuration::from_mins(30),
        keep_events: None,
        keep_bytes: None,
        reserve_bytes: 0,
        rules: rules(),
        max_machines: 4,
        sites: Sites::default(),
        token_key: KEY,
        own: Arc::default(),
        order_expires: Some(SignedDuration::from_hours(7 * 24)),
        url: "http://10.0.0.1:8069".to_owned(),
        seeds: vec![],
    }
}

/// What the configuration file's `[[rule]]` would say.
fn rules() -> Rules {
    let small = [("size".to_owned(), "small".to_owned())].into();
    vec![Rule::new("memory<64G", small).unwrap()].into()
}

fn status(
    keys: &KeyPair,
    stores: Stores,
    fleet: &FleetHandle,
) -> Arc<dyn Fn() -> ServerStatus + Send + Sync> {
    let (key, policies) = (keys.public(), fleet.policies());
    Arc::new(move || ServerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        key,
        url: "http://10.0.0.1:8069".to_owned(),
        mode: "proxy-dhcp on eth1".to_owned(),
        started: Timestamp::now(),
        warnings: stores.warnings().into_iter().chain(policies.borrow().warning()).collect(),
        api: None,
        frozen: None,
        subscribers: vec![],
    })
}

fn key(number: u8) -> KeyPair {
    KeyPair::from_secret([100 + number; 32])
}

pub(crate) fn report(number: u8, disks: &[&str]) -> HardwareReport {
    let disk = |(at, contents): (usize, &&str)| Disk {
        size: 8 << 30,
        model: "Maker 8G".to_owned(),
        serial: format!("DISK{number}{at}"),
        contents: serde_json::from_value::<Contents>((*contents).into()).unwrap(),
        ..testing::disk(["sda", "sdb", "sdc"][at])
    };
    HardwareReport {
        reporter: "test".to_owned(),
        key: key(number).public(),
        system: System {
            manufacturer: "Maker".to_owned(),
            product: "Box".to_owned(),
            serial: format!("SN{number}"),
            ..System::default()
        },
        cpu: Cpu { threads: 4, ..Cpu::default() },
        memory_bytes: 4 << 30,
        disks: disks.iter().enumerate().map(disk).collect(),
        nics: vec![Nic {
            name: "eth0".to_owned(),
            driver: "r8169".to_owned(),
            speed_mbit: Some(1000),
            link: true,
            address: Some(format!("10.0.0.{}/24", 100 + u16::from(number))),
            boot: true,
            ..testing::nic(Mac([2, 0, 0, 0, 0, number]))
        }],
        ..testing::report()
    }
}
