//! Core, part of the fleet: the settings for the whole fleet, and what is derived from them alone: the
//! token with which an OS calls home. Touches `common`, `fleet::own`, `fleet::rules`, `traffic`.

use std::sync::Arc;
use std::time::Duration;

use common::id::JobId;
use common::limits::{WAIT_TIME, WAITERS_MAX, WAITERS_PER_ADDRESS};
use jiff::SignedDuration;

use super::super::own::Own;
use super::super::rules::Rules;
use crate::traffic::Sites;

/// Bounds on the requests with which machines wait for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaiterBounds {
    /// Requests that are open at once.
    pub all: usize,
    /// Those of one address.
    pub per_address: usize,
    /// How long each is open.
    pub time: Duration,
}

impl Default for WaiterBounds {
    /// The bounds of a server whose limit on open files allows them.
    fn default() -> Self {
        Self { all: WAITERS_MAX, per_address: WAITERS_PER_ADDRESS, time: WAIT_TIME }
    }
}

/// Settings for the whole fleet, fixed while the server runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether unknown machines get the loader, to report their hardware.
    pub discover: bool,
    /// Seconds after which a waiting machine reports again where it cannot wait with an open request.
    pub poll_seconds: u32,
    /// Bounds on the open requests of waiting machines.
    pub waiters: WaiterBounds,
    /// How long an installed OS may take to call home.
    pub confirm_within: SignedDuration,
    /// How long an order waits for a machine that does not report; `None` is for ever.
    pub order_expires: Option<SignedDuration>,
    /// How long events are kept; `None` is for ever.
    pub keep_events: Option<SignedDuration>,
    /// How many bytes the records may take before their oldest events are deleted; `None` is any number.
    pub keep_bytes: Option<u64>,
    /// Free bytes on the records' disk below which machines that nobody let in are not recorded.
    pub reserve_bytes: u64,
    /// The most machines that one order may write, unless it names a larger number itself.
    pub max_machines: u32,
    /// The rules that give labels to machines.
    pub rules: Rules,
    /// Named sites; a machine in none of them is at a site named after its /24.
    pub sites: Sites,
    /// The secret key that call-home tokens are derived from.
    pub token_key: [u8; 32],
    /// The marks of the machine that the server runs on.
    pub own: Arc<Own>,
    /// Where machines reach the server, such as `http://10.0.0.1:8069`.
    pub url: String,
    /// Where the swarm listens, as multiaddrs: relays are told.
    pub seeds: Vec<String>,
}

impl Settings {
    /// The token with which the OS of this attempt calls home. Derived, so that it is not recorded and a restarted
    /// server still recognises it.
    #[must_use]
    pub fn token(&self, job: JobId, attempt: u32) -> String {
        let key = blake3::derive_key("swarmboot 2026 call-home token 1", &self.token_key);
        let mark = blake3::keyed_hash(&key, format!("{job} {attempt}").as_bytes());
        format!("{job}-{}", hex::encode(&mark.as_bytes()[..16]))
    }
}
