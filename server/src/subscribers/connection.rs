//! One HTTP connection to a webhook's target, plain or over TLS, kept open between two events. Bounded in time, and in
//! what is read of an answer; redirects are answers like others. Touches that connection and the resolver.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::causes::with_causes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::settings::WebhookUrl;

/// How long a connection and the head of an answer may take.
#[derive(Debug, Clone, Copy)]
struct Times {
    connect: Duration,
    answer: Duration,
}

/// Long enough for a function that wakes up in some cloud.
const TIMES: Times = Times { connect: Duration::from_secs(10), answer: Duration::from_secs(15) };

/// How much of an answer is read so that the connection can be used again, in bytes; what it says does not matter.
const READ_MAX: usize = 16 << 10;
/// How long that may take.
const READ: Duration = Duration::from_secs(2);

/// A connection of either kind.
trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// Why there was no answer, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Its certificate is not vouched for, or TLS failed otherwise.
    #[error("TLS fails: {0}")]
    Tls(String),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The connection broke before the answer.
    #[error("the connection broke off: {0}")]
    BrokeOff(String),
}

/// The head of an answer, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long the target asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// An open connection.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// Carries the connection; ends with it.
    _task: AbortOnDropHandle<()>,
}

/// A target, and the connection to it, if one is open.
pub(super) struct Connection {
    url: WebhookUrl,
    tls: Option<Arc<ClientConfig>>,
    times: Times,
    open: Option<Open>,
}

impl Connection {
    /// A connection that is not open yet; `tls` is for `https`.
    pub(super) fn new(url: WebhookUrl, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { url, tls, times: TIMES, open: None }
    }

    /// Posts `body` with these headers, and returns the head of the answer. A connection that the target closed while
    /// it was idle is made anew.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub(super) async fn post(
        &mut self,
        headers: &[(&'static str, String)],
        body: &Bytes,
    ) -> Result<Answer, NoAnswer> {
        if let Some(open) = self.open.take_if(|open| open.sender.is_ready()) {
            match self.post_over(open, headers, body).await {
                // Closed while it was idle: nobody can tell whether the request was taken, and it may be sent twice.
                Err(NoAnswer::BrokeOff(_)) => {}
                ended => return ended,
            }
        }
        self.open = None;
        let most = self.times.connect;
        let open = tokio::time::timeout(most, self.connect()).await.map_err(|_| NoAnswer::Late(most))??;
        self.post_over(open, headers, body).await
    }

    async fn post_over(
        &mut self,
        mut open: Open,
        headers: &[(&'static str, String)],
        body: &Bytes,
    ) -> Result<Answer, NoAnswer> {
        let broke = |error: &dyn std::error::Error| NoAnswer::BrokeOff(with_causes(error));
        let mut request = Request::post(&self.url.path)
            .header(header::HOST, &self.url.authority)
            .header(header::USER_AGENT, concat!("swarmboot/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body.clone())).map_err(|error| broke(&error))?;
        let most = self.times.answer;
        let answer = tokio::time::timeout(most, open.sender.send_request(request)).await;
        let answer = answer.map_err(|_| NoAnswer::Late(most))?.map_err(|error| broke(&error))?;
        let asked = answer.headers().get(header::RETRY_AFTER);
        let seconds = asked.and_then(|asked| asked.to_str().ok()?.trim().parse().ok());
        let head = Answer { status: answer.status(), retry_after: seconds.map(Duration::from_secs) };
        // Its status counts from here on, whatever becomes of the rest. What is long or slow costs the connection.
        let rest = http_body_util::Limited::new(answer.into_body(), READ_MAX).collect();
        if let Ok(Ok(_)) = tokio::time::timeout(READ, rest).await {
            self.open = Some(open);
        }
        Ok(head)
    }

    async fn connect(&self) -> Result<Open, NoAnswer> {
        let failed = |error: std::io::Error| NoAnswer::Connect(with_causes(&error));
        let tcp = TcpStream::connect((self.url.host.as_str(), self.url.port)).await.map_err(failed)?;
        drop(tcp.set_nodelay(true));
        let pipe: Box<dyn Pipe> = match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from(self.url.host.clone())
                    .map_err(|error| NoAnswer::Tls(error.to_string()))?;
                let made = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
                Box::new(made.map_err(|error| NoAnswer::Tls(with_causes(&error)))?)
            }
            None => Box::new(tcp),
        };
        let begun = handshake(TokioIo::new(pipe)).await;
        let (sender, connection) = begun.map_err(|error| NoAnswer::BrokeOff(with_causes(&error)))?;
        // What goes wrong with it is told to the request under way.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Open { sender, _task: AbortOnDropHandle::new(task) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::receiver::{Does, Receiver};
    use super::*;

    async fn post(times: Times, does: Vec<Does>) -> (Result<Answer, NoAnswer>, Receiver) {
        let receiver = Receiver::open(does).await;
        let mut connection = Connection::new(receiver.url("/").parse().unwrap(), None);
        connection.times = times;
        (connection.post(&[], &Bytes::from_static(b"{}")).await, receiver)
    }

    #[tokio::test]
    async fn a_target_that_never_answers_is_given_up() {
        let times = Times { answer: Duration::from_millis(100), ..TIMES };
        let (answer, _receiver) = post(times, vec![Does::Hangs]).await;
        assert_eq!(answer, Err(NoAnswer::Late(times.answer)));
        // One that accepts connections and says nothing, not even in TLS.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", silent.local_addr().unwrap());
        let roots = rustls::RootCertStore::empty();
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connection = Connection::new(url.parse().unwrap(), Some(Arc::new(tls)));
        connection.times.connect = times.answer;
        let answer = connection.post(&[], &Bytes::new()).await;
        assert_eq!(answer, Err(NoAnswer::Late(times.answer)));
    }

    #[tokio::test]
    async fn an_answer_without_an_end_counts_by_its_head() {
        let (answer, _receiver) = post(TIMES, vec![Does::AnswersWithoutEnd]).await;
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }

    #[tokio::test]
    async fn how_long_it_wants_to_be_left_alone_is_read() {
        for (said, wanted) in [("17", Some(17)), (" 3 ", Some(3)), ("soon", None), ("-1", None)] {
            let (answer, _receiver) =
                post(TIMES, vec![Does::Says(503, format!("retry-after: {said}"))]).await;
            assert_eq!(answer.unwrap().retry_after, wanted.map(Duration::from_secs), "{said}");
        }
    }

    #[tokio::test]
    async fn what_is_no_http_is_no_answer() {
        let (answer, _receiver) = post(TIMES, vec![Does::Babbles]).await;
        assert!(matches!(answer, Err(NoAnswer::BrokeOff(_))), "{answer:?}");
    }
}
