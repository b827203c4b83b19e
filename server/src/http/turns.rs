//! The turns of one connection's bytes on the lines to its site, and their counts. Below the responses, so that no route
//! can forget it: what a request is for is known from its path. Touches the site's line.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::wire::http::{BUNDLE, DELTAS, DRIVER, MANIFEST};
use common::wire::objects::OBJECT;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::traffic::{Kind, SiteLine};

/// What the bytes that a connection sends are for; changed with each request.
#[derive(Debug, Clone)]
pub(super) struct Sending(Arc<Mutex<Kind>>);

impl Default for Sending {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Kind::Answers)))
    }
}

impl Sending {
    /// From now on the connection sends the response to a request for `path`. Of a client that does not wait for one
    /// response before it sends the next request, the end of the first is counted as the second.
    pub(super) fn answers(&self, path: &str) {
        *self.0.lock() = kind_of(path);
    }

    fn kind(&self) -> Kind {
        *self.0.lock()
    }
}

/// What the response to a request for `path` is. A route with large responses has its line here: everything else goes
/// before boot files.
fn kind_of(path: &str) -> Kind {
    let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    match path {
        _ if below("/boot") || below("/nbp") || below(OBJECT) || below(DRIVER) => Kind::BootFiles,
        _ if below(BUNDLE) => Kind::Bundle,
        _ if below(MANIFEST) || below(DELTAS) => Kind::Manifest,
        _ => Kind::Answers,
    }
}

/// One connection's turns.
pub(super) struct Turns {
    line: SiteLine,
    sending: Sending,
    /// Bytes whose turn has come and that are not written yet.
    granted: usize,
    waiting: Option<Waiting>,
}

struct Waiting {
    turn: Pin<Box<dyn Future<Output = ()> + Send>>,
    bytes: usize,
    since: Instant,
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns")
            .field("line", &self.line)
            .field("granted", &self.granted)
            .finish_non_exhaustive()
    }
}

impl Turns {
    pub(super) fn new(line: SiteLine, sending: Sending) -> Self {
        Self { line, sending, granted: 0, waiting: None }
    }

    /// How many of `wanted` bytes may be written now, at least one, and for how long the line was waited for.
    pub(super) fn poll_turn(&mut self, wanted: usize, context: &mut Context<'_>) -> Poll<(usize, Duration)> {
        let mut waited = Duration::ZERO;
        if self.granted == 0 {
            let piece = self.line.piece();
            if self.waiting.is_none() && (piece == usize::MAX || wanted == 0) {
                return Poll::Ready((wanted, waited));
            }
            let (line, kind, bytes) = (&self.line, self.sending.kind(), wanted.min(piece));
            let waiting = self.waiting.get_or_insert_with(|| {
                let line = line.clone();
                let turn = Box::pin(async move { line.pass(kind, bytes).await });
                Waiting { turn, bytes, since: Instant::now() }
            });
            ready!(waiting.turn.as_mut().poll(context));
            (self.granted, waited) = (waiting.bytes, waiting.since.elapsed());
            self.waiting = None;
        }
        Poll::Ready((wanted.min(self.granted), waited))
    }

    /// Counts bytes that were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.granted = self.granted.saturating_sub(bytes);
        self.line.sent(self.sending.kind(), bytes);
    }

    /// Counts bytes that were read.
    pub(super) fn read(&self, bytes: usize) {
        self.line.received(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_sent() {
        let table = [
            ("/boot/6.1/vmlinuz", Kind::BootFiles),
            ("/nbp/snponly.efi", Kind::BootFiles),
            ("/v1/object/00", Kind::BootFiles),
            ("/v1/driver/00", Kind::BootFiles),
            ("/boot.ipxe", Kind::Answers),
            ("/v1/bundle/00", Kind::Bundle),
            ("/v1/manifest/00", Kind::Manifest),
            ("/v1/deltas/00", Kind::Manifest),
            ("/v1/report", Kind::Answers),
            ("/v1/bundles", Kind::Answers),
            ("", Kind::Answers),
        ];
        for (path, kind) in table {
            assert_eq!(kind_of(path), kind, "{path}");
        }
    }
}
