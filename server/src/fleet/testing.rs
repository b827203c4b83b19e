//! Fixtures for tests of the fleet and for `tests/fuzz`.

// A store in memory, for tests that need no database.
#[cfg(test)]
pub(crate) mod memory;

// A provisioner that has nothing.
#[cfg(test)]
pub(crate) mod nothing;

// The tests that every store has to pass.
#[cfg(test)]
pub(crate) mod suite;

use std::sync::Arc;

use jiff::SignedDuration;

use super::decide::{Settings, WaiterBounds};
use super::rules::Rules;
use crate::traffic::Sites;

/// Settings with discovery, without sites, and with nothing that is ever deleted or expires.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        discover: true,
        poll_seconds: 5,
        waiters: WaiterBounds::default(),
        confirm_within: SignedDuration::from_mins(15),
        order_expires: None,
        keep_events: None,
        keep_bytes: None,
        reserve_bytes: 0,
        rules: Rules::default(),
        max_machines: u32::MAX,
        sites: Sites::default(),
        token_key: [3; 32],
        own: Arc::default(),
        url: String::new(),
        seeds: vec![],
    }
}
