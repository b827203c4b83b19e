//! The table of the admin's routes: everything that the command line can request. Touches what the handlers touch.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{delete, get, post};

use super::admin::{Admin, Answered, answered};
use super::shapes::{PREFIX, ServerStatus};
use super::{backup, fleet, images, kits, log, relays, swarm};
use crate::http::refusal::Refusal;
use crate::http::watched;

/// The longest request body, in bytes: an order with user-data and keys fits several times.
const ORDER_BYTES_MAX: usize = 8 << 20;

/// The admin's routes, below [`PREFIX`].
pub fn routes(admin: Admin) -> Router {
    let routes = Router::new()
        .route("/status", get(status))
        .route("/kits", get(kits::list).post(kits::import))
        .route("/kits/{name}", get(kits::show).delete(kits::remove))
        .route("/images", get(images::list).post(images::add))
        .route("/images/{name}", get(images::show).put(images::upload).delete(images::remove))
        .route("/images/{name}/verify", post(images::verify))
        .route("/images/{name}/export", get(images::export))
        .route("/images/{name}/stage", post(relays::stage))
        .route("/machines", get(fleet::machines).post(fleet::command))
        .route("/machines/wake", post(relays::wake))
        .route("/machines/{machine}", get(fleet::machine))
        .route("/relays", get(relays::list).post(relays::invite))
        .route("/relays/{name}", delete(relays::revoke))
        .route("/deployments", get(fleet::deployments).post(fleet::order))
        .route("/deployments/retry", post(fleet::retry))
        .route("/deployments/{id}", get(fleet::deployment))
        .route("/deployments/{id}/cancel", post(fleet::cancel))
        .route("/backup", post(backup::write))
        .route("/freeze", post(fleet::freeze))
        .route("/logs", get(log::logs))
        .route("/swarm", get(swarm::status))
        .route("/swarm/limits", get(swarm::limits).post(swarm::limit));
    Router::new()
        .nest(PREFIX, routes)
        .merge(watched(&admin.ops.watch))
        .fallback(async || {
            Refusal::absent("the server does not know this request")
                .hint("client and server are of different versions")
        })
        .layer(DefaultBodyLimit::max(ORDER_BYTES_MAX))
        .with_state(admin)
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
