//! Responses with a file's bytes: GET, with ranges, and HEAD, over files and memory. Firmware asks with HEAD first and
//! believes `Content-Length`; iPXE and the loader resume with a range after a broken connection. Touches the files that
//! it is given, and never a path from a request.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::Stream;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::refusal::Refusal;

/// Bytes of a file per read: large enough that a system call does not show beside the copy.
const READ_BYTES: usize = 256 << 10;

/// The body's bytes, in a file or in memory.
#[derive(Debug, Clone)]
pub enum Bytestore {
    /// In a file, which is not changed in place while it is served.
    File(PathBuf),
    /// In memory.
    Memory(Bytes),
    /// On its way to here; its length is known already.
    Growing(Arc<dyn Growing>),
}

impl Bytestore {
    /// How many bytes there are; `None` when the file is gone. Blocks.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).ok().map(|file| file.len()),
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::Growing(growing) => Some(growing.bytes()),
        }
    }
}

/// Bytes of which some are still to come.
pub trait Growing: Send + Sync + fmt::Debug {
    /// How many there will be in all.
    fn bytes(&self) -> u64;

    /// Those from `start` on, `len` of them, each piece as soon as it is there. Ends with an error when they do not come.
    fn read(&self, start: u64, len: u64) -> Pieces;
}

/// A response body, before ranges are applied.
#[derive(Debug, Clone)]
pub struct Content {
    /// The whole body.
    pub bytes: Bytestore,
    /// The value of `Content-Type`.
    pub media: &'static str,
    /// The value of `ETag`, which changes when the bytes do; with `None` a conditional range gets the whole body.
    pub tag: Option<String>,
}

/// Called once when a response body is dropped, with how many bytes of it were sent.
pub type OnEnd = Box<dyn FnOnce(u64) + Send>;

/// Answers a GET or HEAD for `content`. `on_end` is called with the bytes of the body that were sent; never for a HEAD.
///
/// # Errors
/// When the file cannot be read, or the range lies outside it.
pub async fn answer(
    method: &Method,
    headers: &HeaderMap,
    content: Content,
    on_end: OnEnd,
) -> Result<Response, Refusal> {
    let (source, whole) = open(content.bytes).await?;
    let wanted = range_of(headers, content.tag.as_deref(), whole)?;
    let (start, len) = wanted.unwrap_or((0, whole));
    let mut response = if *method == Method::HEAD {
        Body::empty().into_response()
    } else {
        Body::from_stream(Counted::new(source.stream(start, len).await?, on_end)).into_response()
    };
    let out = response.headers_mut();
    out.insert(header::CONTENT_LENGTH, len.into());
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content.media));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(tag) = content.tag.and_then(|tag| HeaderValue::from_str(&format!("\"{tag}\"")).ok()) {
        out.insert(header::ETAG, tag);
    }
    if wanted.is_some() {
        let last = (start + len).saturating_sub(1);
        if let Ok(value) = HeaderValue::from_str(&format!("bytes {start}-{last}/{whole}")) {
            out.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

enum Open {
    File(tokio::fs::File),
    Memory(Bytes),
    Growing(Arc<dyn Growing>),
}

async fn open(bytes: Bytestore) -> Result<(Open, u64), Refusal> {
    match bytes {
        Bytestore::Memory(bytes) => {
            let len = bytes.len() as u64;
            Ok((Open::Memory(bytes), len))
        }
        Bytestore::Growing(growing) => {
            let len = growing.bytes();
            Ok((Open::Growing(growing), len))
        }
        Bytestore::File(path) => {
            let failed = |error: std::io::Error| match error.kind() {
                std::io::ErrorKind::NotFound => Refusal::absent("there is no such file"),
                _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "a file of the server cannot be read")
                    .because(error)
                    .hint("the server's own log has more"),
            };
            let file = tokio::fs::File::open(&path).await.map_err(failed)?;
            let len = file.metadata().await.map_err(failed)?.len();
            Ok((Open::File(file), len))
        }
    }
}

/// A body's bytes, piece by piece.
pub type Pieces = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

impl Open {
    async fn stream(self, start: u64, len: u64) -> Result<Pieces, Refusal> {
        match self {
            Self::Memory(bytes) => {
                let from = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
                let to = usize::try_from(start + len).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Box::pin(futures::stream::iter([Ok(bytes.slice(from..to))])))
            }
            Self::File(mut file) => {
                file.seek(std::io::SeekFrom::Start(start)).await.map_err(|error| {
                    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "a file of the server cannot be read")
                        .because(error)
                })?;
                Ok(Box::pin(ReaderStream::with_capacity(file.take(len), READ_BYTES)))
            }
            Self::Growing(growing) => Ok(growing.read(start, len)),
        }
    }
}

/// The start and length of the one range that is asked for; `None` for the whole. A request for several ranges is
/// answered with the whole, which RFC 9110 section 14.2 allows.
fn range_of(headers: &HeaderMap, tag: Option<&str>, whole: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(condition) = text(header::IF_RANGE)
        && tag.is_none_or(|tag| condition.trim_matches('"') != tag)
    {
        return Ok(None);
    }
    let Some(range) = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")) else {
        return Ok(None);
    };
    let Some((from, to)) = range.split_once('-').filter(|_| !range.contains(',')) else { return Ok(None) };
    let (from, to) = (from.trim(), to.trim());
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let bounds = match (number(from), number(to)) {
        (Some(from), Some(to)) if to >= from => (from, to.min(whole.saturating_sub(1))),
        (Some(from), None) if to.is_empty() => (from, whole.saturating_sub(1)),
        (None, Some(last)) if from.is_empty() => (whole.saturating_sub(last), whole.saturating_sub(1)),
        // A range that cannot be parsed is ignored.
        _ => return Ok(None),
    };
    let empty_suffix = from.is_empty() && number(to) == Some(0);
    if bounds.0 >= whole || empty_suffix {
        return Err(Refusal::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("the range {range} of {whole} bytes"),
        ));
    }
    Ok(Some((bounds.0, bounds.1 - bounds.0 + 1)))
}

/// A stream that counts its bytes and reports them to `on_end` when it is dropped.
struct Counted {
    pieces: Pieces,
    sent: u64,
    on_end: Option<OnEnd>,
}

impl Counted {
    fn new(pieces: Pieces, on_end: OnEnd) -> Self {
        Self { pieces, sent: 0, on_end: Some(on_end) }
    }
}

impl Stream for Counted {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = self.pieces.as_mut().poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &piece {
            self.sent += bytes.len() as u64;
        }
        piece
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            on_end(self.sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_bytes_are_meant() {
        type Wanted = Option<Option<(u64, u64)>>;
        let table: &[(&str, Wanted)] = &[
            ("bytes=0-9", Some(Some((0, 10)))),
            ("bytes=90-", Some(Some((90, 10)))),
            ("bytes=-10", Some(Some((90, 10)))),
            ("bytes=-200", Some(Some((0, 100)))),
            ("bytes=90-500", Some(Some((90, 10)))),
            ("bytes=99-99", Some(Some((99, 1)))),
            ("bytes=100-", None),
            ("bytes=-0", None),
            ("bytes=9-3", Some(None)),
            ("bytes=a-b", Some(None)),
            ("bytes=+1-2", Some(None)),
            ("bytes=0-1,5-6", Some(None)),
            ("lines=0-1", Some(None)),
            ("bytes=18446744073709551615-", None),
            ("bytes=99999999999999999999-", Some(None)),
        ];
        for (text, wanted) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_str(text).unwrap());
            assert_eq!(range_of(&headers, None, 100).ok(), *wanted, "{text}");
        }
    }

    #[test]
    fn a_range_of_something_else_is_not_given() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=5-"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"old\""));
        assert_eq!(range_of(&headers, Some("new"), 100).ok(), Some(None));
        assert_eq!(range_of(&headers, Some("old"), 100).ok(), Some(Some((5, 95))));
    }
}
