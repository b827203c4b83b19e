//! Steps 2 to 6 and 15 over HTTP: what machines fetch and report, on a TCP port that anybody on the network can reach; and
//! what serves connections, which the admin's routes on their Unix socket share.

// Connections, and the bounds on them.
mod server;

// Core: how many connections each address has.
mod connections;

// Who takes its answers too slowly is let go.
mod paced;

// Bodies that come in, and the room for them.
mod intake;

// Work that may block.
mod blocking;

// Errors as they go out.
pub mod refusal;

// Whole files, parts of files.
pub mod content;

// What is given out and made elsewhere.
mod boot_source;

// Scripts, kernels, loaders, boot programs.
mod boot;

// Reports, events, bundles, calls home.
mod machine;

// Refused reports, in the server's log.
mod complaints;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use common::limits::BODIES_PARSED_MAX;
use tokio::sync::Semaphore;

pub(crate) use blocking::blocking;
#[cfg(fuzzing)]
pub use boot::try_query;
pub use boot_source::{BootSource, Stores};
pub use connections::ConnectionBounds;
pub use server::{AdminBound, Bound, Ends, HttpError, bind, bind_admin};

use crate::boot::arguments::KernelArguments;
use crate::fleet::FleetHandle;
use intake::Intake;
use refusal::Refusal;

/// What the machines' routes need.
pub struct Public {
    fleet: FleetHandle,
    boot_source: Arc<dyn BootSource>,
    kernel_arguments: KernelArguments,
    discover: bool,
    intake: Arc<Intake>,
    parsers: Semaphore,
    complaints: complaints::Complaints,
}

impl std::fmt::Debug for Public {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Public").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

/// The machines' routes. `kernel_arguments` go to every loader; `discover` says whether machines that were
/// never seen are given one.
pub fn public(
    fleet: FleetHandle,
    boot_source: Arc<dyn BootSource>,
    kernel_arguments: KernelArguments,
    discover: bool,
) -> Router {
    let public = Arc::new(Public {
        fleet,
        boot_source,
        kernel_arguments,
        discover,
        intake: Arc::default(),
        parsers: Semaphore::new(BODIES_PARSED_MAX),
        complaints: complaints::Complaints::default(),
    });
    Router::new()
        .merge(boot::routes())
        .merge(machine::routes())
        .fallback(async || Refusal::absent("there is nothing here"))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "that cannot be done with this")
        })
        .with_state(public)
}

impl Public {
    /// Asks the boot source, which may read a disk.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn BootSource) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let boot_source = Arc::clone(&self.boot_source);
        blocking(move || ask(&*boot_source)).await
    }
}

#[cfg(test)]
mod tests;
