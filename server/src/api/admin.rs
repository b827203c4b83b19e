//! What the admin's routes are given and have in common. Whoever reaches them may do anything: they are served on a Unix
//! socket that only its owner and group can open, and nothing of them is ever put on a TCP port. Touches nothing itself.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::errands::Errands;
use super::shapes::ServerStatus;
use crate::boot::BootKits;
use crate::fleet::FleetHandle;
use crate::http::blocking;
use crate::http::refusal::Refusal;
use crate::image::Images;
use crate::swarm::SwarmHandle;

/// The most bytes that a name in a path may have.
const NAME_MAX: usize = 256;

/// What the admin's routes answer from.
#[derive(Clone)]
pub struct Admin {
    /// Machines, orders and the log.
    pub fleet: FleetHandle,
    /// The image store.
    pub images: Images,
    /// The boot kits, and what of them machines are booted with.
    pub kits: Arc<BootKits>,
    /// Who has what, and the limits of the lines.
    pub swarm: SwarmHandle,
    /// What the server says of itself, anew at each call. Blocks: it looks at the stores.
    pub status: Arc<dyn Fn() -> ServerStatus + Send + Sync>,
    /// The places of those who stay long; fewer than there are connections.
    pub errands: Errands,
    /// Ends what would go on for ever when the server stops: followers of the log, stalled uploads.
    pub cancel: CancellationToken,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

/// A whole answer, or why there is none.
pub(super) type Answered<T> = Result<Json<T>, Refusal>;

/// A body that is JSON, with a sentence where it is not.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> axum::extract::FromRequest<Admin> for JsonBody<T> {
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

/// The answer that `work` gives, which reads or writes a disk.
pub(super) async fn answered<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Answered<T> {
    blocking(work).await?.map(Json)
}

/// A name from a path, within reason.
pub(super) fn bounded(name: String) -> Result<String, Refusal> {
    if name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "a name that is too long or holds control characters",
        ));
    }
    Ok(name)
}
