//! Those who are told of events: webhooks, and exports to the journal, to syslog and into a file. Each follows the log
//! from a cursor of its own that is kept in the records, so that whoever was away for a day gets everything later, in
//! order; what the log has forgotten by then is said as a gap. One that is slow or down holds up nobody. Touches the
//! fleet's handle, and in the outlets sockets and files.
//!
//! At least once: a server that is killed may send the last second again, with the same numbers.

// Core: what can be subscribed, and where to.
mod settings;

// Core: which events a subscriber wants.
mod wants;

// Core: the position of one subscriber in the log, and when it is tried again.
mod follower;

// Core: events as CloudEvents and as lines.
mod form;

// Core: secrets, and signatures by Standard Webhooks.
mod signing;

// Core: an event as a message of syslog (RFC 5424) and of the journal.
mod message;

// What delivers events, and how that may end.
mod outlet;

// One HTTP connection to a webhook's target.
mod connection;

// Delivers to a webhook.
mod webhook;

// Delivers to the journal.
mod journald;

// Delivers to syslog.
mod syslog;

// Delivers into a file.
mod file;

// Opens what is configured: secrets, authorities.
mod open;

// How far each is.
mod handle;

// The tasks.
mod run;

pub use handle::Handle;
pub use open::{SubscriberError, open, refused};
pub use run::{Opened, Stopped};
pub use settings::{BadTarget, Export, Place, Secret, Subscriptions, SyslogTarget, Webhook, WebhookUrl};
pub use wants::{BadWants, Level, Wants};

#[cfg(test)]
mod tests;
