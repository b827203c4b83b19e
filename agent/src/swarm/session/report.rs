//! Core: what the next report to the server is made of. Owns those counts; touches nothing.

use std::time::Duration;

/// What is reported to the server next: all that moved since the last report.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// When the last one was made.
    pub(super) since: Duration,
    /// Bytes that went to peers.
    pub(super) sent: u64,
    /// For how long something was on its way to a peer.
    pub(super) sending: Duration,
    /// Bytes of chunks that came from peers.
    pub(super) from_peers: u64,
    /// Bytes of chunks that came from the server.
    pub(super) from_server: u64,
}
