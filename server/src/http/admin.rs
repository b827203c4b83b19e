//! The admin's door: everything that the command line can ask for. It is a Unix socket that only its owner and
//! group can open, so whoever speaks here may do anything; nothing here is ever put on a TCP port. Touches the
//! fleet, the image store, the kits and the swarm's handle.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use common::id::{DeploymentId, MachineId};
use serde::{Deserialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::blocking::blocking;
use super::errands::Errands;
use super::log::logs;
use super::refusal::Refusal;
use super::stock::{image_refused, image_shown, import_words, kit_refused, kit_shown, wanted};
use super::tasks::{ProgressSender, inlet, task, written_by};
use crate::api::shapes::{
    Cancel, DeployAnswer, DeployOrder, DeploymentShown, Freeze, Frozen, ImageAdd, ImageShown, ImageVerified,
    KitImport, KitShown, MachineChanged, MachineCommand, MachineShown, PREFIX, Retry, RetryLine,
    ServerStatus,
};
use crate::boot::BootKits;
use crate::fleet::FleetHandle;
use crate::image::{AddSpec, Added, ImageSource, Images};
use crate::swarm::{LimitOrder, LineLimits, Stopped, SwarmHandle, SwarmStatus};

/// The longest order: user-data and keys fit several times.
const ORDER_BYTES_MAX: usize = 8 << 20;
/// The most bytes that a name in a path may have.
const NAME_MAX: usize = 256;
/// Sites that an error names.
const SITES_SHOWN: usize = 20;

/// What the admin's door needs.
#[derive(Clone)]
pub struct Admin {
    /// The fleet.
    pub fleet: FleetHandle,
    /// The images.
    pub images: Images,
    /// The boot kits.
    pub kits: Arc<BootKits>,
    /// The swarm.
    pub swarm: SwarmHandle,
    /// What the server says of itself.
    pub status: Arc<dyn Fn() -> ServerStatus + Send + Sync>,
    /// The places of those who stay long.
    pub errands: Errands,
    /// Ends what would go on for ever.
    pub cancel: CancellationToken,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

type Answered<T> = Result<Json<T>, Refusal>;

/// The admin's routes.
pub fn admin(admin: Admin) -> Router {
    let routes = Router::new()
        .route("/status", get(status))
        .route("/kits", get(kits).post(import_kit))
        .route("/kits/{name}", get(kit).delete(remove_kit))
        .route("/images", get(images).post(add_image))
        .route("/images/{name}", get(image).put(upload_image).delete(remove_image))
        .route("/images/{name}/verify", post(verify_image))
        .route("/images/{name}/export", get(export_image))
        .route("/machines", get(machines).post(command))
        .route("/machines/{machine}", get(machine))
        .route("/deployments", get(deployments).post(order))
        .route("/deployments/retry", post(retry))
        .route("/deployments/{id}", get(deployment))
        .route("/deployments/{id}/cancel", post(cancel))
        .route("/freeze", post(freeze))
        .route("/logs", get(logs))
        .route("/swarm", get(swarm))
        .route("/swarm/limits", get(limits).post(limit));
    Router::new()
        .nest(PREFIX, routes)
        .fallback(async || {
            Refusal::absent("the server does not know this request")
                .hint("client and server are of different versions")
        })
        .layer(DefaultBodyLimit::max(ORDER_BYTES_MAX))
        .with_state(admin)
}

/// A body that is JSON, with a sentence where it is not.
struct Told<T>(T);

impl<T: DeserializeOwned> axum::extract::FromRequest<Admin> for Told<T> {
    type Rejection = Refusal;

    async fn from_request(request: axum::extract::Request, state: &Admin) -> Result<Self, Refusal> {
        let unreadable = |cause: String| {
            Refusal::new(StatusCode::BAD_REQUEST, "the request cannot be read")
                .because(cause)
                .hint("client and server are of different versions")
        };
        let bytes =
            Bytes::from_request(request, state).await.map_err(|error| unreadable(error.body_text()))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| unreadable(error.to_string()))
    }
}

async fn status(State(admin): State<Admin>) -> Answered<ServerStatus> {
    let (status, notes) = (Arc::clone(&admin.status), admin.fleet.notes().await?);
    let (frozen, warnings) = (admin.fleet.frozen().await?, admin.fleet.warnings().await?);
    answered(move || {
        let mut status = ServerStatus { frozen, ..status() };
        status.warnings.extend(warnings.into_iter().chain(notes));
        Ok(status)
    })
    .await
}

/// The answer that `work` gives, which reads or writes a disk.
async fn answered<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Answered<T> {
    blocking(work).await?.map(Json)
}

async fn kits(State(admin): State<Admin>) -> Answered<Vec<KitShown>> {
    answered(move || {
        let kits = admin.kits.store().list().map_err(|error| kit_refused(&error))?;
        Ok(kits.into_iter().map(kit_shown).collect())
    })
    .await
}

async fn kit(State(admin): State<Admin>, Path(name): Path<String>) -> Answered<KitShown> {
    answered(move || {
        let info = admin.kits.store().info(&bounded(name)?).map_err(|error| kit_refused(&error))?;
        Ok(kit_shown(info))
    })
    .await
}

async fn import_kit(State(admin): State<Admin>, Told(import): Told<KitImport>) -> Result<Response, Refusal> {
    Ok(task(admin.errands.place()?, move |sender: &mut ProgressSender<KitShown>| {
        let info = admin.kits.import(wanted(import), &mut |so_far| {
            let (done, total, text) = import_words(so_far);
            sender.progress(done, total, text);
        });
        let shown = kit_shown(info.map_err(|error| kit_refused(&error))?);
        for missing in &shown.missing {
            sender.note(missing.clone());
        }
        tracing::info!(kit = shown.name, kernel = shown.kernel, "a boot kit was imported");
        Ok(shown)
    }))
}

async fn remove_kit(State(admin): State<Admin>, Path(name): Path<String>) -> Answered<serde_json::Value> {
    answered(move || {
        admin.kits.remove(&bounded(name)?).map_err(|error| kit_refused(&error))?;
        Ok(serde_json::json!({}))
    })
    .await
}

async fn images(State(admin): State<Admin>) -> Answered<Vec<ImageShown>> {
    answered(move || Ok(admin.images.list().iter().map(image_shown).collect())).await
}

async fn image(State(admin): State<Admin>, Path(name): Path<String>) -> Answered<ImageShown> {
    answered(move || {
        let info = admin.images.get(&bounded(name)?).map_err(|error| image_refused(&error))?;
        // Looks now where an earlier version added it; what cannot be read is told by `image verify`.
        let traits = admin.images.traits(info.id).ok();
        Ok(ImageShown { traits, ..image_shown(&info) })
    })
    .await
}

async fn add_image(State(admin): State<Admin>, Told(add): Told<ImageAdd>) -> Result<Response, Refusal> {
    let source = ImageSource::File(add.path);
    let spec = AddSpec { name: add.name, source, sector_size: add.sector_bytes, no_table: add.no_table };
    Ok(task(admin.errands.place()?, move |sender| add_to(&admin.images, spec, sender)))
}

/// The query of an upload.
#[derive(Debug, Deserialize)]
struct Upload {
    sector_bytes: Option<u32>,
    #[serde(default)]
    no_table: bool,
}

async fn upload_image(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Query(upload): Query<Upload>,
    headers: axum::http::HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let name = bounded(name)?;
    let length =
        headers.get(axum::http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let errand = admin.errands.place()?;
    let reader = Box::new(inlet(body, admin.cancel.clone()));
    let source = ImageSource::Stream { reader, name: "standard input".to_owned(), length };
    let spec = AddSpec { name, source, sector_size: upload.sector_bytes, no_table: upload.no_table };
    Ok(task(errand, move |sender| add_to(&admin.images, spec, sender)))
}

fn add_to(
    images: &Images,
    spec: AddSpec,
    sender: &mut ProgressSender<ImageShown>,
) -> Result<ImageShown, common::wire::http::Refused> {
    let added = images.add(spec, &mut |at| {
        let text = format!(
            "{} chunks, {} of zeros, {} MiB stored",
            at.chunks,
            at.zero_chunks,
            at.stored_bytes >> 20
        );
        sender.progress(at.bytes_read, at.total, text);
    });
    let Added { image, existed, new_chunks, new_bytes, repaired_chunks, notes } =
        added.map_err(|error| image_refused(&error))?;
    tracing::info!(image = image.name, id = %image.id, new_chunks, new_bytes, "an image was added");
    if existed {
        sender.note("the same image was there already under this name".to_owned());
    }
    if repaired_chunks > 0 {
        sender.note(format!("{repaired_chunks} damaged chunks were repaired"));
    }
    for note in notes {
        sender.note(note);
    }
    Ok(image_shown(&image))
}

async fn verify_image(State(admin): State<Admin>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let name = bounded(name)?;
    Ok(task(admin.errands.place()?, move |sender: &mut ProgressSender<ImageVerified>| {
        let info = admin.images.get(&name).map_err(|error| image_refused(&error))?;
        let found = admin.images.verify(info.id, &mut |at| {
            sender.progress(at.bytes_read, at.total, format!("{} chunks", at.chunks));
        });
        let report = found.map_err(|error| image_refused(&error))?;
        for damage in report.damaged.iter().take(20) {
            let images = damage.images.join(", ");
            sender.note(format!("chunk {}: {} (in {images})", damage.chunk, damage.what));
        }
        let damaged = report.damaged.iter().map(|damage| damage.chunk).collect();
        let mut affected: Vec<String> = report.damaged.into_iter().flat_map(|damage| damage.images).collect();
        affected.sort_unstable();
        affected.dedup();
        Ok(ImageVerified { name: info.name, chunks: report.chunks, damaged, affected })
    }))
}

async fn export_image(State(admin): State<Admin>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let name = bounded(name)?;
    let (images, errand) = (admin.images.clone(), admin.errands.place()?);
    let info = blocking(move || images.get(&name)).await?.map_err(|error| image_refused(&error))?;
    Ok(written_by(errand, info.size_bytes, move |out| {
        let mut out = out;
        admin.images.export(info.id, &mut out, &mut |_| ()).map_err(Into::into)
    }))
}

async fn remove_image(State(admin): State<Admin>, Path(name): Path<String>) -> Answered<serde_json::Value> {
    let name = bounded(name)?;
    let no_orders = admin.fleet.keep_orders_out().await?;
    let (images, asked) = (admin.images.clone(), name.clone());
    let info = blocking(move || images.get(&asked)).await?.map_err(|error| image_refused(&error))?;
    let needed = admin.fleet.needs_image(info.id).await?;
    // Another name of the same image keeps it for who needs it.
    let images = admin.images.clone();
    answered(move || {
        let names = images.list().iter().filter(|other| other.id == info.id).count();
        let needed = needed.filter(|_| names < 2);
        let removed = images.remove(&name, needed.as_deref()).map_err(|error| image_refused(&error))?;
        tracing::info!(image = removed.image.name, freed_bytes = removed.freed_bytes, "an image was removed");
        drop(no_orders);
        Ok(serde_json::json!({}))
    })
    .await
}

/// Which part of the list of machines is wanted; all of it without a limit.
#[derive(Debug, Deserialize)]
struct MachinePage {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn machines(
    State(admin): State<Admin>,
    Query(page): Query<MachinePage>,
) -> Answered<Vec<MachineShown>> {
    let limit = page.limit.unwrap_or(usize::MAX);
    Ok(Json(admin.fleet.machines_after(MachineId(page.after), limit).await?))
}

async fn machine(State(admin): State<Admin>, Path(name): Path<String>) -> Answered<MachineShown> {
    Ok(Json(admin.fleet.machine(bounded(name)?).await?))
}

async fn command(
    State(admin): State<Admin>,
    Told(command): Told<MachineCommand>,
) -> Answered<Vec<MachineChanged>> {
    Ok(Json(admin.fleet.command(command).await?))
}

async fn deployments(State(admin): State<Admin>) -> Answered<Vec<DeploymentShown>> {
    Ok(Json(admin.fleet.deployments().await?))
}

async fn order(State(admin): State<Admin>, Told(order): Told<DeployOrder>) -> Answered<DeployAnswer> {
    Ok(Json(admin.fleet.order(order).await?))
}

async fn retry(State(admin): State<Admin>, Told(retry): Told<Retry>) -> Answered<Vec<RetryLine>> {
    Ok(Json(admin.fleet.retry(retry).await?))
}

async fn freeze(State(admin): State<Admin>, Told(freeze): Told<Freeze>) -> Answered<Option<Frozen>> {
    Ok(Json(admin.fleet.freeze(freeze).await?))
}

async fn deployment(State(admin): State<Admin>, Path(id): Path<String>) -> Answered<DeploymentShown> {
    let id = deployment_id(&id)?;
    let shown = admin.fleet.deployment(id).await?;
    shown.map(Json).ok_or_else(|| no_deployment(&id.to_string()))
}

async fn cancel(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Told(cancel): Told<Cancel>,
) -> Answered<DeploymentShown> {
    Ok(Json(admin.fleet.cancel(deployment_id(&id)?, cancel).await?))
}

fn deployment_id(text: &str) -> Result<DeploymentId, Refusal> {
    text.parse().map_err(|_| no_deployment(text))
}

fn no_deployment(text: &str) -> Refusal {
    Refusal::absent(format!("there is no deployment `{}`", common::limits::cut(text, 80)))
        .hint("`swarmboot deploy list` shows the deployments")
}

/// A name from a path, within reason.
fn bounded(name: String) -> Result<String, Refusal> {
    if name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "a name that is too long or holds control characters",
        ));
    }
    Ok(name)
}

async fn swarm(State(admin): State<Admin>) -> Answered<Vec<SwarmStatus>> {
    admin.swarm.status().await.map(Json).map_err(no_swarm)
}

async fn limits(State(admin): State<Admin>) -> Answered<LineLimits> {
    admin.swarm.limit(None).await.map(Json).map_err(no_swarm)
}

async fn limit(State(admin): State<Admin>, Told(order): Told<LimitOrder>) -> Answered<LineLimits> {
    if let Some(site) = &order.site {
        // A limit for a misspelt site would hold nothing back, and nobody would know.
        let sites = admin.fleet.sites().await?;
        let limited = admin.swarm.limit(None).await.map_err(no_swarm)?.sites;
        if !sites.contains(site) && !limited.contains_key(site) {
            return Err(no_site(site, &sites));
        }
    }
    admin.swarm.limit(Some(order)).await.map(Json).map_err(no_swarm)
}

fn no_site(site: &str, known: &BTreeSet<String>) -> Refusal {
    let shown: Vec<&str> = known.iter().take(SITES_SHOWN).map(String::as_str).collect();
    let rest = if known.len() > SITES_SHOWN { ", ..." } else { "" };
    Refusal::absent(format!("there is no site `{}`", common::limits::cut(site, 80)))
        .because(match shown.as_slice() {
            [] => "no machine has been seen, and the configuration names no site".to_owned(),
            names => format!("the sites are {}{rest}", names.join(", ")),
        })
        .hint("a `[[site]]` in the configuration file can have a limit before its machines come")
}

fn no_swarm(error: Stopped) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).hint("the server's own log has more")
}
