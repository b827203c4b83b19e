//! Keeps what the relay knows of its site up to date: one request that the server holds until there is news. Owns the
//! site; touches the server, and the file that keeps the site for the next start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use common::causes::with_causes;
use common::limits::{RELAY_ANSWER_BYTES_MAX, RELAY_HOLD, RELAY_IMAGES_MAX, VERDICT_BYTES_MAX};
use common::trust::Signed;
use common::wire::http::{IDENTITY, Identity};
use common::wire::relay::{Known, News, RELAY_WIRE, RelayImage, STATE, SiteState, StateAnswer, StateRequest};
use hyper::{Request, StatusCode, header};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::enrol::revoked;
use super::home::{Enrolment, Home, keep_site};
use super::site::Site;
use super::upstream::{NoAnswer, Upstream, refusal, whole};
use super::via::ViaSigner;
use crate::fault::Fault;

/// How long an answer may take beyond the time that the server holds it.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pauses between tries while the server cannot be asked.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// The shortest time between two requests that only say how far images have come.
const PROGRESS: Duration = Duration::from_secs(10);
/// How soon the server is told that an image has begun, is whole or does not go on.
const SOON: Duration = Duration::from_millis(200);
/// How often the log repeats that the server cannot be asked.
const REPEATED: Duration = Duration::from_secs(600);

/// The task's parts.
pub(super) struct Sync {
    pub(super) home: Home,
    pub(super) enrolment: Enrolment,
    pub(super) upstream: Upstream,
    pub(super) via: Arc<ViaSigner>,
    /// Where machines reach this relay.
    pub(super) http: SocketAddr,
    /// Bytes that the caches may still take.
    pub(super) free: Box<dyn Fn() -> u64 + Send + std::marker::Sync>,
    /// What this host thinks is the time: told to the server, and used for nothing.
    pub(super) clock: fn() -> SystemTime,
    pub(super) site: watch::Sender<Arc<Site>>,
    pub(super) images: watch::Receiver<Vec<RelayImage>>,
}

/// Why there is no news.
#[derive(Debug, thiserror::Error)]
enum NoNews {
    #[error(transparent)]
    Answer(#[from] NoAnswer),
    #[error("the server refuses: {0}")]
    Refused(String),
    /// The nonce was used before, or is one of before the server's restart.
    #[error("the server does not know its own nonce any more")]
    Nonce,
    #[error("what answers is not the server that this relay belongs to, or its key was changed")]
    Untrusted(#[source] common::trust::Untrusted),
    #[error("the answer is not the server's of this version")]
    Content(#[source] serde_json::Error),
    #[error("the answer is to an earlier request: something repeats old answers")]
    Stale,
}

impl NoNews {
    fn hint(&self) -> &'static str {
        match self {
            Self::Untrusted(_) => {
                "nothing that it says is believed; if the server was set up anew, `swarmboot relay invite` there lets this relay in again"
            }
            Self::Content(_) => "bring relay and server to the same version",
            Self::Answer(_) => "is `swarmboot serve` running there, and does a firewall pass its port?",
            Self::Refused(_) | Self::Nonce | Self::Stale => "the server's log says more",
        }
    }
}

/// What the log was told last, and when, so that it is not told every few seconds.
#[derive(Default)]
struct Told(Option<(String, Instant)>);

impl Sync {
    /// Runs until `cancel`. When the server revokes the relay, `end` is told why the process is to end.
    pub(super) async fn run(mut self, end: oneshot::Sender<Fault>, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            fault = self.keep_up() => {
                // Whoever waits for it has already begun to stop otherwise.
                drop(end.send(fault));
                cancel.cancelled().await;
            }
        }
    }

    /// Asks for news, for ever; returns why the relay is to end.
    async fn keep_up(&mut self) -> Fault {
        let (mut nonce, mut pause, mut told) = (None, AGAIN.0, Told::default());
        loop {
            let news = match nonce.take() {
                Some(nonce) => self.ask(nonce).await,
                None => match self.nonce().await {
                    Ok(nonce) => {
                        // The answer may be held for a minute when nothing is new, as after a restart of the relay.
                        self.via.renew(nonce.clone());
                        self.ask(nonce).await
                    }
                    Err(error) => Err(error),
                },
            };
            match news {
                Ok(Some(answer)) => {
                    if told.0.take().is_some() {
                        tracing::info!("the server answers again");
                    }
                    pause = AGAIN.0;
                    self.via.renew(answer.nonce.clone());
                    nonce = Some(answer.nonce);
                    if let Err(end) = self.heed(answer.news).await {
                        return end;
                    }
                }
                // Cut short, to say how far the images have come; the nonce counts as used.
                Ok(None) => {}
                Err(error) => {
                    told.trouble(&error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(AGAIN.1);
                }
            }
        }
    }

    /// A fresh nonce of the server. Unsigned: a wrong one costs an answer.
    async fn nonce(&self) -> Result<String, NoNews> {
        let answer = self.upstream.get(IDENTITY, 0).await?;
        if answer.status() != StatusCode::OK {
            return Err(NoNews::Refused(refusal(answer).await.1));
        }
        let bytes = whole(answer.into_body(), VERDICT_BYTES_MAX).await?;
        Ok(serde_json::from_slice::<Identity>(&bytes).map_err(NoNews::Content)?.nonce)
    }

    /// One request; `None` when it was given up because an image has come further.
    async fn ask(&mut self, nonce: String) -> Result<Option<StateAnswer>, NoNews> {
        let images = self.images.borrow_and_update().clone();
        let sent = self.home.keys.sign(&self.request(nonce, images.clone()));
        let body = serde_json::to_vec(&sent).map_err(NoNews::Content)?;
        let request = Request::post(STATE)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body).into())
            .map_err(NoAnswer::Request)?;
        let asked = Instant::now();
        let answer = self.upstream.send(request, RELAY_HOLD + PATIENCE);
        let answer = tokio::select! {
            answer = answer => answer?,
            () = further(&mut self.images, &images, asked) => return Ok(None),
        };
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::CONFLICT => return Err(NoNews::Nonce),
            _ => return Err(NoNews::Refused(refusal(answer).await.1)),
        }
        let bytes = whole(answer.into_body(), RELAY_ANSWER_BYTES_MAX).await?;
        let signed: Signed<StateAnswer> = serde_json::from_slice(&bytes).map_err(NoNews::Content)?;
        let answer = signed.open(&self.enrolment.server).map_err(NoNews::Untrusted)?;
        if answer.request == sent.digest() { Ok(Some(answer)) } else { Err(NoNews::Stale) }
    }

    fn request(&self, nonce: String, mut images: Vec<RelayImage>) -> StateRequest {
        images.truncate(RELAY_IMAGES_MAX);
        let clock = (self.clock)().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        StateRequest {
            relay: self.home.keys.public(),
            nonce,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wire: RELAY_WIRE,
            clock: i64::try_from(clock).unwrap_or(i64::MAX),
            http: self.http,
            free: Some((self.free)()),
            images,
            known: self.known(),
        }
    }

    fn known(&self) -> Known {
        self.site.borrow().known()
    }

    async fn heed(&mut self, news: News) -> Result<(), Fault> {
        match news {
            News::State(state) if *state == SiteState::default() => {}
            News::State(state) => {
                let site = Arc::new(self.site.borrow().with(*state));
                let (path, kept) = (self.home.site_path(), Arc::clone(&site));
                self.site.send_replace(site);
                // Awaited: two writes of one file must not overtake each other.
                tokio::task::spawn_blocking(move || keep_site(&path, kept.state())).await.ok();
            }
            News::Revoked => {
                let enrolment = Enrolment { revoked: true, ..self.enrolment.clone() };
                self.home.enrolled(&enrolment)?;
                return Err(revoked(&enrolment));
            }
            News::Version { server, wire } => {
                return Err(Fault::failed(format!(
                    "the server has version {server} and this relay {}, which do not understand each other (messages \
                     {wire} and {RELAY_WIRE})",
                    env!("CARGO_PKG_VERSION")
                ))
                .hint("install the server's program here; until then machines go to the server"));
            }
        }
        Ok(())
    }
}

impl Told {
    /// Says in the log why the server cannot be asked; the same reason again only after a while.
    fn trouble(&mut self, error: &NoNews) {
        let now = Instant::now();
        let text = error.to_string();
        let again = self.0.as_ref().is_none_or(|(last, at)| *last != text || now >= *at + REPEATED);
        if again {
            tracing::warn!(
                error = with_causes(error),
                hint = error.hint(),
                "the server tells no news: machines are answered as last told"
            );
            self.0 = Some((text, now));
        }
    }
}

/// Returns when the server is to be told of the images at once, or has not been told for a while.
async fn further(images: &mut watch::Receiver<Vec<RelayImage>>, told: &[RelayImage], asked: Instant) {
    let mut due = None;
    loop {
        let changed = tokio::select! {
            () = at(due) => return,
            changed = images.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
        let soon = begun_or_ended(told, &images.borrow_and_update());
        // A moment for what else begins or ends with it.
        let wanted = if soon { Instant::now() + SOON } else { asked + PROGRESS };
        due = Some(due.map_or(wanted, |due: Instant| due.min(wanted)));
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Whether more has changed than how far an image has come.
fn begun_or_ended(told: &[RelayImage], now: &[RelayImage]) -> bool {
    let plain = |images: &[RelayImage]| -> Vec<_> {
        let image = |image: &RelayImage| {
            (image.image, image.key, image.total, image.held == image.total, image.trouble.is_some())
        };
        images.iter().map(image).collect()
    };
    plain(told) != plain(now)
}
