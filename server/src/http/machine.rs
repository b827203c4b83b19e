//! Steps 3 to 6 and 15 over HTTP: what machines report and what they are answered. Every body is bounded
//! before it is read and checked before it is believed; what is signed is opened only by its own key. Touches
//! the fleet.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use common::hardware::{CheckedHardware, HardwareReport};
use common::id::{Hash, ImageId};
use common::limits::{EVENTS_BYTES_MAX, EVENTS_PER_BATCH_MAX, REPORT_BYTES_MAX};
use common::plan::Verdict;
use common::step::EventBatch;
use common::trust::{Signed, Untrusted};
use common::wire::http::{CONFIRM, EVENTS, EventsTaken, IDENTITY, Identity, MANIFEST, REPORT};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::content::{Bytestore, Content, answer};
use super::refusal::Refusal;
use super::server::Ends;
use super::{Public, shelf};

/// A body must have come within this time: a machine on a line of 1 Mbit/s sends the largest report in it.
const BODY_TIME: Duration = Duration::from_secs(60);
/// What is read of a call home: cloud-init's `phone_home` posts keys and names, which are not needed.
const CONFIRM_BYTES_MAX: usize = 64 << 10;

/// The routes.
pub(super) fn routes() -> Router<Arc<Public>> {
    Router::new()
        .route(IDENTITY, get(identity))
        .route(REPORT, post(report))
        .route(EVENTS, post(events))
        .route(&format!("{}/{{hash}}", common::wire::http::BUNDLE), get(bundle))
        .route(&format!("{MANIFEST}/{{image}}"), get(manifest))
        .route(&format!("{CONFIRM}/{{token}}"), get(confirm).post(confirm))
}

async fn identity(State(public): State<Arc<Public>>) -> Json<Identity> {
    Json(Identity { key: public.fleet.key(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

async fn report(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Signed<Verdict>>, Refusal> {
    // Held until the report is decided: it bounds the memory that reports take at once.
    let _turn =
        public.reports.acquire().await.map_err(|_| Refusal::from(crate::fleet::FleetError::Stopping))?;
    let bytes = read(&headers, body, REPORT_BYTES_MAX, "hardware report").await?;
    let peer = ends.peer.ip();
    let checked = believed(&bytes)
        .inspect_err(|refusal| public.complaints.report_refused(peer, &refusal.in_a_line()))?;
    drop(bytes);
    Ok(Json(public.fleet.report(checked, peer, Some(ends.local.ip())).await?))
}

/// The report in `bytes`, signed by its own key and within every bound.
fn believed(bytes: &[u8]) -> Result<CheckedHardware, Refusal> {
    let signed: Signed<HardwareReport> = parse(bytes, "hardware report")?;
    let report = signed.open_self_signed(|report| report.key).map_err(untrusted)?;
    CheckedHardware::check(report).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
            .hint("the reporter and this server may be of different versions")
    })
}

async fn events(
    State(public): State<Arc<Public>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Signed<EventsTaken>>, Refusal> {
    let bytes = read(&headers, body, EVENTS_BYTES_MAX, "batch of events").await?;
    let signed: Signed<EventBatch> = parse(&bytes, "batch of events")?;
    let batch = signed.open_self_signed(|batch| batch.key).map_err(untrusted)?;
    if batch.events.len() > EVENTS_PER_BATCH_MAX {
        let error = format!("{} events in one batch, more than {EVENTS_PER_BATCH_MAX}", batch.events.len());
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error).hint("send several batches"));
    }
    Ok(Json(public.fleet.events(batch, signed.digest()).await?))
}

async fn bundle(
    State(public): State<Arc<Public>>,
    Path(hash): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let hash: Hash = hash.parse().map_err(|_| Refusal::absent("that is no bundle's hash"))?;
    let content = shelf(&public.shelves, move |shelves| shelves.bundle(hash)).await?;
    let content = content.ok_or_else(|| {
        Refusal::absent("there is no such bundle").hint("report again: it is built for each plan")
    })?;
    answer(&method, &headers, content, Box::new(|_| ())).await
}

async fn manifest(
    State(public): State<Arc<Public>>,
    Path(image): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let image = ImageId(image.parse().map_err(|_| Refusal::absent("that is no image's id"))?);
    let bytes = shelf(&public.shelves, move |shelves| shelves.manifest(image)).await?;
    let bytes = bytes.ok_or_else(|| Refusal::absent("there is no such image"))?;
    let content = Content {
        bytes: Bytestore::Memory(bytes),
        media: "application/octet-stream",
        tag: Some(image.to_string()),
    };
    answer(&method, &headers, content, Box::new(|_| ())).await
}

async fn confirm(
    State(public): State<Arc<Public>>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<serde_json::Value>, Refusal> {
    // Read, so that the caller is not cut off while it sends; what it says is not needed.
    read(&headers, body, CONFIRM_BYTES_MAX, "call home").await?;
    match public.fleet.confirm(token).await? {
        Some(job) => Ok(Json(serde_json::json!({ "job": job }))),
        None => Err(Refusal::new(StatusCode::FORBIDDEN, "no job waits for a call home with this token")
            .hint("the token is of an earlier attempt, or the machine was installed by another server")),
    }
}

/// The whole body, if it is at most `max` bytes and comes in time.
async fn read(headers: &HeaderMap, body: Body, max: usize, what: &str) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a {what} of more than {max} bytes"))
            .hint("nothing of it was read")
    };
    let told = headers
        .get(axum::http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|told| usize::try_from(told).is_ok_and(|told| told > max)) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the {what} broke off")).because(error))
        }
        Err(_) => {
            let error = format!("the {what} did not come within {} s", BODY_TIME.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, error).hint("send it again"))
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("that is no signed {what}"))
            .because(error)
            .hint("the sender and this server may be of different versions")
    })
}

fn untrusted(error: Untrusted) -> Refusal {
    let status = match error {
        Untrusted::Signature { .. } => StatusCode::FORBIDDEN,
        Untrusted::Key(_) | Untrusted::Content(_) => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, error.to_string()).hint("what a machine says is signed by the key that it shows")
}
