//! The client of the API: HTTP/1.1 over the server's Unix socket, or over TLS with a token, with one connection for each
//! request. Responses of JSON lines are passed on line by line as they arrive. Touches that connection and nothing else.

// Images in pieces, over lines that break.
mod sending;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::wire::http::Refused;
use futures::Stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::remote::Remote;
use super::shapes::{PREFIX, TaskLine};
use crate::fault::Fault;

/// The longest line or response that is read, in bytes: a list of 2,000 machines with their hardware is some 50 MiB.
const ANSWER_BYTES_MAX: usize = 512 << 20;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Where a server is.
#[derive(Debug, Clone)]
pub enum Target {
    /// On this host, behind its admin socket.
    Socket(PathBuf),
    /// On another host.
    Remote(Remote),
}

/// A client of the API of one server. Connects for each request.
#[derive(Debug)]
pub struct Client {
    target: Target,
}

/// The pauses before an order is sent again whose answer was lost.
const RETRIES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// What became of a request.
enum Sent {
    /// It is answered.
    Answer(Response<Incoming>),
    /// The server refused it.
    Refused(StatusCode, Fault),
    /// The connection broke: nobody knows whether the server took it.
    Lost(Fault),
}

/// A connection of either kind.
trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

impl Client {
    /// A client for the server at `target`.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target }
    }

    /// Whether the server is on this host, so that it can read this host's files.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.target, Target::Socket(_))
    }

    /// Sends a GET for `path` and reads the JSON response.
    ///
    /// # Errors
    /// When no server answers, or with the server's refusal.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        whole(self.send(Method::GET, path, empty()).await?).await
    }

    /// Reads a list page by page, from `path` on to wherever each page says that the next one is.
    ///
    /// # Errors
    /// When no server answers, or with the server's refusal.
    pub async fn pages<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Fault> {
        let (mut all, mut path) = (vec![], path.to_owned());
        loop {
            let answer = self.send(Method::GET, &path, empty()).await?;
            let next = next_page(answer.headers());
            let page: Vec<T> = whole(answer).await?;
            let is_empty = page.is_empty();
            all.extend(page);
            match next {
                // A server that names the same page again and again would never end.
                Some(next) if !is_empty && next != path => path = next,
                _ => return Ok(all),
            }
        }
    }

    /// Sends `body` as a POST to `path` and reads the JSON response.
    ///
    /// # Errors
    /// When no server answers, or with the server's refusal.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Fault> {
        whole(self.send(Method::POST, path, json(body)?).await?).await
    }

    /// Sends an order as a POST to `path` and reads the JSON response. It has a key of its own, under which it is sent
    /// again when the connection breaks: the server carries it out once.
    ///
    /// # Errors
    /// When no server answers, or with the server's refusal.
    pub async fn order<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Fault> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits)
            .map_err(|error| Fault::failed("there is no random source").because(&error))?;
        let key = hex::encode(bits);
        let mut pauses = RETRIES.iter();
        loop {
            let sent = self.send_with(Method::POST, path, json(body)?, Some(("idempotency-key", &key))).await;
            let lost = match sent {
                Ok(Sent::Answer(answer)) => match whole_or_lost(answer).await {
                    Ok(bytes) => return serde_json::from_slice(&bytes).map_err(|error| unreadable(&error)),
                    Err(lost) => lost,
                },
                Ok(Sent::Lost(lost)) => lost,
                Ok(Sent::Refused(_, fault)) | Err(fault) => return Err(fault),
            };
            match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(lost),
            }
        }
    }

    /// Sends a DELETE for `path`.
    ///
    /// # Errors
    /// When no server answers, or with the server's refusal.
    pub async fn delete(&self, path: &str) -> Result<(), Fault> {
        whole::<serde_json::Value>(self.send(Method::DELETE, path, empty()).await?).await.map(drop)
    }

    /// Sends a DELETE for `path` and reads the JSON response.
    ///
    /// # Errors
    /// When no server answers, or with the server's refusal.
    pub async fn delete_for<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        whole(self.send(Method::DELETE, path, empty()).await?).await
    }

    /// Starts a long task and passes each progress line and note to `on_line` until it is done; returns its result.
    ///
    /// # Errors
    /// When no server answers, or with the reason why the task failed.
    pub async fn task<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        on_line: impl FnMut(TaskLine<T>),
    ) -> Result<T, Fault> {
        task_lines(self.send(Method::POST, path, json(body)?).await?, on_line).await
    }

    /// Uploads bytes to `path` with PUT, as a long task; see [`Client::task`].
    ///
    /// # Errors
    /// When no server answers, or with the reason why the task failed.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        on_line: impl FnMut(TaskLine<T>),
    ) -> Result<T, Fault> {
        use futures::StreamExt as _;
        let body = StreamBody::new(bytes.map(|piece| piece.map(Frame::data))).boxed_unsync();
        task_lines(self.send(Method::PUT, path, body).await?, on_line).await
    }

    /// Reads lines from `path` until they end or `on_line` returns false.
    ///
    /// # Errors
    /// When no server answers, with the server's refusal, or with the error of `on_line`.
    pub async fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        mut on_line: impl FnMut(T) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut lines = Lines::new(self.send(Method::GET, path, empty()).await?);
        while let Some(line) = lines.next().await? {
            if !on_line(line)? {
                break;
            }
        }
        Ok(())
    }

    /// Downloads the bytes at `path`, piece by piece.
    ///
    /// # Errors
    /// When no server answers, with the server's refusal, or when the response breaks off.
    pub async fn download(
        &self,
        path: &str,
        mut on_piece: impl FnMut(Bytes) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        pieces(self.send(Method::GET, path, empty()).await?, &mut on_piece).await
    }

    /// The same with POST, for what not everybody may read.
    ///
    /// # Errors
    /// When no server answers, with the server's refusal, or when the response breaks off.
    pub async fn download_posted(
        &self,
        path: &str,
        mut on_piece: impl FnMut(Bytes) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        pieces(self.send(Method::POST, path, empty()).await?, &mut on_piece).await
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>, Fault> {
        match self.send_with(method, path, body, None).await? {
            Sent::Answer(answer) => Ok(answer),
            Sent::Refused(_, fault) | Sent::Lost(fault) => Err(fault),
        }
    }

    /// Sends a request with one more header.
    async fn send_with(
        &self,
        method: Method,
        path: &str,
        body: Body,
        header: Option<(&'static str, &str)>,
    ) -> Result<Sent, Fault> {
        let (stream, host): (Box<dyn Pipe>, String) = match &self.target {
            Target::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| absent(path, &error))?;
                (Box::new(stream), "swarmboot".to_owned())
            }
            Target::Remote(remote) => (Box::new(remote.connect().await?), remote.url.authority()),
        };
        let begun = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = match begun {
            Ok(begun) => begun,
            Err(error) => return Ok(Sent::Lost(broke_off(&error))),
        };
        // The connection's task ends by itself when the response has been read or dropped.
        tokio::spawn(connection);
        let kind = match method {
            Method::PUT => "application/octet-stream",
            Method::PATCH => "application/partial-upload",
            _ => "application/json",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{path}"))
            .header("host", host)
            .header("content-type", kind);
        if let Target::Remote(remote) = &self.target {
            request = request.header("authorization", format!("Bearer {}", remote.token));
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request
            .body(body)
            .map_err(|error| Fault::usage(format!("`{path}` cannot be asked for")).because(&error))?;
        match sender.send_request(request).await {
            Ok(answer) if answer.status().is_success() => Ok(Sent::Answer(answer)),
            Ok(answer) => Ok(Sent::Refused(answer.status(), refusal(answer).await)),
            Err(error) => Ok(Sent::Lost(broke_off(&error))),
        }
    }
}

fn absent(socket: &Path, error: &std::io::Error) -> Fault {
    let fault = Fault::no_server(format!("no server answers at {}", socket.display())).because(error);
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            fault.hint("the socket belongs to the server's user: use sudo, or be in its group")
        }
        _ => fault.hint(
            "start one with `swarmboot serve`, name its socket with --socket, or `swarmboot login` to one elsewhere",
        ),
    }
}

/// Characters that are not percent-encoded in a part of a path or a value of a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Percent-encodes a name as one part of a URL's path or one value of its query.
#[must_use]
pub fn url_part(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Where the next page is, below [`PREFIX`]; `None` when this is the last.
fn next_page(headers: &hyper::HeaderMap) -> Option<String> {
    let links = headers.get_all("link").iter().filter_map(|link| link.to_str().ok());
    let mut next = links.flat_map(|links| links.split(", ")).filter_map(|link| {
        let (target, kind) = link.strip_prefix('<')?.split_once('>')?;
        kind.contains("rel=\"next\"").then(|| target.strip_prefix(PREFIX)).flatten()
    });
    next.next().map(str::to_owned)
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

fn json(body: &impl Serialize) -> Result<Body, Fault> {
    let bytes = serde_json::to_vec(body)
        .map_err(|error| Fault::failed("the request cannot be written as JSON").because(&error))?;
    Ok(Full::from(bytes).map_err(|never| match never {}).boxed_unsync())
}

fn broke_off(error: &hyper::Error) -> Fault {
    Fault::failed("the connection to the server broke off")
        .because(error)
        .hint("see the server's own log for the cause; what it was told before is kept")
}

async fn refusal(answer: Response<Incoming>) -> Fault {
    let status = answer.status();
    match whole::<Refused>(answer).await {
        Ok(refused) => refused.into(),
        Err(_) if status == StatusCode::NOT_FOUND => Fault::failed("the server does not know this request")
            .hint("client and server are of different versions"),
        Err(_) => Fault::failed(format!("the server answered {status}")),
    }
}

async fn whole<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, Fault> {
    serde_json::from_slice(&whole_or_lost(answer).await?).map_err(|error| unreadable(&error))
}

/// All bytes of an answer; an error when it broke off.
async fn whole_or_lost(answer: Response<Incoming>) -> Result<Bytes, Fault> {
    let body = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let whole = body.collect().await;
    whole
        .map(|whole| whole.to_bytes())
        .map_err(|error| Fault::failed("the server's answer broke off").because(error.as_ref()))
}

fn unreadable(error: &serde_json::Error) -> Fault {
    Fault::failed("the server's answer cannot be read")
        .because(error)
        .hint("client and server are of different versions")
}

/// Passes the body of a response on, piece by piece.
async fn pieces(
    answer: Response<Incoming>,
    on_piece: &mut impl FnMut(Bytes) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broke_off(&error))?;
        if let Ok(piece) = frame.into_data() {
            on_piece(piece)?;
        }
    }
    Ok(())
}

async fn task_lines<T: DeserializeOwned>(
    answer: Response<Incoming>,
    on_line: impl FnMut(TaskLine<T>),
) -> Result<T, Fault> {
    task_end(answer, on_line).await?.map_err(Fault::from)
}

/// Passes the lines of a long task on to `on_line` up to the last, and returns what that says: the result, or why there is
/// none. An error when the line broke before it.
async fn task_end<T: DeserializeOwned>(
    answer: Response<Incoming>,
    mut on_line: impl FnMut(TaskLine<T>),
) -> Result<Result<T, Refused>, Fault> {
    let mut lines = Lines::new(answer);
    while let Some(line) = lines.next::<TaskLine<T>>().await? {
        match line {
            TaskLine::Done(done) => return Ok(Ok(done)),
            TaskLine::Failed(refused) => return Ok(Err(refused)),
            other => on_line(other),
        }
    }
    Err(Fault::failed("the server ended the task without a word").hint("see the server's own log"))
}

/// Splits a streamed response into lines of JSON.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    fn new(answer: Response<Incoming>) -> Self {
        Self { body: answer.into_body(), buffer: BytesMut::new() }
    }

    async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Fault> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(|error| unreadable(&error));
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(Fault::failed("the server's answer has no end of line"));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(piece) = frame.map_err(|error| broke_off(&error))?.into_data() {
                self.buffer.extend_from_slice(&piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_a_path() {
        assert_eq!(url_part("52:54:00/../x?y"), "52%3A54%3A00%2F..%2Fx%3Fy");
        assert_eq!(url_part("Rack-1_a.b ü&"), "Rack-1_a.b%20%C3%BC%26");
    }

    #[test]
    fn the_next_page_is_where_the_header_says() {
        for (link, wanted) in [
            ("</api/v1/machines?after=m2>; rel=\"next\"", Some("/machines?after=m2")),
            ("</api/v1/x>; rel=\"prev\", </api/v1/y>; rel=\"next\"", Some("/y")),
            ("</api/v1/x>; rel=\"prev\"", None),
            ("<https://elsewhere.example/api/v1/x>; rel=\"next\"", None),
            ("what?", None),
        ] {
            let mut headers = hyper::HeaderMap::new();
            headers.insert("link", link.parse().unwrap());
            assert_eq!(next_page(&headers).as_deref(), wanted, "{link}");
        }
    }
}
