//! What tests of the fleet, and `tests/fuzz`, begin with.

// Records that are gone with the process.
#[cfg(test)]
pub(crate) mod memory;

// What every store promises.
#[cfg(test)]
pub(crate) mod suite;

use std::sync::Arc;

use jiff::SignedDuration;

use super::decide::Settings;

/// Settings of a fleet that inspects strangers, with no sites, and nothing that is ever forgotten or expires.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        discover: true,
        poll_seconds: 5,
        confirm_within: SignedDuration::from_mins(15),
        order_expires: None,
        keep_events: None,
        keep_bytes: None,
        reserve_bytes: 0,
        sites: vec![],
        token_key: [3; 32],
        own: Arc::default(),
        url: String::new(),
    }
}
