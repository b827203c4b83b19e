//! What machines fetch from a relay over HTTP, and say to the server through it. Files come from the cache, each checked
//! by its hash; everything else is passed on, with the header that tells the server whom it is for. While the server
//! cannot be asked, a machine gets the script that the site's last state allows, and what it reports is refused, so that
//! it keeps it. Touches the cache and the server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{any, get};
use bytes::Bytes;
use common::causes::with_causes;
use common::id::Hash;
use common::limits::REPORT_BYTES_MAX;
use common::trust::PublicKey;
use common::wire::http::{BUNDLE, CMDLINE_KEY, DELTAS, DRIVER, MANIFEST};
use common::wire::objects::OBJECT;
use common::wire::relay::VIA_HEADER;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::cache::{FileCache, Form, NoFile, Wanted};
use super::site::{Alone, Site};
use super::upstream::{NoAnswer, Upstream, whole};
use super::via::ViaSigner;
use crate::boot::script::{self, Visitor};
use crate::http::content::{Content, answer};
use crate::http::refusal::Refusal;
use crate::http::{Ends, Intake, as_script, query_pairs};
use crate::noise::Noise;

/// How long the server may take for an answer: longer than it holds a machine's request for an order.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take for a script: iPXE tries again by itself, and gets what the last state allows instead.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(20);
/// The longest script, in bytes.
const SCRIPT_BYTES_MAX: usize = 64 << 10;
/// How long the server's word counts for which file is at a path that the site's state does not list.
const NAMED: Duration = Duration::from_secs(60);
/// The most such paths that are remembered.
const NAMES_MAX: usize = 256;
/// Seconds after which a machine that is refused may try again.
const RETRY_SECONDS: &str = "10";

/// What the routes share.
pub(super) struct Web {
    upstream: Upstream,
    via: Arc<ViaSigner>,
    cache: FileCache,
    site: watch::Receiver<Arc<Site>>,
    /// The key of the relay's server: no script that names another one is passed on.
    server: PublicKey,
    intake: Arc<Intake>,
    names: Mutex<HashMap<String, (Hash, Instant)>>,
    noise: Mutex<Noise>,
}

impl Web {
    pub(super) fn new(
        upstream: Upstream,
        via: Arc<ViaSigner>,
        cache: FileCache,
        site: watch::Receiver<Arc<Site>>,
        server: PublicKey,
    ) -> Self {
        Self {
            upstream,
            via,
            cache,
            site,
            server,
            intake: Arc::default(),
            names: Mutex::default(),
            noise: Mutex::default(),
        }
    }

    /// The routes, for the machines of the site.
    pub(super) fn routes(self) -> Router {
        Router::new()
            .route("/boot.ipxe", get(boot_script))
            .route("/autoexec.ipxe", get(boot_script))
            .route("/boot/{*path}", get(file))
            .route("/nbp/{file}", get(file))
            .route(&format!("{BUNDLE}/{{hash}}"), get(file))
            .route(&format!("{DRIVER}/{{hash}}"), get(file))
            .route(&format!("{MANIFEST}/{{image}}"), get(file))
            .route(&format!("{DELTAS}/{{image}}"), get(file))
            .route(&format!("{OBJECT}/{{hash}}"), get(file))
            .route("/v1/relay/{*path}", any(nothing))
            .route("/v1/{*path}", any(pass_on))
            .fallback(nothing)
            .with_state(Arc::new(self))
    }

    /// Passes a request on for the machine at `ends`.
    async fn ask(
        &self,
        ends: Ends,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: Bytes,
        patience: Duration,
    ) -> Result<hyper::Response<Incoming>, Refusal> {
        let via = self
            .via
            .header(ends, method.as_str(), target)
            .ok_or_else(|| unavailable("this relay has not heard of its server since it was started"))?;
        let mut request = hyper::Request::builder().method(method).uri(target).header(VIA_HEADER, via);
        for name in [header::CONTENT_TYPE, header::RANGE, header::IF_RANGE, header::ACCEPT] {
            if let Some(value) = headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let request = request.body(body.into()).map_err(NoAnswer::Request);
        let answer = match request {
            Ok(request) => self.upstream.send(request, patience).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| {
            self.noise.lock().warn(|unsaid| {
                tracing::warn!(error = with_causes(&error), machine = %ends.peer.ip(), unsaid, "a request could not be passed on");
            });
            unavailable("the server cannot be reached from here").because(with_causes(&error))
        })
    }

    /// The file at a path of the server, by the site's state, by the path itself, or by the server's own word.
    async fn wanted(&self, path: &str) -> Result<Wanted, Refusal> {
        if let Some(file) = self.site.borrow().file(path) {
            return Ok(Wanted::plain(file.hash, Some(file.bytes), path.to_owned()));
        }
        let named = |hash: &str| hash.parse().map_err(|_| Refusal::absent("that is no file's hash"));
        let (hash, form) = match path.rsplit_once('/') {
            Some((BUNDLE | MANIFEST | OBJECT, hash)) => (named(hash)?, Form::Plain),
            Some((DRIVER, hash)) => (named(hash)?, Form::Frame),
            _ => (self.hash_at(path).await?, Form::Plain),
        };
        Ok(Wanted { hash, form, bytes: None, path: path.to_owned() })
    }

    /// The hash of the file at `path`, which the server's `ETag` is. The last one counts while the server is not asked.
    async fn hash_at(&self, path: &str) -> Result<Hash, Refusal> {
        let last = self.names.lock().get(path).copied();
        if let Some((hash, at)) = last
            && at.elapsed() < NAMED
        {
            return Ok(hash);
        }
        let request = hyper::Request::head(path).body(Bytes::new().into()).map_err(NoAnswer::Request);
        let answer = match request {
            Ok(request) => self.upstream.send(request, SCRIPT_PATIENCE).await,
            Err(error) => Err(error),
        };
        let answer = match (answer, last) {
            (Ok(answer), _) => answer,
            (Err(_), Some((hash, _))) => return Ok(hash),
            (Err(error), None) => {
                return Err(unavailable("the server cannot be reached, and the file is not here")
                    .because(with_causes(&error)));
            }
        };
        let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let hash = tag.and_then(|tag| tag.trim_matches('"').parse::<Hash>().ok());
        let hash = hash.filter(|_| answer.status() == StatusCode::OK);
        let hash = hash.ok_or_else(|| Refusal::absent("the server has no such file"))?;
        let mut names = self.names.lock();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(path.to_owned(), (hash, Instant::now()));
        Ok(hash)
    }

    /// What a machine is told while the server cannot be asked.
    fn alone(&self, ends: Ends, visitor: &Visitor) -> String {
        let asker = match visitor {
            Visitor::First => return script::entry(ends.local, self.upstream.address()),
            Visitor::Machine(asker, _) | Visitor::Odd(asker) => asker,
        };
        match self.site.borrow().alone(asker) {
            Alone::Wait => script::wait_because(
                ends.local,
                "something is to be installed, and the server cannot be reached",
            ),
            Alone::BootDisk => {
                script::boot_disk(ends.local, "the server cannot be reached, and nothing is ordered")
            }
            Alone::Ignore => script::ignored(ends.local),
        }
    }
}

async fn nothing() -> Refusal {
    Refusal::absent("there is nothing here")
}

fn unavailable(error: &str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
        .hint("it is tried again; what was reported is kept by who reports it")
}

async fn boot_script(
    State(web): State<Arc<Web>>,
    Extension(ends): Extension<Ends>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let pairs = query_pairs(uri.query().unwrap_or_default());
    let visitor = script::visitor(pairs.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
    if visitor == Visitor::First {
        return as_script(script::entry(ends.local, web.upstream.address()));
    }
    let target = target(&uri);
    let asked = web.ask(ends, &Method::GET, target, &headers, Bytes::new(), SCRIPT_PATIENCE).await;
    let Ok(answer) = asked else { return as_script(web.alone(ends, &visitor)) };
    if answer.status() != StatusCode::OK {
        return passed(answer);
    }
    let Ok(bytes) = whole(answer.into_body(), SCRIPT_BYTES_MAX).await else {
        return as_script(web.alone(ends, &visitor));
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if names_another(&text, &web.server) {
        tracing::error!(machine = %ends.peer.ip(), "what answers for the server sends a script with another server's key: it is not passed on");
        return as_script(web.alone(ends, &visitor));
    }
    as_script(text)
}

/// Whether a script makes its machine trust another server. Nothing else in a script is signed, and who is between relay
/// and server could still make a machine start something else.
fn names_another(script: &str, server: &PublicKey) -> bool {
    let own = server.to_string();
    script
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(CMDLINE_KEY)?.strip_prefix('='))
        .any(|key| key != own)
}

async fn file(
    State(web): State<Arc<Web>>,
    Extension(ends): Extension<Ends>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let wanted = web.wanted(uri.path()).await?;
    let bytes = match web.cache.get(&wanted).await {
        Ok(bytes) => bytes,
        Err(NoFile::Absent) => return Err(Refusal::absent("the server has no such file")),
        Err(error) if error.is_disk() => {
            // Slow, and the line pays for each machine; but the machine boots.
            let target = target(&uri);
            let answer = web.ask(ends, &method, target, &headers, Bytes::new(), PATIENCE).await?;
            return Ok(passed(answer));
        }
        Err(error) => {
            return Err(
                unavailable("the file is not here and could not be fetched").because(with_causes(&error))
            );
        }
    };
    // UEFI tells an EFI program from a disk image by its media type (UEFI 2.10 section 24.7.3.1) before its name.
    let media = match wanted.form {
        Form::Frame => "application/zstd",
        Form::Plain if uri.path().ends_with(".efi") => "application/efi",
        Form::Plain => "application/octet-stream",
    };
    let content = Content { bytes, media, tag: Some(wanted.hash.to_string()) };
    answer(&method, &headers, content, Box::new(|_| ())).await
}

async fn pass_on(
    State(web): State<Arc<Web>>,
    Extension(ends): Extension<Ends>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    // Read whole before it is passed on: a machine that sends slowly holds no connection to the server.
    let taken = web.intake.read(ends.peer.ip(), &head.headers, body, REPORT_BYTES_MAX, "request").await?;
    let target = target(&head.uri);
    let bytes = taken.bytes.clone();
    Ok(passed(web.ask(ends, &head.method, target, &head.headers, bytes, PATIENCE).await?))
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// The server's answer, as it came, without what belongs to the connection that it came over (RFC 9110 section 7.6.1).
fn passed(answer: hyper::Response<Incoming>) -> Response {
    const OF_CONNECTION: [HeaderName; 4] =
        [header::CONNECTION, header::TRANSFER_ENCODING, header::TE, header::UPGRADE];
    let mut answer = answer.map(Body::new);
    for name in OF_CONNECTION {
        answer.headers_mut().remove(name);
    }
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static(RETRY_SECONDS));
    }
    answer
}
