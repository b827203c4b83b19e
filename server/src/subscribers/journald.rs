//! Delivers events to the journal of this host, in its own protocol: one datagram each. No event is long enough to need
//! the protocol's other way, a sealed file in memory. Touches that socket.

use std::path::PathBuf;

use futures::future::BoxFuture;
use tokio::net::UnixDatagram;

use super::form::Item;
use super::message::journald;
use super::outlet::{Outcome, Outlet, PATIENCE};

/// Where systemd's journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal.
pub(super) struct ToJournald {
    socket: PathBuf,
    open: Option<UnixDatagram>,
}

impl ToJournald {
    /// The journal that listens at `socket`.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, open: None }
    }

    async fn send(&mut self, item: &Item) -> std::io::Result<()> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let open = UnixDatagram::unbound()?;
                open.connect(&self.socket)?;
                open
            }
        };
        // Of a journal that was restarted the next try finds the new socket.
        open.send(&journald(item)).await?;
        self.open = Some(open);
        Ok(())
    }
}

impl Outlet for ToJournald {
    fn deliver<'a>(&'a mut self, items: &'a [Item]) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            for (sent, item) in items.iter().enumerate() {
                let cause = match tokio::time::timeout(PATIENCE, self.send(item)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => format!("{}: {error}", self.socket.display()),
                    Err(_) => format!("{}: it takes nothing", self.socket.display()),
                };
                return Outcome::until(sent, cause);
            }
            Outcome::all(items.len())
        })
    }
}
