//! The route of backups. Touches what writes them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::admin::{Admin, Query};
use super::tasks::streamed_by;
use crate::http::refusal::Refusal;

/// The query of a backup.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whether the images are part of it.
    #[serde(default = "yes")]
    images: bool,
}

fn yes() -> bool {
    true
}

/// Writes a backup.
///
/// `POST` although it changes nothing: the answer holds the server's keys, so it must not be what a viewer may `GET`.
#[utoipa::path(post, path = "/backup", params(Asked), responses((status = 200, description = "The backup; whoever reads it must see for himself that it is whole", body = Vec<u8>, content_type = "application/octet-stream")))]
pub(super) async fn write(
    State(admin): State<Admin>,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let (write, errand) = (Arc::clone(&admin.ops.backup), admin.errands.place()?);
    tracing::info!(images = asked.images, "a backup was asked for");
    Ok(streamed_by(errand, move |out| write(asked.images, out)))
}
