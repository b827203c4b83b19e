//! The shared state of the admin's routes, which are served on a Unix socket that only its owner and group can open, and
//! on a TLS port to whoever shows a token. Who asks is found out in `caller`, what a route needs stands in `routes`.
//! Touches nothing itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::errands::{Errands, Streams};
use super::live::LiveStreams;
use super::ops::Ops;
use super::shapes::ServerStatus;
use super::uploads::Uploads;
use super::used::LastUsed;
use crate::boot::BootKits;
use crate::fleet::FleetHandle;
use crate::fleet::token::TokenTable;
use crate::http::blocking;
use crate::http::refusal::Refusal;
use crate::image::Images;
use crate::swarm::SwarmHandle;
use crate::traffic::Traffic;

/// The longest name in a path, in bytes.
const NAME_MAX: usize = 256;

/// What the handlers of the admin's routes share.
#[derive(Clone)]
pub struct Admin {
    /// Machines, orders and the log.
    pub fleet: FleetHandle,
    /// The image store.
    pub images: Images,
    /// Images that are being sent.
    pub uploads: Uploads,
    /// The boot kits, and which of them machines boot.
    pub kits: Arc<BootKits>,
    /// The swarm's status.
    pub swarm: SwarmHandle,
    /// What was sent where, and the limits on lines.
    pub traffic: Traffic,
    /// The server's status, computed anew at each call. Blocks, because it reads the stores.
    pub status: Arc<dyn Fn() -> ServerStatus + Send + Sync>,
    /// The tokens that let somebody in at the TLS port.
    pub tokens: watch::Receiver<Arc<TokenTable>>,
    /// When each token was last used.
    pub used: LastUsed,
    /// The name of a user of this host by its id, for the log.
    pub user_name: Arc<dyn Fn(u32) -> String + Send + Sync>,
    /// Limits the long requests, which are fewer than the connections.
    pub errands: Errands,
    /// Limits the event streams, which last for as long as somebody looks.
    pub streams: Streams,
    /// Backups, metrics and checks.
    pub ops: Ops,
    /// What machines, deployments and swarms do now, for as many readers as `streams` allows.
    pub live: LiveStreams,
    /// Cancelled when the server stops, to end what would go on for ever: followers of the log, stalled uploads.
    pub cancel: CancellationToken,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

/// A JSON response, or an error response.
pub(super) type Answered<T> = Result<Json<T>, Refusal>;

/// A request body that is JSON; a [`Refusal`] in plain words where it is not.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Admin> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Admin) -> Result<Self, Refusal> {
        let unreadable = |status, cause: String| {
            Refusal::new(status, "the request cannot be read")
                .because(cause)
                .hint("client and server are of different versions")
        };
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| unreadable(error.status(), error.body_text()))?;
        // serde would take a list for a shape, field by field: `[null, null]` lifted the server's limit.
        if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err(unreadable(StatusCode::BAD_REQUEST, "its body is no JSON object".to_owned()));
        }
        let read = serde_json::from_slice(&bytes);
        read.map(Self).map_err(|error| unreadable(StatusCode::BAD_REQUEST, error.to_string()))
    }
}

/// The answer to a request of which nothing is left to say: an empty object.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Nothing {}

/// The parts of a path; a [`Refusal`] in plain words where they cannot be read.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Admin> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Admin) -> Result<Self, Refusal> {
        let read = extract::Path::from_request_parts(parts, state).await;
        read.map(|extract::Path(parts)| Self(parts)).map_err(|error| {
            Refusal::new(error.status(), "the request's path cannot be read").because(error.body_text())
        })
    }
}

/// A query; a [`Refusal`] in plain words where it cannot be read.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Admin> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Admin) -> Result<Self, Refusal> {
        let read = extract::Query::from_request_parts(parts, state).await;
        read.map(|extract::Query(query)| Self(query)).map_err(|error| {
            Refusal::new(error.status(), "the request's query cannot be read").because(error.body_text())
        })
    }
}

/// Runs `work`, which reads or writes a disk, on a blocking thread and answers with its result.
pub(super) async fn answered<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Answered<T> {
    blocking(work).await?.map(Json)
}

/// A name from a path; refused when it is longer than [`NAME_MAX`] or has control characters.
pub(super) fn bounded(name: String) -> Result<String, Refusal> {
    if name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "a name that is too long or holds control characters",
        ));
    }
    Ok(name)
}
