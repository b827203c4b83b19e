//! Steps 3 to 6 and 15 over HTTP: reports, events and calls home of machines, and the files that their plans name.
//! Every body is bounded before it is read and checked before it is used; a signed one counts only for the key that
//! signed it. Touches the fleet.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use common::hardware::{CheckedHardware, SentReport};
use common::id::{Hash, ImageId};
use common::limits::{EVENTS_BYTES_MAX, EVENTS_PER_BATCH_MAX, REPORT_BYTES_MAX, WAIT_BYTES_MAX};
use common::plan::Verdict;
use common::step::EventBatch;
use common::trust::{Signed, Untrusted};
use common::wire::http::{
    CONFIRM, DELTAS, DRIVER, EVENTS, EventsTaken, IDENTITY, Identity, MANIFEST, REPORT, WAIT, WaitAnswer,
    WaitRequest,
};
use common::wire::objects::Object;
use jiff::Timestamp;

use super::content::{Bytestore, Content, answer};
use super::public::Public;
use super::refusal::Refusal;
use super::server::{Ends, Leaving};
use crate::fleet::boot_policy::Sighting;
use crate::fleet::{FleetError, FleetHandle, From};
use crate::peers::Who;

/// The longest body of a call home, in bytes. cloud-init posts the host's keys and names.
const CONFIRM_BYTES_MAX: usize = 64 << 10;

/// The routes that machines report to, and fetch bundles and manifests from.
pub(super) fn routes() -> Router<Arc<Public>> {
    Router::new()
        .route(IDENTITY, get(identity))
        .route(REPORT, post(report))
        .route(WAIT, post(wait))
        .route(EVENTS, post(events))
        .route(&format!("{}/{{hash}}", common::wire::http::BUNDLE), get(bundle))
        .route(&format!("{DRIVER}/{{hash}}"), get(driver))
        .route(&format!("{MANIFEST}/{{image}}"), get(manifest))
        .route(&format!("{DELTAS}/{{image}}"), get(deltas))
        .route(&format!("{CONFIRM}/{{token}}"), get(confirm).post(confirm))
}

async fn identity(State(public): State<Arc<Public>>) -> Json<Identity> {
    Json(Identity {
        key: public.fleet.key(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nonce: public.fleet.nonce(),
    })
}

async fn report(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Signed<Verdict>>, Refusal> {
    let address = ends.peer.ip();
    public.peers.sign(address);
    // Its memory is counted until the report is decided.
    let taken = public.intake.read(address, &headers, body, REPORT_BYTES_MAX, "hardware report").await?;
    let turn = public.parsers.acquire().await.map_err(|_| Refusal::from(FleetError::Stopping))?;
    let (checked, begun, digest) = believed(&public.fleet, &taken.bytes).inspect_err(|refusal| {
        let why = refusal.in_a_line();
        if public.complaints.report_refused(address, &why) {
            public.fleet.sighting(Sighting::RefusedReport { address, why });
        }
    })?;
    drop(turn);
    let macs: Vec<_> = checked.report().nics.iter().map(|nic| nic.mac).collect();
    public.has_reported(macs);
    Ok(Json(
        public
            .fleet
            .report(checked, From { peer: address, server: Some(ends.own.ip()), begun, digest })
            .await?,
    ))
}

/// Checks that the report in `bytes` is signed by its own key, begun lately and within every bound; gives also when it
/// was begun, and its hash.
fn believed(fleet: &FleetHandle, bytes: &[u8]) -> Result<(CheckedHardware, Timestamp, Hash), Refusal> {
    let signed: Signed<SentReport> = parse(bytes, "hardware report")?;
    let sent = signed.open_self_signed(|sent| sent.hardware.key).map_err(untrusted)?;
    let begun = fleet.begun(&sent.nonce).ok_or_else(|| {
        Refusal::new(StatusCode::CONFLICT, "the report bears no nonce that this server gave out lately")
            .hint("report again: `GET /v1/identity` gives a nonce for each report")
    })?;
    let checked = CheckedHardware::check(sent.hardware).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
            .hint("the reporter and this server may be of different versions")
    })?;
    Ok((checked, begun, signed.digest()))
}

/// Stays unanswered until there is news for the machine. It costs a connection and no thread meanwhile.
async fn wait(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    Extension(leaving): Extension<Leaving>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Signed<WaitAnswer>>, Refusal> {
    let address = ends.peer.ip();
    let (request, digest) = {
        let taken = public.intake.read(address, &headers, body, WAIT_BYTES_MAX, "request to wait").await?;
        let _turn = public.parsers.acquire().await.map_err(|_| Refusal::from(FleetError::Stopping))?;
        let signed: Signed<WaitRequest> = parse(&taken.bytes, "request to wait")?;
        (signed.open_self_signed(|request| request.key).map_err(untrusted)?, signed.digest())
    };
    Ok(Json(public.fleet.wait(request, (address, digest), leaving.0.cancelled()).await?))
}

async fn events(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Signed<EventsTaken>>, Refusal> {
    let taken =
        public.intake.read(ends.peer.ip(), &headers, body, EVENTS_BYTES_MAX, "batch of events").await?;
    let turn = public.parsers.acquire().await.map_err(|_| Refusal::from(FleetError::Stopping))?;
    let signed: Signed<EventBatch> = parse(&taken.bytes, "batch of events")?;
    let batch = signed.open_self_signed(|batch| batch.key).map_err(untrusted)?;
    if batch.events.len() > EVENTS_PER_BATCH_MAX {
        let error = format!("{} events in one batch, more than {EVENTS_PER_BATCH_MAX}", batch.events.len());
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error).hint("send several batches"));
    }
    drop(turn);
    Ok(Json(public.fleet.events(batch, signed.digest()).await?))
}

async fn bundle(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    Path(hash): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let hash: Hash = hash.parse().map_err(|_| Refusal::absent("that is no bundle's hash"))?;
    let found = public
        .ask(move |source| {
            let content = source.bundle(hash)?;
            Some((content.bytes.length()?, content))
        })
        .await?;
    let (bytes, content) = found.ok_or_else(|| {
        Refusal::absent("there is no such bundle").hint("report again: it is built for each plan")
    })?;
    if ends.fallback().is_none() {
        // Most machines have their agent from their loader. A site holds a bundle for others when machines there ask for
        // it; a relay has what it passes on.
        public.peers.want(Object { hash, bytes }, Who { mac: None, address: ends.peer.ip() });
    }
    let peers = public.peers.clone();
    answer(&method, &headers, content, Box::new(move |_| peers.sign(ends.peer.ip()))).await
}

/// A module or firmware file that a small loader lacks.
async fn driver(
    State(public): State<Arc<Public>>,
    Path(hash): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let hash: Hash = hash.parse().map_err(|_| Refusal::absent("that is no driver's hash"))?;
    let content = public.ask(move |source| source.driver(hash)).await?;
    let content = content.ok_or_else(|| {
        Refusal::absent("no boot kit has this driver")
            .hint("restart the machine: its kit was replaced or removed")
    })?;
    answer(&method, &headers, content, Box::new(|_| ())).await
}

async fn manifest(
    State(public): State<Arc<Public>>,
    Path(image): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let image = image_named(&image)?;
    let bytes = public.ask(move |source| source.manifest(image)).await?;
    let bytes = bytes.ok_or_else(|| Refusal::absent("there is no such image"))?;
    answer(&method, &headers, in_memory(bytes, image.0), Box::new(|_| ())).await
}

async fn deltas(
    State(public): State<Arc<Public>>,
    Path(image): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let image = image_named(&image)?;
    let table = public.ask(move |source| source.deltas(image)).await?;
    let (bytes, hash) = table.ok_or_else(|| Refusal::absent("the image has no deltas"))?;
    answer(&method, &headers, in_memory(bytes, hash), Box::new(|_| ())).await
}

fn image_named(text: &str) -> Result<ImageId, Refusal> {
    Ok(ImageId(text.parse().map_err(|_| Refusal::absent("that is no image's id"))?))
}

/// `bytes` as a response, with their hash as its tag.
fn in_memory(bytes: Bytes, hash: Hash) -> Content {
    let (bytes, tag) = (Bytestore::Memory(bytes), Some(hash.to_string()));
    Content { bytes, media: "application/octet-stream", tag }
}

async fn confirm(
    State(public): State<Arc<Public>>,
    Extension(ends): Extension<Ends>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<serde_json::Value>, Refusal> {
    let taken = public.intake.read(ends.peer.ip(), &headers, body, CONFIRM_BYTES_MAX, "call home").await?;
    // cloud-init's own call is a form of keys and names, which are not needed.
    let is_json =
        headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let call = if is_json { Some(parse(&taken.bytes, "call home")?) } else { None };
    match public.fleet.confirm(token, call).await? {
        Some(job) => Ok(Json(serde_json::json!({ "job": job }))),
        None => Err(Refusal::new(StatusCode::FORBIDDEN, "no job waits for a call home with this token")
            .hint("the token is of an earlier attempt, or the machine was installed by another server")),
    }
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("that is no signed {what}"))
            .because(error)
            .hint("the sender and this server may be of different versions")
    })
}

pub(super) fn untrusted(error: Untrusted) -> Refusal {
    let status = match error {
        Untrusted::Signature { .. } => StatusCode::FORBIDDEN,
        Untrusted::Key(_) | Untrusted::Content(_) => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, error.to_string()).hint("what a machine says is signed by the key that it shows")
}
