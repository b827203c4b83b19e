//! The admin's routes for images, and the conversion of images and their errors to shapes. Touches the image store, and
//! asks the fleet which jobs need an image.

use axum::body::Body;
use axum::response::Response;
use axum::{Extension, Json};
use common::causes;
use common::wire::http::Refused;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::admin::{Admin, Answered, JsonBody, Path, Query, answered, bounded};
use super::caller::{Asked, check_local};
use super::shapes::{ImageAdd, ImageRemoved, ImageShown, ImageUpdate, ImageVerified, TaskLine};
use super::tasks::{ProgressSender, inlet, task, written_by};
use crate::http::refusal::Refusal;
use crate::http::{Door, blocking};
use crate::image::{AddSpec, Added, ImageError, ImageInfo, ImageSource, PartitionTable, Update};

/// Lists the images.
#[utoipa::path(get, path = "/images", responses((status = 200, description = "All images", body = Vec<ImageShown>)))]
pub(super) async fn list(Asked(admin): Asked) -> Answered<Vec<ImageShown>> {
    let staged = admin.fleet.staged(None).await?;
    answered(move || {
        let at = |image| staged.iter().filter(|staged| staged.image == image).cloned().collect();
        let list = admin.images.list();
        Ok(list.iter().map(|info| ImageShown { staged: at(info.id), ..shown(info) }).collect())
    })
    .await
}

/// Shows an image.
///
/// With what a site is sent whose machines hold another image.
#[utoipa::path(get, path = "/images/{name}", params(("name" = String, Path, description = "The image's name or id")), responses((status = 200, description = "The image", body = ImageShown)))]
pub(super) async fn show(Asked(admin): Asked, Path(name): Path<String>) -> Answered<ImageShown> {
    let staged = admin.fleet.staged(None).await?;
    answered(move || {
        let info = admin.images.get(&bounded(name)?).map_err(|error| refused(&error))?;
        let staged = staged.into_iter().filter(|staged| staged.image == info.id).collect();
        // Finds the traits now where an earlier version added the image; what cannot be read `image verify` reports.
        let traits = admin.images.traits(info.id).ok();
        let updates = admin.images.updates(info.id).into_iter();
        let updates = updates.map(|Update { from, wire_bytes }| ImageUpdate { from, wire_bytes }).collect();
        Ok(ImageShown { traits, staged, updates, ..shown(&info) })
    })
    .await
}

/// Adds an image from a file of the server's host.
///
/// Over the admin socket only; from elsewhere the image is sent.
#[utoipa::path(post, path = "/images", request_body = ImageAdd, responses((status = 200, description = "JSON lines: progress and notes, and at last the image or the failure", body = TaskLine<ImageShown>, content_type = "application/x-ndjson")))]
pub(super) async fn add(
    Asked(admin): Asked,
    Extension(door): Extension<Door>,
    JsonBody(add): JsonBody<ImageAdd>,
) -> Result<Response, Refusal> {
    check_local(door, "the path of an image")?;
    let source = ImageSource::File(add.path);
    let spec = AddSpec { name: add.name, source, sector_size: add.sector_bytes, no_table: add.no_table };
    Ok(task(admin.errands.place()?, move |sender| add_to(&admin, spec, sender)))
}

/// The query of an upload.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Upload {
    /// The sector size of the image in bytes, where its partition table does not show it.
    sector_bytes: Option<u32>,
    /// Whether it is added although it has no partition table.
    #[serde(default)]
    no_table: bool,
}

/// Adds an image that is sent.
///
/// In one piece: when the connection breaks, nothing of it is kept. `/uploads` is for lines that break.
#[utoipa::path(put, path = "/images/{name}", params(("name" = String, Path, description = "The image's name"), Upload), request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The image: raw, or raw as gzip, xz or zstd, or qcow2"), responses((status = 200, description = "JSON lines: progress and notes, and at last the image or the failure", body = TaskLine<ImageShown>, content_type = "application/x-ndjson")))]
pub(super) async fn upload(
    Asked(admin): Asked,
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
    Ok(task(errand, move |sender| add_to(&admin, spec, sender)))
}

pub(super) fn add_to(
    admin: &Admin,
    spec: AddSpec,
    sender: &mut ProgressSender<ImageShown>,
) -> Result<ImageShown, common::wire::http::Refused> {
    let added = admin.images.add(spec, &mut |at| {
        let text = format!(
            "{} chunks, {} of zeros, {} MiB stored",
            at.chunks,
            at.zero_chunks,
            at.stored_bytes >> 20
        );
        sender.progress(at.bytes_read, at.total, text);
    });
    let Added { image, existed, new_chunks, new_bytes, repaired_chunks, notes } =
        added.map_err(|error| refused(&error))?;
    tracing::info!(image = image.name, id = %image.id, new_chunks, new_bytes, "an image was added");
    admin.fleet.note_blocking(format!("added the image {} ({})", image.name, image.id));
    if existed {
        sender.note("the same image was there already under this name".to_owned());
    }
    if repaired_chunks > 0 {
        sender.note(format!("{repaired_chunks} damaged chunks were repaired"));
    }
    for note in notes {
        sender.note(note);
    }
    Ok(shown(&image))
}

/// Reads an image's chunks and compares them with its manifest.
#[utoipa::path(post, path = "/images/{name}/verify", params(("name" = String, Path, description = "The image's name or id")), responses((status = 200, description = "JSON lines: progress and notes, and at last what was found", body = TaskLine<ImageVerified>, content_type = "application/x-ndjson")))]
pub(super) async fn verify(Asked(admin): Asked, Path(name): Path<String>) -> Result<Response, Refusal> {
    let name = bounded(name)?;
    Ok(task(admin.errands.place()?, move |sender: &mut ProgressSender<ImageVerified>| {
        let info = admin.images.get(&name).map_err(|error| refused(&error))?;
        let found = admin.images.verify(info.id, &mut |at| {
            sender.progress(at.bytes_read, at.total, format!("{} chunks", at.chunks));
        });
        let report = found.map_err(|error| refused(&error))?;
        for damage in report.damaged.iter().take(20) {
            let images = damage.images.join(", ");
            sender.note(format!("chunk {}: {} (in {images})", damage.chunk, damage.what));
        }
        report.notes.into_iter().for_each(|note| sender.note(note));
        let damaged = report.damaged.iter().map(|damage| damage.chunk).collect();
        let mut affected: Vec<String> = report.damaged.into_iter().flat_map(|damage| damage.images).collect();
        affected.sort_unstable();
        affected.dedup();
        Ok(ImageVerified { name: info.name, chunks: report.chunks, damaged, affected })
    }))
}

/// Sends an image as it was added, raw.
#[utoipa::path(get, path = "/images/{name}/export", params(("name" = String, Path, description = "The image's name or id")), responses((status = 200, description = "The raw image", body = Vec<u8>, content_type = "application/octet-stream")))]
pub(super) async fn export(Asked(admin): Asked, Path(name): Path<String>) -> Result<Response, Refusal> {
    let name = bounded(name)?;
    let (images, errand) = (admin.images.clone(), admin.errands.place()?);
    let info = blocking(move || images.get(&name)).await?.map_err(|error| refused(&error))?;
    admin.fleet.note(format!("exported the image {}", info.name)).await;
    Ok(written_by(errand, info.size_bytes, move |out| {
        let mut out = out;
        admin.images.export(info.id, &mut out, &mut |_| ()).map_err(Into::into)
    }))
}

/// Removes an image.
///
/// Refused while a job needs it, unless it has another name.
#[utoipa::path(delete, path = "/images/{name}", params(("name" = String, Path, description = "The image's name or id")), responses((status = 200, description = "It is removed", body = ImageRemoved)))]
pub(super) async fn remove(Asked(admin): Asked, Path(name): Path<String>) -> Answered<ImageRemoved> {
    let name = bounded(name)?;
    let no_orders = admin.fleet.keep_orders_out().await?;
    let (images, asked) = (admin.images.clone(), name.clone());
    let info = blocking(move || images.get(&asked)).await?.map_err(|error| refused(&error))?;
    let needed = admin.fleet.needs_image(info.id).await?;
    let gone = name.clone();
    // While the image has another name, its data stays for the jobs that need it.
    let images = admin.images.clone();
    let (id, last) = blocking(move || {
        let names = images.list().iter().filter(|other| other.id == info.id).count();
        let needed = needed.filter(|_| names < 2);
        let removed = images.remove(&name, needed.as_deref()).map_err(|error| refused(&error))?;
        tracing::info!(image = removed.image.name, freed_bytes = removed.freed_bytes, "an image was removed");
        Ok::<_, Refusal>((info.id, names < 2))
    })
    .await??;
    if last {
        admin.fleet.image_gone(id).await?;
    }
    admin.fleet.note(format!("removed the image {gone}")).await;
    drop(no_orders);
    let profiles = admin.fleet.profiles().await?.into_iter();
    let profiles =
        profiles.filter(|profile| profile.wish.image == gone).map(|profile| profile.name).collect();
    Ok(Json(ImageRemoved { profiles }))
}

/// An image as a shape.
#[must_use]
pub(crate) fn shown(info: &ImageInfo) -> ImageShown {
    let added = i64::try_from(info.added_at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let table = match info.partition_table {
        PartitionTable::Gpt => "gpt",
        PartitionTable::Mbr => "mbr",
        PartitionTable::None => "none",
    };
    ImageShown {
        name: info.name.clone(),
        id: info.id,
        added: added.unwrap_or(Timestamp::UNIX_EPOCH),
        bytes: info.size_bytes,
        wire_bytes: info.wire_bytes,
        chunks: info.chunks,
        zero_chunks: info.zero_chunks,
        sector_bytes: info.sector_bytes,
        partition_table: table.to_owned(),
        source: format!("{} ({})", info.source, info.format),
        traits: info.traits.clone(),
        staged: vec![],
        updates: vec![],
    }
}

/// An error of the image store as the body of an error response.
#[must_use]
pub(crate) fn refused(error: &ImageError) -> Refused {
    Refused { error: error.to_string(), cause: causes::behind(error), hint: error.hint() }
}
