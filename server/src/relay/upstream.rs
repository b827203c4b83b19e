//! The relay's HTTP client of its server: requests that are passed on, files, its own words. Bounded in time and in
//! length, because a thin line may stall at any byte. Touches TCP sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::uri::Authority;
use bytes::{Bytes, BytesMut};
use common::limits::STALLED;
use common::wire::http::Refused;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::fault::Fault;

/// The server's port where its URL names none.
const PORT: u16 = 8069;

/// The timeout of a connection: a line of 2 seconds' round trip, and a lost packet.
const CONNECT: Duration = Duration::from_secs(6);

/// How long a connection is kept that nobody uses; the server closes it after 30 s.
const IDLE: Duration = Duration::from_secs(20);

/// The pause between two probes of a connection on which nothing comes: without an answer to three, the server has lost
/// its power or the line is down.
const PROBE: Duration = Duration::from_secs(10);

/// The longest refusal that is read, in bytes.
const REFUSED_BYTES_MAX: usize = 16 << 10;

/// Why the server's answer did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// No connection, or it broke before the answer.
    #[error("the server at {server} cannot be reached")]
    Unreachable {
        /// Its address and port.
        server: String,
        /// What the client library says.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The answer's head did not come in time.
    #[error("the server at {server} did not answer in {seconds} s")]
    Silent {
        /// Its address and port.
        server: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The answer's body broke off, or nothing of it came for a minute.
    #[error("the server's answer broke off")]
    BrokeOff(#[source] Option<hyper::Error>),
    /// The answer's body is longer than it may be.
    #[error("the server's answer has more than {0} bytes")]
    TooLong(usize),
    /// The request is none that can be sent.
    #[error("that cannot be asked of the server")]
    Request(#[source] hyper::http::Error),
}

impl NoAnswer {
    /// Whether it says that the server, or the line to it, is down: not that one answer was wrong.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. } | Self::BrokeOff(_))
    }
}

/// A client of one server. Clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    server: Authority,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Upstream {
    /// The server's address, where it was not given as a host name: machines can be told it.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.server.as_str().parse().ok()
    }

    /// A client of the server at `url`: plain HTTP, an address and a port, no path.
    ///
    /// # Errors
    /// When `url` has another form.
    pub(super) fn new(url: &str) -> Result<Self, Fault> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(PROBE));
        connector.set_keepalive_interval(Some(PROBE));
        connector.set_keepalive_retries(Some(3));
        connector.set_tcp_user_timeout(Some(STALLED));
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
        Ok(Self { server: authority(url)?, client })
    }

    /// The server's base URL.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server)
    }

    /// Sends `request`, whose URI is a path, and waits for the head of the answer.
    ///
    /// # Errors
    /// When the server cannot be reached, or sends no head within `patience`.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let target = request.uri().path_and_query().cloned();
        let uri = Uri::builder().scheme("http").authority(self.server.clone());
        *request.uri_mut() = uri
            .path_and_query(target.map_or_else(|| "/".to_owned(), |target| target.to_string()))
            .build()
            .map_err(NoAnswer::Request)?;
        let server = || self.server.to_string();
        match tokio::time::timeout(patience, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|source| NoAnswer::Unreachable { server: server(), source }),
            Err(_) => Err(NoAnswer::Silent { server: server(), seconds: patience.as_secs() }),
        }
    }

    /// Sends a GET for `path`, from the byte `from` on.
    ///
    /// # Errors
    /// As [`Upstream::send`].
    pub(super) async fn get(&self, path: &str, from: u64) -> Result<Response<Incoming>, NoAnswer> {
        let mut request = Request::get(path);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        self.send(request.body(Full::default()).map_err(NoAnswer::Request)?, STALLED).await
    }
}

/// Reads the whole body, at most `max` bytes.
///
/// # Errors
/// When it is longer, or breaks off.
pub(super) async fn whole(mut body: Incoming, max: usize) -> Result<Bytes, NoAnswer> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = piece(&mut body).await? {
        if piece.len() > max - bytes.len() {
            return Err(NoAnswer::TooLong(max));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// The next bytes of the body; `None` at its end.
///
/// # Errors
/// When it breaks off, or nothing comes for a minute.
pub(super) async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, NoAnswer> {
    loop {
        match tokio::time::timeout(STALLED, body.frame()).await {
            Err(_) => return Err(NoAnswer::BrokeOff(None)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(NoAnswer::BrokeOff(Some(error))),
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Where the body of the answer to a request for the bytes from `asked` on begins in the file, and the length of the whole
/// file; `None` when the answer does not say that, or begins elsewhere.
pub(super) fn extent(answer: &Response<Incoming>, asked: u64) -> Option<(u64, u64)> {
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    if answer.status() == StatusCode::PARTIAL_CONTENT {
        let (range, bytes) = text(header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
        let start = range.split('-').next()?.trim().parse().ok()?;
        return Some((start, bytes.trim().parse().ok()?)).filter(|_| start == asked);
    }
    Some((0, text(header::CONTENT_LENGTH)?.parse().ok()?))
}

/// The server's words in a refusal, in one line.
pub(super) async fn refusal(answer: Response<Incoming>) -> (StatusCode, String) {
    let status = answer.status();
    let body = whole(answer.into_body(), REFUSED_BYTES_MAX).await.unwrap_or_default();
    let said = serde_json::from_slice::<Refused>(&body).map_or_else(
        |_| format!("HTTP status {status}"),
        |said| {
            let more = said.cause.iter().chain(&said.hint).map(|more| format!("; {more}"));
            std::iter::once(said.error.clone()).chain(more).collect()
        },
    );
    (status, common::text::harmless(&said))
}

fn authority(url: &str) -> Result<Authority, Fault> {
    let wrong = || {
        Fault::usage(format!("`{}` is no server's address", url.escape_debug()))
            .hint("write --server http://10.0.0.1:8069")
    };
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    let bare = uri.scheme_str() == Some("http")
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && !authority.as_str().contains('@')
        && !authority.host().is_empty();
    if !bare {
        return Err(wrong());
    }
    match authority.port_u16() {
        Some(0) => Err(wrong()),
        Some(_) => Ok(authority.clone()),
        None if authority.as_str().ends_with(':') => Err(wrong()),
        None => format!("{authority}:{PORT}").parse().map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_address_is_read() {
        for (url, wanted) in [
            ("http://10.0.0.1:8069", "10.0.0.1:8069"),
            ("http://10.0.0.1:80/", "10.0.0.1:80"),
            ("http://seed.example", "seed.example:8069"),
            ("10.0.0.1", "10.0.0.1:8069"),
            ("http://[fd00::1]:8069", "[fd00::1]:8069"),
        ] {
            assert_eq!(Upstream::new(url).unwrap().server.as_str(), wanted, "{url}");
        }
        for wrong in
            ["", "https://10.0.0.1", "http://a@b", "http://a/b", "http://a?b", "http://", "a:0", "a:"]
        {
            assert!(Upstream::new(wrong).is_err(), "{wrong}");
        }
    }
}
