//! The client of the server's HTTP API: identity, report and verdict, bundle, manifest, events. The only HTTP in the
//! machine's programs. Blocking on purpose: the loader does one thing after the other (its only runtime is the one on
//! which `boot::network` speaks netlink), and the agent calls it from blocking threads.
//!
//! HTTP proves nothing, so no answer is trusted as such: verdicts and answers to events have to be signed by the
//! server's key and to name our key or our batch, and bundles and manifests have to have the hash that a verdict names.
//! Every body is bounded before it is read. Touches the network; `limits`, `trust`, `wire::http`.

use std::time::Duration;

use common::deltas::BadTable;
use common::hardware::{HardwareReport, SentReport};
use common::id::Hash;
use common::limits::{VERDICT_BYTES_MAX, cut};
use common::manifest::BadManifest;
use common::plan::Verdict;
use common::step::EventBatch;
use common::text::harmless;
use common::trust::{KeyPair, PublicKey, Signed, Untrusted};
use common::wire::http::{EVENTS, EventsTaken, IDENTITY, Identity, REPORT, Refused};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, Uri, header};

// How long to wait before a request is made again.
pub mod again;

// The URLs under which the server is reached.
mod bases;

// Bundles and manifests, whole, with the right hash.
mod download;

// Small files from neighbours.
mod nearby;

// Waiting for an order with a request that stays open.
pub mod wait;

// Modules and firmware that a small loader lacks.
mod driver;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use self::bases::Bases;
pub use nearby::Failed;

/// The timeout of opening a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The timeout of one read or write. A machine behind a slow link that forty others share still gets a packet within
/// that time; a server that was restarted does not come back on the same connection.
const STALLED: Duration = Duration::from_secs(20);

/// The timeout of the answer to a report, before which the server may have to build a bundle.
const ANSWER: Duration = Duration::from_secs(120);

/// The longest error body that is read, in bytes.
const REFUSED_BYTES_MAX: u64 = 16 << 10;

/// Why a request to the server failed. `what` is a noun such as `the agent bundle`.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server's address is not a URL of the right form.
    #[error("`{url}` is not a server address such as http://10.0.0.1:8069")]
    Url {
        /// The text that was given, cut to 200 characters.
        url: String,
    },
    /// There was no answer, or the connection broke.
    #[error("no answer from {url} for {what}")]
    Unreachable {
        /// What was requested, as a noun.
        what: &'static str,
        /// The whole URL of the request.
        url: String,
        /// The error of the HTTP client, such as a refused connection or a timeout.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server answered with an error; its body says why.
    #[error("the server refused {what} with status {status}: {}", sentence(.body))]
    Refused {
        /// What was requested, as a noun.
        what: &'static str,
        /// The HTTP status code.
        status: u16,
        /// The error, cause and hint that the server sent.
        body: Box<Refused>,
    },
    /// The body ended early or stalled, in several tries.
    #[error("{what} stopped after {got} of {wanted} bytes")]
    Broken {
        /// What was requested, as a noun.
        what: &'static str,
        /// How many bytes came.
        got: u64,
        /// How many bytes should have come.
        wanted: u64,
        /// Why the last try ended.
        #[source]
        source: std::io::Error,
    },
    /// The body is longer than the bound.
    #[error("{what} of {bytes} bytes, more than {max}")]
    TooLong {
        /// What was requested, as a noun.
        what: &'static str,
        /// Its length in bytes, as announced, or one more than the bound.
        bytes: u64,
        /// The bound, in bytes.
        max: u64,
    },
    /// The answer is not the expected JSON.
    #[error("the answer for {what} cannot be read")]
    Content {
        /// What was requested, as a noun.
        what: &'static str,
        /// Where and why the JSON does not parse.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is not signed by the server's key.
    #[error("the answer for {what} is not to be trusted")]
    Untrusted {
        /// What was requested, as a noun.
        what: &'static str,
        /// Which check of the signature failed.
        #[source]
        source: Untrusted,
    },
    /// The verdict is signed by the server, but for another machine or another boot of this one.
    #[error("the verdict answers key {}, ours is {}", got.short(), ours.short())]
    NotOurs {
        /// The key of the report that it answers.
        got: PublicKey,
        /// The key that this program reported with.
        ours: PublicKey,
    },
    /// The answer is signed by the server, but for another batch of events than the one that was sent.
    #[error("the answer is for another batch of events than the one that was sent")]
    OtherBatch,
    /// The verdict is signed by the server for this boot, but not for this report: an old answer was replayed.
    #[error("the verdict answers an earlier report of this boot")]
    Stale,
    /// The kernel gave no random numbers for the salt of a report.
    #[error("the kernel has no random numbers")]
    Random(#[source] getrandom::Error),
    /// The bundle's bytes are not those that the plan names.
    #[error("the agent bundle has hash {}, the plan names {}", got.short(), wanted.short())]
    WrongHash {
        /// The hash of what came.
        got: Hash,
        /// The hash in the plan.
        wanted: Hash,
    },
    /// A driver's frame cannot be decompressed, or has other bytes than the boot kit's index says.
    #[error("a driver came damaged: not the file with hash {}", wanted.short())]
    Driver {
        /// The hash of the file in the loader's list.
        wanted: Hash,
    },
    /// The manifest's bytes are malformed or have another hash than the image's name.
    #[error("the manifest is not the one of this image")]
    Manifest(#[source] BadManifest),
    /// The table of deltas has another hash than the plan names.
    #[error("the table of deltas is not the one that the plan names")]
    OtherDeltas,
    /// The table of deltas is malformed, although it is the one that the plan names.
    #[error("the table of deltas cannot be read")]
    Deltas(#[source] BadTable),
}

impl FetchError {
    /// Whether another URL may answer where this one did not: nothing came, or a relay does not reach the server.
    fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { status: 502..=504, .. })
    }

    /// Whether nothing was sent, because nobody accepted the connection: such a try costs a line next to nothing.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable};
        let Self::Unreachable { source, .. } = self else { return false };
        match &**source {
            ureq::Error::Io(error) => {
                [ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable].contains(&error.kind())
            }
            ureq::Error::Timeout(timeout) => {
                matches!(timeout, ureq::Timeout::Resolve | ureq::Timeout::Connect)
            }
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            _ => false,
        }
    }

    /// What a person can do about the error, for the console and the log.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Url { .. } => "check `swarmboot.server=` on the kernel command line, or `--server`",
            Self::Unreachable { .. } | Self::Broken { .. } => {
                "is `swarmboot serve` running there, and does a firewall pass its port?"
            }
            Self::Refused { .. } => "the server's log says more",
            Self::TooLong { .. } | Self::Content { .. } => {
                "is that address really a swarmboot server of this version?"
            }
            Self::Random(_) => "this kernel lacks something usual",
            Self::Untrusted { .. } | Self::NotOurs { .. } | Self::OtherBatch | Self::Stale => {
                "another server answers at this address, or the server's key has changed: boot again from its own network boot"
            }
            Self::Driver { .. } => {
                "something on the way changes bytes, or the server's boot kit is damaged: import it anew"
            }
            Self::WrongHash { .. } | Self::Manifest(_) | Self::OtherDeltas | Self::Deltas(_) => {
                "something on the way changes bytes, or the server's store is damaged: try `swarmboot image verify`"
            }
        }
    }
}

fn sentence(body: &Refused) -> String {
    let mut text = body.error.clone();
    for more in body.cause.iter().chain(&body.hint) {
        text = format!("{text}; {more}");
    }
    text
}

/// The client of one server. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Server {
    bases: Bases,
    key: PublicKey,
    http: ureq::Agent,
}

impl Server {
    /// A client of the server at `urls` (plain HTTP, an address and a port, no path), whose answers `key` has to sign.
    /// Several have commas between them: a relay's first, then the server's own.
    ///
    /// # Errors
    /// When one of them has another form.
    pub fn new(urls: &str, key: PublicKey) -> Result<Self, FetchError> {
        let bases = urls.split(',').map(base_of).collect::<Result<_, _>>()?;
        Ok(Self { bases: Bases::new(bases), key, http: http(STALLED) })
    }

    /// The base URL in use, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.bases.url()
    }

    /// All base URLs, as [`Server::new`] takes them.
    #[must_use]
    pub fn urls(&self) -> String {
        self.bases.urls()
    }

    /// The key that has to sign the server's answers.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Asks who answers at this address. The answer is unsigned.
    ///
    /// # Errors
    /// When nothing answers, or something that is not a swarmboot server.
    pub fn identity(&self) -> Result<Identity, FetchError> {
        self.bases.ask(FetchError::is_silence, identity_of)
    }

    /// Sends `report`, signed with `pair`. The verdict, and its signed form to pass on.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses, or its answer is not signed by its key or not for this report.
    pub fn report(
        &self,
        pair: &KeyPair,
        report: &HardwareReport,
    ) -> Result<(Verdict, Signed<Verdict>), FetchError> {
        let what = "the verdict";
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(FetchError::Random)?;
        let nonce = self.identity()?.nonce;
        let sent = pair.sign(&SentReport { nonce, salt: hex::encode(salt), hardware: report.clone() });
        let signed: Signed<Verdict> = self.post(what, REPORT, &sent, ANSWER)?;
        let verdict = signed.open(&self.key).map_err(|source| FetchError::Untrusted { what, source })?;
        if verdict.key != pair.public() {
            return Err(FetchError::NotOurs { got: verdict.key, ours: pair.public() });
        }
        if verdict.report != sent.digest() {
            return Err(FetchError::Stale);
        }
        Ok((verdict, signed))
    }

    /// Sends a batch of events, and returns how far the server has taken them.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses them, or its answer is not signed by its key or not for `batch`.
    pub fn events(&self, batch: &Signed<EventBatch>) -> Result<EventsTaken, FetchError> {
        let what = "step events";
        let signed: Signed<EventsTaken> = self.post(what, EVENTS, batch, STALLED)?;
        let taken = signed.open(&self.key).map_err(|source| FetchError::Untrusted { what, source })?;
        if taken.batch == batch.digest() { Ok(taken) } else { Err(FetchError::OtherBatch) }
    }

    /// The whole body at `path`, of at most `max` bytes.
    fn get_all(&self, what: &'static str, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        self.bases.ask(FetchError::is_silence, |base| {
            let url = format!("{base}{path}");
            let response = self.http.get(&url).call().map_err(|source| unreachable(what, &url, source))?;
            read_all(what, &url, accept(what, response)?, max)
        })
    }

    fn post<T: Serialize, R: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        body: &T,
        patience: Duration,
    ) -> Result<R, FetchError> {
        let body = serde_json::to_vec(body).map_err(|source| FetchError::Content { what, source })?;
        let answer = self.bases.ask(FetchError::is_silence, |base| {
            let url = format!("{base}{path}");
            let response = self
                .http
                .post(&url)
                .config()
                .timeout_recv_response(Some(patience))
                // That of each read counts here too, and is shorter.
                .timeout_per_read(Some(patience))
                .build()
                .header(header::CONTENT_TYPE, "application/json")
                .send(&body[..])
                .map_err(|source| unreachable(what, &url, source))?;
            read_all(what, &url, accept(what, response)?, VERDICT_BYTES_MAX as u64)
        })?;
        serde_json::from_slice(&answer).map_err(|source| FetchError::Content { what, source })
    }
}

/// Asks who answers at `url`. Unsigned: for a person who decides whether to trust it, never for a machine.
///
/// # Errors
/// When nothing answers, or something that is not a swarmboot server.
pub fn identity_of(url: &str) -> Result<Identity, FetchError> {
    let what = "the server's identity";
    let url = format!("{}{IDENTITY}", base_of(url)?);
    let response = http(STALLED).get(&url).call().map_err(|source| unreachable(what, &url, source))?;
    let answer = read_all(what, &url, accept(what, response)?, VERDICT_BYTES_MAX as u64)?;
    serde_json::from_slice(&answer).map_err(|source| FetchError::Content { what, source })
}

fn base_of(url: &str) -> Result<String, FetchError> {
    let wrong = || FetchError::Url { url: cut(url, 200).to_owned() };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    let bare = uri.scheme_str() == Some("http")
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && !authority.as_str().contains('@');
    if bare { Ok(format!("http://{authority}")) } else { Err(wrong()) }
}

/// A client that waits so long for the next bytes.
fn http(patience: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        // A proxy in the environment of whoever tries the agent on a spare box is meant for the internet.
        .proxy(None)
        .max_redirects(0)
        .user_agent(concat!("swarmboot-agent/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT.min(patience)))
        .timeout_recv_response(Some(patience))
        .timeout_per_read(Some(patience))
        .timeout_per_write(Some(patience))
        .build()
        .into()
}

fn unreachable(what: &'static str, url: &str, source: ureq::Error) -> FetchError {
    FetchError::Unreachable { what, url: url.to_owned(), source: Box::new(source) }
}

fn accept(
    what: &'static str,
    mut response: Response<ureq::Body>,
) -> Result<Response<ureq::Body>, FetchError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(REFUSED_BYTES_MAX).read_to_vec().unwrap_or_default();
    Err(FetchError::Refused { what, status, body: Box::new(refused(&body)) })
}

/// The body of a refusal; if it is not ours, such as another server's page, its first 200 characters. Cleaned of
/// control characters, which could steer the terminal that it is shown on.
fn refused(body: &[u8]) -> Refused {
    let page = |_| Refused {
        error: cut(String::from_utf8_lossy(body).trim(), 200).to_owned(),
        cause: None,
        hint: None,
    };
    let said: Refused = serde_json::from_slice(body).unwrap_or_else(page);
    let clean = |text: String| harmless(&text);
    Refused { error: clean(said.error), cause: said.cause.map(clean), hint: said.hint.map(clean) }
}

/// For `tests/fuzz`: a refusal's text as a person reads it.
#[cfg(fuzzing)]
#[must_use]
pub fn try_refusal(body: &[u8]) -> String {
    FetchError::Refused { what: "the verdict", status: 400, body: Box::new(refused(body)) }.to_string()
}

fn read_all(
    what: &'static str,
    url: &str,
    mut response: Response<ureq::Body>,
    max: u64,
) -> Result<Vec<u8>, FetchError> {
    if let Some(bytes) = response.body().content_length()
        && bytes > max
    {
        return Err(FetchError::TooLong { what, bytes, max });
    }
    response.body_mut().with_config().limit(max).read_to_vec().map_err(|error| match error {
        ureq::Error::BodyExceedsLimit(_) => FetchError::TooLong { what, bytes: max.saturating_add(1), max },
        error => unreachable(what, url, error),
    })
}
