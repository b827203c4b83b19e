//! The live stream: one task looks at the fleet, the swarm and the counts of traffic once a second, only while somebody
//! listens, and puts what changed into words once for all readers. A reader that falls behind is told everything anew; one
//! that reads nothing holds up nobody and costs no memory, because nothing is queued for it. Touches the fleet's and the
//! swarm's handles.

// Core: what was told, and what changed.
mod book;

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::errands::Errand;
use super::shapes::live::Live;
use super::tasks::HEARTBEAT;
use crate::fleet::{FleetError, FleetHandle};
use crate::http::refusal::Refusal;
use crate::swarm::SwarmHandle;
use crate::traffic::Traffic;
use book::Book;

/// How often it is looked what changed.
const LOOK: Duration = Duration::from_secs(1);
/// How many messages a reader may be behind before it is told everything anew.
const BEHIND_MAX: usize = 16;
/// Readers that wait for their first message.
const JOINS_MAX: usize = 64;

/// What a reader gets when it joins: everything, and then what changes.
#[derive(Debug)]
struct Joined {
    snapshot: Bytes,
    news: broadcast::Receiver<Bytes>,
}

/// Lets readers join the live stream. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveStreams(mpsc::Sender<oneshot::Sender<Joined>>);

/// The task of the live stream.
#[derive(Debug)]
pub struct LiveTask {
    joins: mpsc::Receiver<oneshot::Sender<Joined>>,
    fleet: FleetHandle,
    swarm: SwarmHandle,
    traffic: Traffic,
}

impl LiveStreams {
    /// The streams, and the task that they need.
    #[must_use]
    pub fn new(fleet: FleetHandle, swarm: SwarmHandle, traffic: Traffic) -> (Self, LiveTask) {
        let (ask, joins) = mpsc::channel(JOINS_MAX);
        (Self(ask), LiveTask { joins, fleet, swarm, traffic })
    }

    /// A stream for one reader, which holds `place` as long as it reads.
    ///
    /// # Errors
    /// When the server is stopping.
    pub(super) async fn response(self, place: Errand) -> Result<Response, Refusal> {
        let Some(Joined { snapshot, news }) = self.join().await else {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"));
        };
        let reader = Reader { streams: self, snapshot: Some(snapshot), news, _place: place };
        let stream = futures::stream::unfold(reader, async |mut reader| Some((reader.next().await?, reader)));
        let mut response = Body::from_stream(stream.map(Ok::<_, io::Error>)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok(response)
    }

    /// `None` when the server is stopping.
    async fn join(&self) -> Option<Joined> {
        let (reply, joined) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        joined.await.ok()
    }
}

impl LiveTask {
    /// Serves readers until `cancel`; their streams end with it.
    pub async fn run(mut self, cancel: CancellationToken) {
        while let Some(Some(first)) = cancel.run_until_cancelled(self.joins.recv()).await {
            if cancel.run_until_cancelled(self.serve(first)).await.is_none() {
                return;
            }
        }
    }

    /// Serves readers as long as there are any, `first` and those that join it.
    async fn serve(&mut self, first: oneshot::Sender<Joined>) {
        let mut book = Book::default();
        let (news, _) = broadcast::channel(BEHIND_MAX);
        let mut whole = self.look(&mut book, true).await.is_err();
        join(first, &book, &news);
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        loop {
            tokio::select! {
                reader = self.joins.recv() => match reader {
                    Some(reader) => join(reader, &book, &news),
                    None => return,
                },
                _ = tick.tick() => {
                    if news.receiver_count() == 0 {
                        // If the fleet has stopped, nothing is noted any more anyway.
                        let _ = self.fleet.live_ends().await;
                        return;
                    }
                    match self.look(&mut book, whole).await {
                        Ok(live) => {
                            whole = false;
                            if !live.is_empty() {
                                // Fails when the last reader has just gone.
                                let _ = news.send(message("changes", &live));
                            }
                        }
                        Err(FleetError::Stopping) => return,
                        // What the fleet had noted is lost with what could not be written down.
                        Err(_) => whole = true,
                    }
                }
            }
        }
    }

    async fn look(&self, book: &mut Book, whole: bool) -> Result<Live, FleetError> {
        let rows = self.fleet.live_rows(whole).await?;
        let swarms = self.swarm.status().await.map_err(|_| FleetError::Stopping)?;
        Ok(book.take(rows, swarms, self.traffic.shown(), Timestamp::now()))
    }
}

/// Tells a reader everything. It may have gone already.
fn join(reader: oneshot::Sender<Joined>, book: &Book, news: &broadcast::Sender<Bytes>) {
    let snapshot = message("snapshot", &book.snapshot(Timestamp::now()));
    let _ = reader.send(Joined { snapshot, news: news.subscribe() });
}

/// A server-sent event. JSON has no line breaks, so one `data:` holds it.
fn message(kind: &str, live: &Live) -> Bytes {
    match serde_json::to_string(live) {
        Ok(data) => format!("event: {kind}\ndata: {data}\n\n").into(),
        Err(error) => {
            tracing::error!(%error, "the live stream cannot be written as JSON");
            Bytes::from_static(b":\n\n")
        }
    }
}

/// One reader's place in the stream.
struct Reader {
    streams: LiveStreams,
    snapshot: Option<Bytes>,
    news: broadcast::Receiver<Bytes>,
    _place: Errand,
}

impl Reader {
    /// The next message; `None` when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(snapshot) = self.snapshot.take() {
            return Some(snapshot);
        }
        match tokio::time::timeout(HEARTBEAT, self.news.recv()).await {
            Err(_) => Some(Bytes::from_static(b":\n\n")),
            Ok(Ok(news)) => Some(news),
            Ok(Err(broadcast::error::RecvError::Lagged(_))) => {
                let joined = self.streams.join().await?;
                self.news = joined.news;
                Some(joined.snapshot)
            }
            Ok(Err(broadcast::error::RecvError::Closed)) => None,
        }
    }
}
