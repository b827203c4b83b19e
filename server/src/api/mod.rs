//! The admin's interface: the shapes that the command line and the server exchange, the server's routes with what they
//! make of the rooms behind them, and the command line's client. The shapes stand below all rooms, the routes above them.

// What is exchanged; also what `-o json` prints.
pub mod shapes;

// What the routes are given and have in common.
mod admin;

// Each request to its function.
mod routes;

// Boot kits.
mod kits;

// Images.
mod images;

// Machines and orders.
mod fleet;

// The swarm and its lines.
mod swarm;

// The log, page by page and as it goes on.
mod log;

// Long tasks, line by line.
mod tasks;

// The places of admins who stay long.
mod errands;

// The command line's end of the socket.
pub mod client;

pub use admin::Admin;
pub use errands::Errands;
pub use routes::routes;

pub(crate) use images::{refused as image_refused, shown as image_shown};
