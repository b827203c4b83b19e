//! The admin's API: the shapes that the command line and the server exchange, the server's routes, and the command
//! line's client. The shapes stand below all other modules, the routes above them.

// Requests and responses; also what `-o json` prints.
pub mod shapes;

// The shared state of the routes.
mod admin;

// When tokens were last used.
mod used;

// Who asks, and what a route needs of them.
mod caller;

// The document of the API, and a page of it.
mod document;

// The table of routes.
mod routes;

// Routes for tokens.
mod tokens;

// Routes for boot kits.
mod kits;

// Routes for images.
mod images;

// Routes for images that are sent in pieces.
mod uploads;

// Routes for profiles.
mod profiles;

// Routes for machines and orders.
mod fleet;

// Routes for the swarm's status and the limits on lines.
mod swarm;

// Routes for relays, staged images and machines to wake.
mod relays;

// The route of the log, page by page and followed.
mod log;

// Pages of lists.
mod pages;

// The route of what happens now.
mod live;

// Long tasks and their progress lines.
mod tasks;

// The limit on long requests.
mod errands;

// The way to a server on another host.
pub mod remote;

// What backups, metrics and checks come from.
mod ops;

// The route of backups.
mod backup;

// The client that the command line uses.
pub mod client;

pub use admin::Admin;
pub use errands::{Errands, Streams};
pub use live::{LiveStreams, LiveTask};
pub use ops::{NoBackup, Ops, WriteBackup};
pub use routes::routes;
pub use uploads::Uploads;
pub use used::LastUsed;

pub(crate) use images::{refused as image_refused, shown as image_shown};
