//! Steps 2 to 6 and 15 over HTTP: what machines fetch and report, on a TCP port that anybody on the network can reach.
//! Also the HTTP server itself, which the admin's routes on their Unix socket share.

// Listeners and connections, with their bounds.
mod server;

// The API's TLS port.
mod tls;

// Core: how many connections each address has.
mod connections;

// A connection whose client reads too slowly is closed.
mod paced;

// A connection's bytes, counted and sent when it is their turn on the site's line.
mod turns;

// Request bodies, and the memory for them.
mod intake;

// Blocking work of handlers.
mod blocking;

// Metrics and checks, for monitoring.
mod health;

// Error responses.
pub mod refusal;

// Responses with files, whole or in part.
pub mod content;

// The files that other modules make and HTTP serves.
mod boot_source;

// The shared state of the machines' routes.
mod public;

// Core: the query of a request.
mod query;

// Routes of step 2: scripts, kernels, loaders, boot programs.
mod boot;

// Routes of small files by hash, and what machines say of neighbours.
mod objects;

// Routes of later steps: reports, events, bundles, calls home.
mod machine;

// Routes of relays: enrolment, and what is new for them.
mod relay;

// Requests that relays pass on for machines.
mod via;

// Core: headers that were sent before.
mod replay;

// Refused reports, in the server's log.
mod complaints;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;

pub(crate) use blocking::blocking;
pub(crate) use boot::as_script;
#[cfg(fuzzing)]
pub use boot::try_query;
pub use boot_source::{BootSource, Stores};
pub use connections::ConnectionBounds;
pub use health::{Check, Watch, details, words};
pub(crate) use intake::Intake;
pub(crate) use query::query_pairs;
pub use server::{AdminBound, Bound, Door, Ends, HttpError, bind, bind_admin};
pub use tls::{ApiBound, bind_api};

use crate::boot::arguments::KernelArguments;
use crate::fleet::FleetHandle;
use crate::peers::Peers;
use public::Public;
use refusal::Refusal;

/// The machines' routes. `kernel_arguments` are given to every loader; `discover` says whether machines are sent one that
/// no admin has named, approved or ordered anything for.
pub fn public(
    fleet: FleetHandle,
    boot_source: Arc<dyn BootSource>,
    kernel_arguments: KernelArguments,
    discover: bool,
    peers: Peers,
) -> Router {
    let public = Arc::new(Public::new(fleet, boot_source, kernel_arguments, discover, peers));
    Router::new()
        .merge(boot::routes())
        .merge(objects::routes())
        .merge(machine::routes())
        .merge(relay::routes())
        .fallback(async || Refusal::absent("there is nothing here"))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "that cannot be done with this")
        })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&public), via::layer))
        .with_state(public)
}

#[cfg(test)]
mod tests;
