//! The table of the API's routes: everything that the command line can request, each with what it needs of whoever asks.
//! Touches what the handlers touch.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use axum::{Extension, Json, Router};
use utoipa::OpenApi;

use super::admin::{Admin, Answered, answered};
use super::caller::{Asked, Need, guard, identify};
use super::document::{Row, of};
use super::shapes::{Caller, PREFIX, Role, ServerStatus};
use super::{backup, fleet, images, kits, log, profiles, relays, swarm, tokens, uploads};
use crate::http::refusal::{Problem, Refusal, as_problem};
use crate::http::{details, words};

/// The longest request body, in bytes: an order with user-data and keys fits several times.
const ORDER_BYTES_MAX: usize = 8 << 20;

/// Looks at what is in its scope.
const LOOK: Need = Need::part(Role::Viewer);
/// Looks at what is about the whole server.
const LOOK_AT_ALL: Need = Need::whole(Role::Viewer);
/// Orders and changes machines of its scope.
const ORDER: Need = Need::part(Role::Operator);
/// Orders what is about all machines.
const ORDER_FOR_ALL: Need = Need::whole(Role::Operator);
/// Changes the server.
const RULE: Need = Need::whole(Role::Admin);

/// Makes of the table what runs, and what is written in the document of the API.
macro_rules! table {
    ($(($need:ident, $path:literal, $method:ident($($handler:ident)::+))),+ $(,)?) => {
        /// What each route needs, where it is, and who handles it.
        fn table() -> Vec<(Need, &'static str, MethodRouter<Admin>)> {
            vec![$(($need, $path, $method($($handler)::+))),+]
        }

        /// The same for the document.
        pub(super) const ROWS: &[Row] = &[$(Row { need: $need, method: stringify!($method), path: $path }),+];

        #[derive(OpenApi)]
        #[openapi(paths($($($handler)::+),+), components(schemas(Problem)))]
        struct Described;

        /// The document of the API.
        pub(super) fn document() -> utoipa::openapi::OpenApi {
            of(Described::openapi(), ROWS)
        }
    };
}

// A further route is a line here, and above its handler the attribute `#[utoipa::path(…)]` with the same method and path,
// its parameters, its body and what it answers with; the first line of the handler's comment is what people read. What it
// needs of whoever asks, its errors and its name in the document come from this table. Shapes derive `ToSchema`, queries
// `IntoParams`. Without the attribute it does not compile; the tests of `document.rs` find an attribute that differs.
table![
    (LOOK, "/whoami", get(tokens::whoami)),
    (RULE, "/tokens", get(tokens::list)),
    (RULE, "/tokens", post(tokens::make)),
    (RULE, "/tokens/{name}", delete(tokens::revoke)),
    (LOOK, "/status", get(status)),
    (LOOK, "/kits", get(kits::list)),
    (RULE, "/kits", post(kits::import)),
    (LOOK, "/kits/{name}", get(kits::show)),
    (RULE, "/kits/{name}", delete(kits::remove)),
    (LOOK, "/images", get(images::list)),
    (RULE, "/images", post(images::add)),
    (LOOK, "/images/{name}", get(images::show)),
    (RULE, "/images/{name}", put(images::upload)),
    (RULE, "/images/{name}", delete(images::remove)),
    (ORDER_FOR_ALL, "/images/{name}/verify", post(images::verify)),
    // An image may hold what its maker would not show everybody.
    (RULE, "/images/{name}/export", get(images::export)),
    (ORDER_FOR_ALL, "/images/{name}/stage", post(relays::stage)),
    (RULE, "/uploads", get(uploads::list)),
    (RULE, "/uploads", post(uploads::open)),
    (RULE, "/uploads/{id}", get(uploads::show)),
    (RULE, "/uploads/{id}", patch(uploads::append)),
    (RULE, "/uploads/{id}", delete(uploads::give_up)),
    (RULE, "/uploads/{id}/image", post(uploads::finish)),
    (LOOK, "/machines", get(fleet::machines)),
    (ORDER, "/machines", post(fleet::command)),
    (LOOK, "/machines/nobody", get(fleet::nobody)),
    (LOOK, "/machines/count", get(fleet::count)),
    (ORDER, "/machines/wake", post(relays::wake)),
    (LOOK, "/machines/{machine}", get(fleet::machine)),
    (LOOK_AT_ALL, "/relays", get(relays::list)),
    (RULE, "/relays", post(relays::invite)),
    (RULE, "/relays/{name}", delete(relays::revoke)),
    (LOOK, "/profiles", get(profiles::list)),
    // Its hooks run as root on whatever machine somebody orders by it: who may order for all of them may add it. A
    // scope would not hold: others order by the same name.
    (ORDER_FOR_ALL, "/profiles", post(profiles::add)),
    (LOOK, "/profiles/{name}", get(profiles::show)),
    (ORDER_FOR_ALL, "/profiles/{name}", delete(profiles::remove)),
    (LOOK, "/deployments", get(fleet::deployments)),
    (ORDER, "/deployments", post(fleet::order)),
    (ORDER, "/deployments/retry", post(fleet::retry)),
    (LOOK, "/deployments/{id}", get(fleet::deployment)),
    (ORDER, "/deployments/{id}/pause", post(fleet::pause)),
    (ORDER, "/deployments/{id}/cancel", post(fleet::cancel)),
    // A backup holds the server's keys.
    (RULE, "/backup", post(backup::write)),
    (ORDER_FOR_ALL, "/freeze", post(fleet::freeze)),
    (LOOK, "/logs", get(log::logs)),
    (LOOK, "/events", get(log::events)),
    (LOOK, "/live", get(fleet::live)),
    (LOOK_AT_ALL, "/swarm", get(swarm::status)),
    (LOOK_AT_ALL, "/swarm/{image}", get(swarm::detail)),
    (LOOK_AT_ALL, "/swarm/limits", get(swarm::limits)),
    (RULE, "/swarm/limits", post(swarm::limit)),
];

/// The API's routes, below [`PREFIX`].
pub fn routes(admin: Admin) -> Router {
    let routes = table().into_iter().fold(Router::new(), |router, (need, path, handler)| {
        router.route(path, handler.route_layer(from_fn_with_state(need, guard)))
    });
    Router::new()
        .nest(PREFIX, routes)
        .merge(details(&admin.ops.watch).route_layer(from_fn_with_state(LOOK_AT_ALL, guard)))
        .fallback(async || {
            Refusal::absent("the server does not know this request")
                .hint("client and server are of different versions")
        })
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "that cannot be done with this")
        })
        .layer(DefaultBodyLimit::max(ORDER_BYTES_MAX))
        .layer(from_fn_with_state(admin.clone(), identify))
        .layer(map_response(as_problem))
        .with_state(admin.clone())
        // One word each, for whatever watches over servers.
        .merge(words(&admin.ops.watch))
        // Anybody may load these: they hold nothing, and the page asks for a token.
        .merge(crate::dashboard::routes())
        .merge(super::document::routes(document))
        .merge(crate::docs::routes())
}

/// Shows the server itself, without its machines.
#[utoipa::path(get, path = "/status", responses((status = 200, description = "The server's status", body = ServerStatus)))]
async fn status(Asked(admin): Asked, Extension(caller): Extension<Arc<Caller>>) -> Answered<ServerStatus> {
    let (status, notes) = (Arc::clone(&admin.status), admin.fleet.notes().await?);
    let (frozen, warnings) = (admin.fleet.frozen().await?, admin.fleet.warnings().await?);
    let Json(mut status) = answered(move || Ok(ServerStatus { frozen, ..status() })).await?;
    status.warnings.extend(warnings.into_iter().chain(notes));
    // Where events of the whole server go to is none of theirs.
    if !caller.scope.is_everything() {
        status.subscribers.clear();
    }
    Ok(Json(status))
}
