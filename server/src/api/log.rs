//! The log as a response of JSON lines: page by page from the records and, with `follow`, new events until the client
//! disconnects. Touches the fleet's handle.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};

use super::caller::Asked;
use super::shapes::{LogEvent, LogQuery};
use super::tasks::lines_of;
use crate::fleet::FleetHandle;
use crate::fleet::store::LogFilter;
use crate::http::refusal::Refusal;

/// How many events are read from the records at once.
const PAGE: u32 = 500;
/// How many lines are queued for a slow client.
const LINES_MAX: usize = 256;

pub(super) async fn logs(Asked(admin): Asked, Query(query): Query<LogQuery>) -> Result<Response, Refusal> {
    let follow = query.follow;
    // A permit is needed also without `follow`: a client may stop reading in the middle, as a pager does.
    let errand = admin.errands.place()?;
    // Subscribed before the first page is read, so that no event is missed in between.
    let news = admin.fleet.follow();
    let filter = admin.fleet.log_filter(query).await?;
    let (lines, waiting) = mpsc::channel(LINES_MAX);
    let first = admin.fleet.log_page(filter.clone(), 0, PAGE).await?;
    // This task ends when the client disconnects, when the log ends, or when the server stops.
    tokio::spawn(async move {
        let cancel = admin.cancel.clone();
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tell(admin.fleet, filter, first, follow.then_some(news), lines) => {}
        }
    });
    Ok(lines_of(errand, waiting))
}

/// Sends the log from its first page on, and then new events as they happen.
async fn tell(
    fleet: FleetHandle,
    filter: LogFilter,
    first: Vec<LogEvent>,
    news: Option<broadcast::Receiver<Arc<LogEvent>>>,
    lines: mpsc::Sender<Bytes>,
) {
    let Some(mut last) = tell_pages(&fleet, &filter, first, 0, &lines).await else { return };
    let Some(mut news) = news else { return };
    // A disconnected client is noticed when the next event is sent; while there is none, by this timer.
    let mut look = tokio::time::interval(Duration::from_secs(5));
    loop {
        let event = tokio::select! {
            event = news.recv() => event,
            _ = look.tick() => {
                if lines.is_closed() { return }
                continue;
            }
        };
        match event {
            Ok(event) if event.id <= last || !filter.wants(&event) => {}
            Ok(event) => {
                last = event.id;
                if !send(&lines, &event).await {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let Ok(page) = fleet.log_page(filter.clone(), last, PAGE).await else { return };
                let Some(through) = tell_pages(&fleet, &filter, page, last, &lines).await else { return };
                last = through;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Sends `page` and all pages after it; returns the number of the last event, or `None` when the client has
/// disconnected or the log cannot be read.
async fn tell_pages(
    fleet: &FleetHandle,
    filter: &LogFilter,
    mut page: Vec<LogEvent>,
    mut last: u64,
    lines: &mpsc::Sender<Bytes>,
) -> Option<u64> {
    loop {
        let whole = page.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
        for event in &page {
            last = event.id;
            if !send(lines, event).await {
                return None;
            }
        }
        if !whole {
            return Some(last);
        }
        page = match fleet.log_page(filter.clone(), last, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the log cannot be read");
                return None;
            }
        };
    }
}

async fn send(lines: &mpsc::Sender<Bytes>, event: &LogEvent) -> bool {
    let Ok(mut line) = serde_json::to_vec(event) else { return false };
    line.push(b'\n');
    lines.send(line.into()).await.is_ok()
}
