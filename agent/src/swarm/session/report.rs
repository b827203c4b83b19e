//! Core: the counts for the next speed report to the server. Owns them; touches nothing.

use std::time::Duration;

/// The interval of reports to the server as long as it has asked for no other.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// What was sent and received since the last speed report.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// When the last report was made.
    pub(super) since: Duration,
    /// Bytes sent to peers.
    pub(super) sent: u64,
    /// Time in which a chunk was being sent to a peer, in steps of one tick.
    pub(super) sending: Duration,
    /// Bytes of chunks received from peers.
    pub(super) from_peers: u64,
    /// Bytes of chunks received from the server.
    pub(super) from_server: u64,
}
