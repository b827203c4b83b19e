//! For tests: a server as a relay sees it, over the real messages, which notes what it is asked; and a relay of the real
//! parts that talks to it over the loopback, without DHCP and TFTP.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use common::id::{Hash, ImageId, Mac, MachineId};
use common::limits::RELAY_HOLD;
use common::trust::{KeyPair, Signed};
use common::wire::http::{IDENTITY, Identity};
use common::wire::relay::{
    BootFile, ENROL, Enrol, Enrolled, InviteWord, News, RELAY_WIRE, STATE, SiteBoot, SiteImage, SiteMachine,
    SiteMachines, SitePolicy, SiteState, SiteWork, Stage, StateAnswer, StateRequest, VIA_HEADER, Via, mark,
};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::ahead::Ahead;
use super::cache::FileCache;
use super::enrol;
use super::home::Home;
use super::site::Site;
use super::sync::Sync;
use super::upstream::Upstream;
use super::via::ViaSigner;
use super::web::Web;
use crate::fault::Fault;
use crate::http::{self, ConnectionBounds};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A server for one relay.
pub(super) struct Seed {
    pub(super) keys: KeyPair,
    pub(super) word: InviteWord,
    /// What the relay is told.
    pub(super) site: watch::Sender<SiteState>,
    pub(super) revoked: AtomicBool,
    /// Signs answers with another key.
    pub(super) changed: AtomicBool,
    /// Says that it is of another version.
    pub(super) newer: AtomicBool,
    /// How the relay was let in, and which requests it sent since.
    pub(super) enrolled: Mutex<Vec<Enrol>>,
    pub(super) states: Mutex<Vec<StateRequest>>,
    /// The requests that came for machines: method and target, whom for, and the body.
    pub(super) passed: Mutex<Vec<(String, Via, Bytes)>>,
    /// How often each file was fetched.
    pub(super) files: Mutex<Vec<String>>,
    /// The text of the script for every machine.
    pub(super) script: Mutex<String>,
    nonces: AtomicU64,
}

impl Seed {
    pub(super) fn new() -> Arc<Self> {
        let keys = KeyPair::from_secret([7; 32]);
        Arc::new(Self {
            word: InviteWord::generate(keys.public()).unwrap(),
            script: Mutex::new(format!("#!ipxe\nkernel vmlinuz swarmboot.key={} x\n", keys.public())),
            keys,
            site: watch::Sender::new(SiteState::default()),
            revoked: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            newer: AtomicBool::new(false),
            enrolled: Mutex::default(),
            states: Mutex::default(),
            passed: Mutex::default(),
            files: Mutex::default(),
            nonces: AtomicU64::new(1),
        })
    }

    /// Serves on `address` until `cancel`, and says where.
    pub(super) async fn serve(
        self: &Arc<Self>,
        address: SocketAddr,
        cancel: CancellationToken,
    ) -> SocketAddr {
        let router = Router::new()
            .route(IDENTITY, get(identity))
            .route(ENROL, post(let_in))
            .route(STATE, post(state))
            .route("/boot/{kit}/{file}", get(file))
            .route("/v1/driver/{hash}", get(driver))
            .fallback(machine)
            .with_state(Arc::clone(self));
        let bound = http::bind(address).await.unwrap();
        let at = bound.address();
        tokio::spawn(bound.run(router, ConnectionBounds { all: 256, per_address: 256 }, cancel));
        at
    }

    /// The site's machines, by the last byte of their address.
    pub(super) fn tell_machines(&self, policies: &[(u8, SitePolicy)]) {
        let machine = |(last, policy): &(u8, SitePolicy)| SiteMachine {
            machine: MachineId((*last).into()),
            uuids: vec![],
            serial: None,
            own: vec![Mac([2, 0, 0, 0, 0, *last])],
            weak: vec![],
            policy: *policy,
        };
        let machines = SiteMachines { machines: policies.iter().map(machine).collect() };
        self.site.send_modify(|site| site.machines = Some(machines));
    }

    /// A kit with the kernel [`kernel`], whose path the site's state lists.
    pub(super) fn tell_kit(&self) {
        self.tell_files(&[("vmlinuz", &kernel())]);
    }

    /// A kit with these files.
    pub(super) fn tell_files(&self, files: &[(&str, &[u8])]) {
        let file = |(name, bytes): &(&str, &[u8])| BootFile {
            name: (*name).to_owned(),
            hash: Hash::of(bytes),
            bytes: bytes.len() as u64,
            path: format!("/boot/k/{name}"),
        };
        let files = files.iter().map(file).collect();
        let boot = SiteBoot { site: "branch".to_owned(), discover: true, files, ..SiteBoot::default() };
        self.site.send_modify(|site| site.boot = Some(boot));
    }

    /// The images of the site: one that is staged, and whether its time has come; or none at all.
    pub(super) fn tell_stage(&self, due: Option<bool>) {
        let image = |due| SiteImage {
            image: ImageId(Hash::of(b"debian")),
            name: "debian".to_owned(),
            bytes: 7,
            stage: Some(Stage { number: 1, due, limit: None }),
            keys: vec![],
        };
        let work = SiteWork { images: due.map(image).into_iter().collect(), ..SiteWork::default() };
        self.site.send_modify(|site| site.work = Some(work));
    }

    fn nonce(&self) -> String {
        self.nonces.fetch_add(1, Ordering::Relaxed).to_string()
    }

    fn signing(&self) -> KeyPair {
        let other = self.changed.load(Ordering::Relaxed);
        if other { KeyPair::from_secret([8; 32]) } else { self.keys.clone() }
    }
}

/// The kernel's bytes.
pub(super) fn kernel() -> Vec<u8> {
    (0..300_000u32).map(|at| (at % 253).to_le_bytes()[0]).collect()
}

async fn identity(State(seed): State<Arc<Seed>>) -> Response {
    let identity = Identity { key: seed.keys.public(), version: "test".to_owned(), nonce: seed.nonce() };
    axum::Json(identity).into_response()
}

async fn let_in(State(seed): State<Arc<Seed>>, body: Bytes) -> Response {
    let signed: Signed<Enrol> = serde_json::from_slice(&body).unwrap();
    let enrol = signed.open_self_signed(|enrol| enrol.relay).unwrap();
    if enrol.invitation != seed.word.key().public() {
        let refused =
            crate::http::refusal::Refusal::new(StatusCode::FORBIDDEN, "there is no such invitation");
        return refused.into_response();
    }
    let introduced = enrol.introduction.open(&enrol.invitation).unwrap();
    assert_eq!((introduced.server, introduced.relay), (seed.keys.public(), enrol.relay));
    seed.enrolled.lock().push(enrol);
    let enrolled =
        Enrolled { request: signed.digest(), name: "branch-1".to_owned(), site: "branch".to_owned() };
    axum::Json(seed.signing().sign(&enrolled)).into_response()
}

async fn state(State(seed): State<Arc<Seed>>, body: Bytes) -> Response {
    let signed: Signed<StateRequest> = serde_json::from_slice(&body).unwrap();
    let request = signed.open_self_signed(|request| request.relay).unwrap();
    let known = request.known;
    seed.states.lock().push(request);
    let news = |site: &SiteState| SiteState {
        boot: site.boot.clone().filter(|part| Some(mark(part)) != known.boot),
        machines: site.machines.clone().filter(|part| Some(mark(part)) != known.machines),
        work: site.work.clone().filter(|part| Some(mark(part)) != known.work),
    };
    let mut site = seed.site.subscribe();
    let held = site.wait_for(|site| {
        seed.revoked.load(Ordering::Relaxed)
            || seed.changed.load(Ordering::Relaxed)
            || seed.newer.load(Ordering::Relaxed)
            || news(site) != SiteState::default()
    });
    let held = tokio::time::timeout(RELAY_HOLD, held).await;
    let news = held.ok().and_then(Result::ok).map(|site| news(&site)).unwrap_or_default();
    let news = match (seed.revoked.load(Ordering::Relaxed), seed.newer.load(Ordering::Relaxed)) {
        (true, _) => News::Revoked,
        (_, true) => News::Version { server: "9.9".to_owned(), wire: RELAY_WIRE + 1 },
        _ => News::State(Box::new(news)),
    };
    let answer = StateAnswer { request: signed.digest(), nonce: seed.nonce(), news };
    axum::Json(seed.signing().sign(&answer)).into_response()
}

async fn file(
    State(seed): State<Arc<Seed>>,
    UrlPath((kit, file)): UrlPath<(String, String)>,
    request: Request,
) -> Response {
    seed.files.lock().push(format!("{} {kit}/{file}", request.method()));
    let bytes = match file.as_str() {
        "vmlinuz" => kernel(),
        // One that the state does not list.
        "loader-8086.img" => kernel().repeat(2),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let tag = format!("\"{}\"", Hash::of(&bytes));
    ([(header::ETAG, tag)], bytes).into_response()
}

/// The frame of one driver, and with [`Seed::changed`] a frame of something else.
async fn driver(State(seed): State<Arc<Seed>>, UrlPath(hash): UrlPath<String>) -> Response {
    seed.files.lock().push(format!("driver {}", &hash[..6]));
    let content = if seed.changed.load(Ordering::Relaxed) { b"another".to_vec() } else { kernel() };
    zstd::encode_all(&content[..], 3).unwrap().into_response()
}

async fn machine(State(seed): State<Arc<Seed>>, headers: HeaderMap, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let target = head.uri.path_and_query().unwrap().to_string();
    let Some(via) = headers.get(VIA_HEADER) else { return StatusCode::BAD_REQUEST.into_response() };
    let signed: Signed<Via> = serde_json::from_slice(via.as_bytes()).unwrap();
    let via = signed.open_self_signed(|via| via.relay).unwrap();
    assert_eq!(via.request, Via::request(head.method.as_str(), &target));
    seed.passed.lock().push((format!("{} {target}", head.method), via, body));
    if head.uri.path() == "/boot.ipxe" {
        seed.script.lock().clone().into_response()
    } else {
        "taken".into_response()
    }
}

/// A relay of the real parts.
pub(super) struct Branch {
    pub(super) at: SocketAddr,
    pub(super) site: watch::Receiver<Arc<Site>>,
    /// Why it is to end.
    pub(super) ended: oneshot::Receiver<Fault>,
    cache: FileCache,
    cancel: CancellationToken,
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Branch {
    /// Starts a relay with its state in `dir`.
    pub(super) async fn start(dir: &Path, seed: SocketAddr, word: Option<InviteWord>) -> Result<Self, Fault> {
        Self::start_at(dir, seed, word, SystemTime::now).await
    }

    /// The same, where `clock` tells the time.
    pub(super) async fn start_at(
        dir: &Path,
        seed: SocketAddr,
        word: Option<InviteWord>,
        clock: fn() -> SystemTime,
    ) -> Result<Self, Fault> {
        let mut home = Home::open(dir)?;
        let upstream = Upstream::new(&format!("http://{seed}"))?;
        let enrolment = enrol::enrolment(&mut home, &upstream, word).await?;
        let cancel = CancellationToken::new();
        let cache =
            FileCache::open(dir.join("files"), 64 << 20, upstream.clone(), cancel.child_token()).unwrap();
        let site = watch::Sender::new(Arc::new(Site::default().with(home.site())));
        let via = Arc::new(ViaSigner::new(home.keys.clone()));
        let bound = http::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let at = bound.address();
        let web =
            Web::new(upstream.clone(), Arc::clone(&via), cache.clone(), site.subscribe(), enrolment.server);
        let bounds = ConnectionBounds { all: 256, per_address: 256 };
        tokio::spawn(bound.run(web.routes(), bounds, cancel.clone()));
        let shown = site.subscribe();
        let free = Box::new(|| 1 << 30);
        let images = watch::channel(vec![]).1;
        let sync = Sync { home, enrolment, upstream, via, http: at, free, clock, site, images };
        let (end, ended) = oneshot::channel();
        tokio::spawn(sync.run(end, cancel.clone()));
        Ok(Self { at, site: shown, ended, cache, cancel })
    }

    /// Starts the task that fetches boot files before a machine asks for them.
    pub(super) fn fetch_ahead(&self) {
        let idle = Duration::from_millis(300);
        let ahead = Ahead { cache: self.cache.clone(), site: self.site.clone(), idle };
        tokio::spawn(ahead.run(self.cancel.clone()));
    }

    /// Waits until what the relay knows fits.
    pub(super) async fn knows(&mut self, fits: impl FnMut(&Arc<Site>) -> bool) {
        let known = tokio::time::timeout(PATIENCE, self.site.wait_for(fits)).await;
        drop(known.expect("it is told").unwrap());
    }

    /// What a machine gets: the status, and the body as far as it comes.
    pub(super) async fn ask(&self, method: &str, target: &str, body: &'static [u8]) -> (StatusCode, Bytes) {
        let machine = Upstream::new(&format!("http://{}", self.at)).unwrap();
        let request =
            hyper::Request::builder().method(method).uri(target).body(Bytes::from(body).into()).unwrap();
        let answer = machine.send(request, PATIENCE).await.unwrap();
        let status = answer.status();
        (status, super::upstream::whole(answer.into_body(), 64 << 20).await.unwrap_or_default())
    }

    /// The script for the machine whose address ends in `last`.
    pub(super) async fn script(&self, last: u8) -> String {
        let (status, text) = self.ask("GET", &format!("/boot.ipxe?mac=02-00-00-00-00-{last:02x}"), b"").await;
        assert_eq!(status, StatusCode::OK);
        String::from_utf8(text.to_vec()).unwrap()
    }
}
