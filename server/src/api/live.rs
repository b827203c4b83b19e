//! The live stream: one task looks at the fleet, the swarm and the counts of traffic once a second, only while somebody
//! listens, and puts what changed into words once for all readers of a scope. A reader that falls behind is told everything
//! anew; one that reads nothing holds up nobody, and nothing is queued for it but what its connection has taken over.
//! Touches the fleet's and the swarm's handles.

// Core: what was told, and what changed.
mod book;

// The readers of one scope.
mod group;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::errands::Errand;
use super::shapes::Scope;
use super::tasks::HEARTBEAT;
use crate::fleet::live::AskedRows;
use crate::fleet::{FleetError, FleetHandle};
use crate::http::refusal::Refusal;
use crate::swarm::SwarmHandle;
use crate::traffic::Traffic;
use group::{Group, Joined, News, Piece};

/// How often it is looked what changed.
const LOOK: Duration = Duration::from_secs(1);
/// Readers that wait to be taken in.
const JOINS_MAX: usize = 64;

/// A reader that wants to join: what it may see, and where its beginning goes.
type Join = (Scope, oneshot::Sender<Joined>);

/// Lets readers join the live stream. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveStreams(mpsc::Sender<Join>);

/// The task of the live stream.
#[derive(Debug)]
pub struct LiveTask {
    joins: mpsc::Receiver<Join>,
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

    /// A stream for one reader of this scope, which holds `place` as long as it reads.
    ///
    /// # Errors
    /// When the server is stopping.
    pub(super) async fn response(self, scope: Scope, place: Errand) -> Result<Response, Refusal> {
        let Some(joined) = self.join(&scope).await else {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"));
        };
        let reader = Reader { streams: self, scope, joined, _place: place };
        let stream = futures::stream::unfold(reader, async |mut reader| Some((reader.next().await?, reader)));
        let mut response = Body::from_stream(stream.map(Ok::<_, io::Error>)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok(response)
    }

    /// `None` when the server is stopping.
    async fn join(&self, scope: &Scope) -> Option<Joined> {
        let (reply, joined) = oneshot::channel();
        self.0.send((scope.clone(), reply)).await.ok()?;
        joined.await.ok()
    }
}

impl LiveTask {
    /// Serves readers until `cancel`; their streams end with it.
    pub async fn run(mut self, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.serve()).await;
    }

    /// Returns when the fleet or the swarm has stopped.
    async fn serve(&mut self) {
        let mut groups: BTreeMap<Scope, Group> = BTreeMap::new();
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                join = self.joins.recv() => {
                    let Some((scope, reader)) = join else { return };
                    let group = groups.entry(scope.clone()).or_insert_with(|| Group::of(&scope));
                    // The first of a scope waits for the next look, which is due at once when nobody looked.
                    group.join(reader, Timestamp::now(), Instant::now());
                }
                _ = tick.tick(), if !groups.is_empty() => {
                    groups.retain(|_, group| group.has_readers());
                    let looked = if groups.is_empty() {
                        self.fleet.live_ends().await
                    } else {
                        self.look(&mut groups).await
                    };
                    if matches!(looked, Err(FleetError::Stopping)) {
                        return;
                    }
                }
            }
        }
    }

    /// Tells every group what changed.
    async fn look(&self, groups: &mut BTreeMap<Scope, Group>) -> Result<(), FleetError> {
        let asked =
            groups.iter().map(|(scope, group)| AskedRows { scope: scope.clone(), whole: group.is_lost });
        let rows = self.fleet.live_rows(asked.collect()).await.inspect_err(|_| {
            // What the fleet had noted is lost with what could not be written down.
            groups.values_mut().for_each(|group| group.is_lost = true);
        })?;
        let swarms = self.swarm.status().await.map_err(|_| FleetError::Stopping)?;
        let (sites, at) = (self.traffic.shown(), Timestamp::now());
        for (group, rows) in groups.values_mut().zip(rows) {
            group.tell(rows, &swarms, &sites, (at, Instant::now()));
        }
        Ok(())
    }
}

/// One reader's place in the stream.
struct Reader {
    streams: LiveStreams,
    scope: Scope,
    joined: Joined,
    _place: Errand,
}

impl Reader {
    /// The next bytes; `None` when the server stops, or the reader was too slow to read how things stood.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.joined.beginning.piece() {
                Piece::Bytes(bytes) => return Some(bytes),
                Piece::Forgotten => return None,
                Piece::Over => {}
            }
            match tokio::time::timeout(HEARTBEAT, self.joined.news.recv()).await {
                Err(_) => return Some(Bytes::from_static(b":\n\n")),
                Ok(Ok(News::Changes(bytes))) => return Some(bytes),
                Ok(Ok(News::Anew) | Err(broadcast::error::RecvError::Lagged(_))) => {
                    self.joined = self.streams.join(&self.scope).await?;
                }
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
            }
        }
    }
}
