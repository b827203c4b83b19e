//! The log as a response of JSON lines, or as a stream of server-sent events: page by page from the records, and then new
//! events until the client disconnects. Touches the fleet's handle.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use common::id::DeploymentId;
use serde::Deserialize;
use tokio::sync::{broadcast, mpsc};
use utoipa::IntoParams;

use super::admin::Query;
use super::caller::Asked;
use super::pages::{self, ENTRIES_MAX};
use super::shapes::{LogEvent, LogQuery};
use super::tasks::{events_of, lines_of};
use crate::fleet::FleetHandle;
use crate::fleet::store::LogFilter;
use crate::http::Door;
use crate::http::refusal::Refusal;

/// How many events are read from the records at once.
const PAGE: u32 = 500;
/// How many lines are queued for a slow client.
const LINES_MAX: usize = 256;

/// Reads the log, oldest first.
///
/// Does not end with `follow`; with `limit` it is a page, with the next one in `Link`.
#[utoipa::path(get, path = "/logs", params(LogQuery), responses((status = 200, description = "JSON lines, each an event", body = LogEvent, content_type = "application/x-ndjson")))]
pub(super) async fn logs(Asked(admin): Asked, Query(query): Query<LogQuery>) -> Result<Response, Refusal> {
    if query.limit.is_some() {
        return page(&admin.fleet, query).await;
    }
    let (follow, after) = (query.follow, query.after.unwrap_or(0));
    // A permit is needed also without `follow`: a client may stop reading in the middle, as a pager does.
    let errand = admin.errands.place()?;
    // Subscribed before the first page is read, so that no event is missed in between.
    let news = admin.fleet.follow();
    let filter = admin.fleet.log_filter(query).await?;
    let (lines, waiting) = mpsc::channel(LINES_MAX);
    let first = admin.fleet.log_page(filter.clone(), after, PAGE).await?;
    let told = Told { fleet: admin.fleet, filter, as_bytes: as_line, lines };
    // This task ends when the client disconnects, when the log ends, or when the server stops.
    tokio::spawn(async move {
        admin.cancel.run_until_cancelled(told.all(first, after, follow.then_some(news))).await
    });
    Ok(lines_of(errand, waiting))
}

/// A page of the log as JSON lines, with where the next one is.
async fn page(fleet: &FleetHandle, query: LogQuery) -> Result<Response, Refusal> {
    if query.follow {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "a page of the log ends, and cannot be followed")
            .hint("leave out limit= or follow=, or read /events"));
    }
    let limit = pages::limit(query.limit.map(|limit| limit.to_string()).as_deref(), ENTRIES_MAX)?;
    let filter = fleet.log_filter(query.clone()).await?;
    let most = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let mut events = fleet.log_page(filter, query.after.unwrap_or(0), most).await?;
    let is_last = events.len() <= limit;
    events.truncate(limit);
    let lines: Vec<u8> = events.iter().filter_map(as_line).flatten().collect();
    let mut answer = Body::from(lines).into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if let Some(last) = events.last().filter(|_| !is_last) {
        answer.headers_mut().extend(pages::next_at("/logs", &words(&query, last.id, limit)));
    }
    Ok(answer)
}

/// The query of the page behind `last`.
fn words(query: &LogQuery, last: u64, limit: usize) -> Vec<(&'static str, String)> {
    let LogQuery { machines, labels, deployment, step, since, progress, .. } = query;
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let all = [
        ("after", Some(last.to_string())),
        ("limit", Some(limit.to_string())),
        ("machines", text(machines)),
        ("labels", text(labels)),
        ("deployment", deployment.map(|id| id.to_string())),
        ("step", step.as_ref().and_then(text)),
        ("since", since.map(|since| since.to_string())),
        ("progress", progress.then(|| "true".to_owned())),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// The query of the event stream.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct Since {
    /// The events after the one of this number; only new ones when it is left out.
    since: Option<u64>,
    /// Of these machines, comma-separated; all when empty.
    machines: String,
    /// Only events of this deployment; of all when left out.
    deployment: Option<DeploymentId>,
    /// Only events of the step of this name; of all when left out.
    step: Option<String>,
    /// Whether progress events are included.
    progress: bool,
}

/// Follows the log as server-sent events, whose ids are those of the events.
///
/// A client that lost its connection goes on behind the last one that it has, without loss or repetition. Does not end.
#[utoipa::path(get, path = "/events", params(Since, ("Last-Event-ID" = Option<String>, Header, description = "As browsers send it: counts before `since`")), responses((status = 200, description = "Server-sent events; the data of each is an event as JSON", body = LogEvent, content_type = "text/event-stream")))]
pub(super) async fn events(
    Asked(admin): Asked,
    Query(query): Query<Since>,
    Extension(door): Extension<Door>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let place = admin.streams.place(door)?;
    let news = admin.fleet.follow();
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).or(query.since);
    let after = match last {
        Some(id) => id,
        None => admin.fleet.last_event().await?,
    };
    let Since { machines, deployment, step, progress, .. } = query;
    let query = LogQuery { machines, deployment, step, progress, ..LogQuery::default() };
    let filter = admin.fleet.log_filter(query).await?;
    let (lines, waiting) = mpsc::channel(LINES_MAX);
    let first = admin.fleet.log_page(filter.clone(), after, PAGE).await?;
    let told = Told { fleet: admin.fleet, filter, as_bytes: as_event, lines };
    // As in `logs`.
    tokio::spawn(async move { admin.cancel.run_until_cancelled(told.all(first, after, Some(news))).await });
    Ok(events_of(place, waiting))
}

/// Tells a client the log.
struct Told {
    fleet: FleetHandle,
    filter: LogFilter,
    as_bytes: fn(&LogEvent) -> Option<Bytes>,
    lines: mpsc::Sender<Bytes>,
}

/// An event as a JSON line.
fn as_line(event: &LogEvent) -> Option<Bytes> {
    let mut line = serde_json::to_vec(event).ok()?;
    line.push(b'\n');
    Some(line.into())
}

/// An event as a server-sent one. JSON has no line breaks, so one `data:` holds it.
fn as_event(event: &LogEvent) -> Option<Bytes> {
    let data = serde_json::to_string(event).ok()?;
    Some(format!("id: {}\ndata: {data}\n\n", event.id).into())
}

impl Told {
    /// Sends the log from `first` on, whose events come after the one of the number `last`, and then new events as they
    /// happen.
    async fn all(self, first: Vec<LogEvent>, last: u64, news: Option<broadcast::Receiver<Arc<LogEvent>>>) {
        let Some(mut last) = self.pages(first, last).await else { return };
        let Some(mut news) = news else { return };
        // A disconnected client is noticed when the next event is sent; while there is none, by this timer.
        let mut look = tokio::time::interval(Duration::from_secs(5));
        loop {
            let event = tokio::select! {
                event = news.recv() => event,
                _ = look.tick() => {
                    if self.lines.is_closed() { return }
                    continue;
                }
            };
            match event {
                Ok(event) if event.id <= last || !self.filter.wants(&event) => {}
                Ok(event) => {
                    last = event.id;
                    if !self.send(&event).await {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let Ok(page) = self.fleet.log_page(self.filter.clone(), last, PAGE).await else { return };
                    let Some(through) = self.pages(page, last).await else { return };
                    last = through;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Sends `page` and all pages after it; returns the number of the last event, or `None` when the client has
    /// disconnected or the log cannot be read.
    async fn pages(&self, mut page: Vec<LogEvent>, mut last: u64) -> Option<u64> {
        loop {
            let whole = page.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
            for event in &page {
                last = event.id;
                if !self.send(event).await {
                    return None;
                }
            }
            if !whole {
                return Some(last);
            }
            page = match self.fleet.log_page(self.filter.clone(), last, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the log cannot be read");
                    return None;
                }
            };
        }
    }

    async fn send(&self, event: &LogEvent) -> bool {
        let Some(bytes) = (self.as_bytes)(event) else { return false };
        self.lines.send(bytes).await.is_ok()
    }
}
