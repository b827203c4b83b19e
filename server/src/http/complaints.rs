//! Refused reports, written into the server's own log: the machine's screen shows the refusal, but whoever runs the
//! server would see nothing of it. Rate limited to one line for each address and cause within ten minutes, with bounded
//! memory, because anybody may send as many as they like.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::limits::cut;
use parking_lot::Mutex;

/// The same cause from the same address is not logged again within this time.
const AGAIN: Duration = Duration::from_secs(600);

/// A different cause from the same address is not logged either within this time.
const CAUSES: Duration = Duration::from_secs(1);

/// How many addresses are remembered; beyond that nothing is logged until one expires.
const ADDRESSES_MAX: usize = 256;

/// How many bytes of a cause are kept: it may contain what the sender wrote.
const CAUSE_BYTES_MAX: usize = 300;

/// What was logged within [`AGAIN`]: for each address the last cause, and when.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<HashMap<IpAddr, (String, Instant)>>);

impl Complaints {
    /// Logs that a report from `peer` was refused because of `cause`, if the rate limit allows; returns whether it did.
    pub(super) fn report_refused(&self, peer: IpAddr, cause: &str) -> bool {
        let cause = cut(cause, CAUSE_BYTES_MAX);
        let is_news = self.is_news(peer, cause, Instant::now());
        if is_news {
            // Quoted: a cause may contain what the sender wrote.
            tracing::warn!(%peer, ?cause, "a hardware report was refused, so this machine is not listed");
        }
        is_news
    }

    /// Logs that a request which claims to be passed on by a relay came from `peer` and was refused because of `cause`,
    /// if the rate limit allows; returns whether it did.
    pub(super) fn passed_on_refused(&self, peer: IpAddr, cause: &str) -> bool {
        let cause = cut(cause, CAUSE_BYTES_MAX);
        let is_news = self.is_news(peer, cause, Instant::now());
        if is_news {
            tracing::warn!(%peer, ?cause, "a request that a relay is said to pass on was refused");
        }
        is_news
    }

    fn is_news(&self, peer: IpAddr, cause: &str, now: Instant) -> bool {
        // A panic while the lock is held cannot leave half a change: each is one insert or removal.
        let mut said = self.0.lock();
        said.retain(|_, (_, at)| now.duration_since(*at) < AGAIN);
        // Two alternating causes make one line a second at the most.
        let flood = |at: Instant| now.duration_since(at) < CAUSES;
        if said.get(&peer).is_some_and(|(before, at)| before == cause || flood(*at)) {
            return false;
        }
        if said.len() >= ADDRESSES_MAX && !said.contains_key(&peer) {
            return false;
        }
        said.insert(peer, (cause.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once_for_each_address() {
        let said = Complaints::default();
        let now = Instant::now();
        let peer = |last: u32| IpAddr::from((0x0a00_0000 + last).to_be_bytes());
        assert!(said.is_news(peer(1), "version 2", now));
        assert!(!said.is_news(peer(1), "version 2", now), "once");
        assert!(!said.is_news(peer(1), "too long", now), "a flood of causes");
        assert!(said.is_news(peer(1), "too long", now + CAUSES), "another cause");
        assert!(said.is_news(peer(2), "too long", now), "another machine");
        assert!(said.is_news(peer(1), "too long", now + CAUSES + AGAIN), "after a while again");
        let fresh = Complaints::default();
        let lines = (0..100_000).filter(|&last| fresh.is_news(peer(last), "x", now)).count();
        assert_eq!(lines, ADDRESSES_MAX, "a stranger with many addresses fills neither memory nor log");
    }
}
