//! Long tasks of the admin's API: blocking work on a thread, with progress as JSON lines; and request and response
//! bodies as streams between threads and the network. All channels are bounded, so a slow client slows the work down
//! and does not fill the memory. Touches blocking threads and what it is given.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use common::wire::http::Refused;
use futures::StreamExt as _;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::errands::Errand;
use super::shapes::TaskLine;

/// How many lines are queued for a slow client before the work waits too.
const LINES_MAX: usize = 64;
/// The longest time without anything in an event stream.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// How many pieces of a streamed body are queued.
const PIECES_MAX: usize = 16;
/// The least time between two progress lines: a person can follow ten a second.
const TELL: Duration = Duration::from_millis(100);

/// Sends a task's lines to its client. If the client has disconnected, the work goes on without it.
pub(super) struct ProgressSender<T> {
    lines: mpsc::Sender<Bytes>,
    told: Option<Instant>,
    kind: std::marker::PhantomData<fn(T)>,
}

impl<T: Serialize> ProgressSender<T> {
    /// Sends a progress line, at most ten times a second.
    pub(super) fn progress(&mut self, done: u64, total: Option<u64>, text: String) {
        if self.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        self.told = Some(Instant::now());
        self.line(&TaskLine::Progress { done, total, text });
    }

    /// Sends a note that the admin should read.
    pub(super) fn note(&mut self, text: String) {
        self.line(&TaskLine::Note(text));
    }

    fn line(&mut self, line: &TaskLine<T>) {
        if let Ok(mut text) = serde_json::to_vec(line) {
            text.push(b'\n');
            let _ = self.lines.blocking_send(text.into());
        }
    }
}

/// Runs `work` on a blocking thread and answers with its lines; the last line is the result or the failure.
pub(super) fn task<T: Serialize + 'static>(
    errand: Errand,
    work: impl FnOnce(&mut ProgressSender<T>) -> Result<T, Refused> + Send + 'static,
) -> Response {
    let (lines, waiting) = mpsc::channel(LINES_MAX);
    // The thread ends with its work. When the server stops, the stores cancel their work, and the runtime waits for
    // blocking threads.
    tokio::task::spawn_blocking(move || {
        let mut sender = ProgressSender { lines, told: None, kind: std::marker::PhantomData };
        let last = match work(&mut sender) {
            Ok(result) => TaskLine::Done(result),
            Err(refused) => TaskLine::Failed(refused),
        };
        sender.line(&last);
    });
    lines_of(errand, waiting)
}

/// A response of JSON lines that are received from `waiting`.
pub(super) fn lines_of(errand: Errand, waiting: mpsc::Receiver<Bytes>) -> Response {
    let mut response = Body::from_stream(stream_of(errand, waiting).map(Ok::<_, io::Error>)).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A response of server-sent events that are received from `waiting`, with a comment while there are none: that keeps
/// proxies from closing it, and finds out who has gone.
pub(super) fn events_of(place: Errand, waiting: mpsc::Receiver<Bytes>) -> Response {
    let events = futures::stream::unfold((waiting, place), async |(mut waiting, place)| {
        let next = tokio::time::timeout(HEARTBEAT, waiting.recv()).await;
        next.unwrap_or(Some(Bytes::from_static(b":\n\n"))).map(|item| (item, (waiting, place)))
    });
    let mut response = Body::from_stream(events.map(Ok::<_, io::Error>)).into_response();
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The items of `waiting` as a stream. The permit is held until the last item was sent or the client has disconnected,
/// even if the work itself ends earlier.
fn stream_of<T>(errand: Errand, waiting: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    futures::stream::unfold((waiting, errand), async |(mut waiting, errand)| {
        waiting.recv().await.map(|item| (item, (waiting, errand)))
    })
}

/// A response whose body `work` writes, on a blocking thread. If it fails, the body breaks off, which the client
/// notices because it is shorter than `len`.
pub(super) fn written_by(
    errand: Errand,
    len: u64,
    work: impl FnOnce(&mut dyn Write) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
) -> Response {
    let mut response = streamed_by(errand, work);
    response.headers_mut().insert(header::CONTENT_LENGTH, len.into());
    response
}

/// The same for a body whose length is not known: whoever reads it must see for himself that it is whole.
pub(super) fn streamed_by(
    errand: Errand,
    work: impl FnOnce(&mut dyn Write) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
) -> Response {
    let (pieces, waiting) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(1 << 20, BodyWriter(pieces.clone()));
        let written = work(&mut out).and_then(|()| out.flush().map_err(Into::into));
        if let Err(error) = written {
            tracing::warn!(%error, "an export broke off");
            let _ = pieces.blocking_send(Err(io::Error::other(error.to_string())));
        }
    });
    let mut response = Body::from_stream(stream_of(errand, waiting)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

struct BodyWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request body as a blocking reader. A stalled upload would block its thread for ever, so `stop` makes it fail.
pub(super) fn inlet(body: Body, stop: CancellationToken) -> impl Read + Send {
    let (pieces, waiting) = mpsc::channel::<io::Result<Bytes>>(PIECES_MAX);
    // This task ends with the body or when the reader is dropped, whichever is first.
    tokio::spawn(async move {
        let mut body = body.into_data_stream();
        loop {
            let piece = tokio::select! {
                () = stop.cancelled() => Some(Err(io::Error::other("the server is stopping"))),
                piece = body.next() => piece.map(|piece| piece.map_err(io::Error::other)),
            };
            let Some(piece) = piece else { break };
            let broken = piece.is_err();
            if pieces.send(piece).await.is_err() || broken {
                break;
            }
        }
    });
    Inlet { waiting, piece: Bytes::new() }
}

struct Inlet {
    waiting: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Inlet {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.waiting.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let len = out.len().min(self.piece.len());
        out[..len].copy_from_slice(&self.piece.split_to(len));
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::errands::Errands;

    #[tokio::test]
    async fn an_upload_that_stalls_ends_with_the_server() {
        let stop = CancellationToken::new();
        let mut upload =
            inlet(Body::from_stream(futures::stream::pending::<io::Result<Bytes>>()), stop.clone());
        let reading = tokio::task::spawn_blocking(move || upload.read(&mut [0; 16]));
        stop.cancel();
        let read = tokio::time::timeout(Duration::from_secs(5), reading).await.expect("the thread ends");
        assert!(read.unwrap().unwrap_err().to_string().contains("stopping"));
    }

    #[tokio::test]
    async fn who_stays_long_leaves_places_for_orders() {
        let errands = Errands::default();
        let mut followers = vec![];
        while let Ok(place) = errands.place() {
            let (lines, waiting) = mpsc::channel(1);
            followers.push((lines, lines_of(place, waiting)));
            assert!(followers.len() < common::limits::ADMINS_MAX, "nothing is kept for orders");
        }
        assert!(followers.len() > 1);
        followers.pop();
        let again = errands.place().expect("a place is free when a reader has gone");
        assert!(errands.place().is_err());
        drop(again);
    }
}
