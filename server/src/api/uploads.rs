//! The admin's routes for images that are sent in pieces: announced, sent piece by piece from where the last one ended, and
//! added when all has come. The offsets work as in the IETF's draft of resumable uploads. Touches the image store.

// What has come of each.
mod held;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use jiff::Timestamp;
use std::sync::Arc;

use super::admin::{Admin, Answered, JsonBody, Nothing, Path, bounded};
use super::caller::Asked;
use super::images::add_to;
use super::shapes::{Caller, ImageShown, PREFIX, TaskLine, UploadEnd, UploadOrder, UploadShown};
use super::tasks::{ProgressSender, task};
use crate::http::blocking;
use crate::http::refusal::Refusal;
use crate::image::{AddSpec, ImageSource};
use held::{NotTaken, Upload};

pub use held::Uploads;

/// Where a piece begins, and how much has come.
const OFFSET: &str = "upload-offset";

/// Announces an image that is sent in pieces.
///
/// Its path is in `Location`; `PATCH` there sends a piece, and a line that broke is gone on with from `offset`. It is
/// kept for a day after its last piece, and not over a restart of the server.
#[utoipa::path(post, path = "/uploads", request_body = UploadOrder, responses((status = 200, description = "The upload, of which nothing has come", body = UploadShown)))]
pub(super) async fn open(
    Asked(admin): Asked,
    Extension(caller): Extension<Arc<Caller>>,
    JsonBody(order): JsonBody<UploadOrder>,
) -> Result<Response, Refusal> {
    let order = UploadOrder { name: bounded(order.name)?, ..order };
    let upload = blocking(move || {
        admin.images.check_name(&order.name).map_err(|error| super::images::refused(&error))?;
        let file = admin.images.scratch().map_err(|error| refused(&error.into()))?;
        admin.uploads.open(&caller.who, order, file, Timestamp::now()).map_err(|error| refused(&error))
    })
    .await??;
    let shown = upload.shown();
    let place = HeaderValue::try_from(format!("{PREFIX}/uploads/{}", shown.id));
    let mut answer = with_offset(shown);
    if let Ok(place) = place {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    Ok(answer)
}

/// Lists your uploads.
#[utoipa::path(get, path = "/uploads", responses((status = 200, description = "The uploads of whoever asks", body = Vec<UploadShown>)))]
pub(super) async fn list(
    Asked(admin): Asked,
    Extension(caller): Extension<Arc<Caller>>,
) -> Answered<Vec<UploadShown>> {
    Ok(Json(admin.uploads.of(&caller.who).iter().map(|upload| upload.shown()).collect()))
}

/// Says how much of an upload has come.
///
/// A request that still sends a piece is ended, because its line may be dead. `HEAD` has the same in `Upload-Offset`.
#[utoipa::path(get, path = "/uploads/{id}", params(("id" = String, Path, description = "The upload's id")), responses((status = 200, description = "The upload; also in the header `Upload-Offset`", body = UploadShown)))]
pub(super) async fn show(
    Asked(admin): Asked,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let upload = found(&admin, &caller, &id)?;
    upload.turn().await.map(drop).map_err(|error| refused(&error))?;
    Ok(with_offset(upload.shown()))
}

/// Sends a piece of an image, which begins where the last one ended.
#[utoipa::path(patch, path = "/uploads/{id}", params(("id" = String, Path, description = "The upload's id"), ("Upload-Offset" = u64, Header, description = "Where the piece begins")), request_body(content = Vec<u8>, content_type = "application/partial-upload", description = "The piece"), responses((status = 200, description = "How much has come now; also in the header `Upload-Offset`", body = UploadShown)))]
pub(super) async fn append(
    Asked(admin): Asked,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let upload = found(&admin, &caller, &id)?;
    let number = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let from = number(OFFSET).ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, "the header `Upload-Offset` holds no number")
            .hint("it says where the piece begins: `GET` of the upload has it in `offset`")
    })?;
    let _errand = admin.errands.place()?;
    let piece = (from, number(header::CONTENT_LENGTH.as_str()));
    let taken = upload.append(piece, body, &admin.cancel).await;
    taken.map_err(|error| refused(&error))?;
    Ok(with_offset(upload.shown()))
}

/// Gives an upload up.
#[utoipa::path(delete, path = "/uploads/{id}", params(("id" = String, Path, description = "The upload's id")), responses((status = 200, description = "It is gone", body = Nothing)))]
pub(super) async fn give_up(
    Asked(admin): Asked,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Answered<Nothing> {
    let upload = found(&admin, &caller, &id)?;
    drop(upload.turn().await.map_err(|error| refused(&error))?);
    admin.uploads.remove(&upload);
    Ok(Json(Nothing {}))
}

/// Adds the image that was sent in pieces, and ends the upload.
///
/// Refused where what came is not what was sent. While it is being added, another such request is answered with 409.
#[utoipa::path(post, path = "/uploads/{id}/image", params(("id" = String, Path, description = "The upload's id")), request_body = UploadEnd, responses((status = 200, description = "JSON lines: progress and notes, and at last the image or the failure", body = TaskLine<ImageShown>, content_type = "application/x-ndjson")))]
pub(super) async fn finish(
    Asked(admin): Asked,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    JsonBody(end): JsonBody<UploadEnd>,
) -> Result<Response, Refusal> {
    let upload = found(&admin, &caller, &id)?;
    let errand = admin.errands.place()?;
    let (turn, _) = upload.turn().await.map_err(|error| refused(&error))?;
    let (bytes, blake3) = upload.whole();
    if bytes < end.bytes {
        let error = format!("{bytes} bytes have come of {}", end.bytes);
        return Err(Refusal::new(StatusCode::CONFLICT, error).hint("send the rest first"));
    }
    if (bytes, blake3) != (end.bytes, end.blake3) {
        admin.uploads.remove(&upload);
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "what came is not what was sent")
            .because(format!("{bytes} bytes with the hash {blake3} came"))
            .hint("did the file change meanwhile? send it again"));
    }
    Ok(task(errand, move |sender: &mut ProgressSender<ImageShown>| {
        let _turn = turn;
        let order = upload.order.clone();
        let name = "standard input".to_owned();
        let source = ImageSource::Stream { reader: Box::new(upload.reader()), name, length: Some(bytes) };
        let sector_size = order.sector_bytes;
        let spec = AddSpec { name: order.name, source, sector_size, no_table: order.no_table };
        let added = add_to(&admin, spec, sender);
        admin.uploads.remove(&upload);
        added
    }))
}

fn found(admin: &Admin, caller: &Caller, id: &str) -> Result<Arc<Upload>, Refusal> {
    admin.uploads.get(id, &caller.who).ok_or_else(gone)
}

fn gone() -> Refusal {
    Refusal::absent("there is no such upload of yours").hint(
        "one that nobody goes on with is removed after a day, and by a restart of the server: begin again",
    )
}

fn with_offset(shown: UploadShown) -> Response {
    let offset = HeaderValue::from(shown.offset);
    let mut answer = Json(shown).into_response();
    answer.headers_mut().insert(OFFSET, offset);
    answer
}

fn refused(error: &NotTaken) -> Refusal {
    let (status, hint) = match error {
        NotTaken::Many => (
            StatusCode::SERVICE_UNAVAILABLE,
            "end one of the others, or give it up with `DELETE /api/v1/uploads/ID`",
        ),
        NotTaken::Long(_) => (StatusCode::PAYLOAD_TOO_LARGE, "announce how many bytes come"),
        NotTaken::Space { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "remove images that nobody needs, or send it compressed")
        }
        NotTaken::Gone => return gone(),
        NotTaken::Busy => (StatusCode::CONFLICT, "wait until it has ended"),
        NotTaken::Place { .. } | NotTaken::Broke(_) => {
            (StatusCode::CONFLICT, "`GET` the upload, and go on from its `offset`")
        }
        NotTaken::Unwritten(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "look whether the server's disk is full or failing")
        }
    };
    let refusal = Refusal::new(status, format!("the image is not taken: {error}")).hint(hint);
    match std::error::Error::source(error) {
        Some(cause) => refusal.because(cause),
        None => refusal,
    }
}
