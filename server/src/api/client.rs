//! The client of the admin's API: HTTP/1.1 over the server's Unix socket, with one connection for each request.
//! Responses of JSON lines are passed on line by line as they arrive. Touches the socket and nothing else.

use std::path::PathBuf;

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
use tokio::net::UnixStream;

use super::shapes::{PREFIX, TaskLine};
use crate::fault::Fault;

/// The longest line or response that is read, in bytes: a list of 2,000 machines with their hardware is some 50 MiB.
const ANSWER_BYTES_MAX: usize = 512 << 20;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A client of the admin's API at one Unix socket. Connects for each request.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the server that listens on `socket`.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Sends a GET for `path` and reads the JSON response.
    ///
    /// # Errors
    /// When no server answers, or with the server's refusal.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        whole(self.send(Method::GET, path, empty()).await?).await
    }

    /// Sends `body` as a POST to `path` and reads the JSON response.
    ///
    /// # Errors
    /// When no server answers, or with the server's refusal.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Fault> {
        whole(self.send(Method::POST, path, json(body)?).await?).await
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
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.absent(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broke_off(&error))?;
        // The connection's task ends by itself when the response has been read or dropped.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{path}"))
            .header("host", "swarmboot")
            .header("content-type", "application/json")
            .body(body)
            .map_err(|error| Fault::usage(format!("`{path}` cannot be asked for")).because(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| broke_off(&error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    fn absent(&self, error: &std::io::Error) -> Fault {
        let fault =
            Fault::no_server(format!("no server answers at {}", self.socket.display())).because(error);
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                fault.hint("the socket belongs to the server's user: use sudo, or be in its group")
            }
            _ => fault.hint("start one with `swarmboot serve`, or name its socket with --socket"),
        }
    }
}

/// Characters that are not percent-encoded in a part of a path or a value of a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Percent-encodes a name as one part of a URL's path or one value of its query.
#[must_use]
pub fn url_part(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
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
    let body = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let bytes = body
        .collect()
        .await
        .map_err(|error| Fault::failed("the server's answer broke off").because(error.as_ref()))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))
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
    mut on_line: impl FnMut(TaskLine<T>),
) -> Result<T, Fault> {
    let mut lines = Lines::new(answer);
    while let Some(line) = lines.next::<TaskLine<T>>().await? {
        match line {
            TaskLine::Done(done) => return Ok(done),
            TaskLine::Failed(refused) => return Err(refused.into()),
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
}
