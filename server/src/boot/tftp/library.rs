//! The files behind async-tftp, which listens on the loopback only: whoever asks there must have a ticket, made out to
//! the socket that it asks from. Touches nothing but memory.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_tftp::packet::Error as Refused;
use async_tftp::server::Handler;
use bytes::{Buf, Bytes};
use futures::io::{AsyncRead, Sink};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fleet::boot_policy::Sighting;

/// What is to be sent, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    /// The machine.
    pub(super) client: IpAddr,
    /// The file's name.
    pub(super) file: String,
    /// What is in it.
    pub(super) bytes: Bytes,
    /// Set when the machine wants no more of it: the next read fails, which ends the transfer.
    pub(super) aborted: Arc<AtomicBool>,
    /// Cancelled when async-tftp is done with it, whatever came of it.
    pub(super) done: CancellationToken,
}

/// The tickets that are out. Locked only to look and to change, never across an await.
pub(super) type Tickets = Arc<Mutex<HashMap<SocketAddr, Ticket>>>;

/// Opens what there are tickets for.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) tickets: Tickets,
    pub(super) sightings: mpsc::Sender<Sighting>,
}

impl Handler for Library {
    type Reader = Reader;
    type Writer = Sink;

    async fn read_req_open(&mut self, asks: &SocketAddr, _: &Path) -> Result<(Reader, Option<u64>), Refused> {
        let tickets = self.tickets.lock();
        let ticket = tickets.get(asks).cloned().ok_or(Refused::PermissionDenied)?;
        drop(tickets);
        let size = ticket.bytes.len();
        let reader = Reader {
            _done: ticket.done.drop_guard(),
            client: ticket.client,
            file: ticket.file,
            size,
            rest: ticket.bytes,
            reads: 0,
            aborted: ticket.aborted,
            sightings: self.sightings.clone(),
        };
        Ok((reader, Some(size as u64)))
    }

    async fn write_req_open(
        &mut self,
        _asks: &SocketAddr,
        _path: &Path,
        _size: Option<u64>,
    ) -> Result<Sink, Refused> {
        Err(Refused::PermissionDenied)
    }
}

/// A file on its way. What async-tftp has read counts as sent: up to one window more than was acknowledged.
#[derive(Debug)]
pub(super) struct Reader {
    _done: DropGuard,
    client: IpAddr,
    file: String,
    size: usize,
    rest: Bytes,
    reads: u32,
    aborted: Arc<AtomicBool>,
    sightings: mpsc::Sender<Sighting>,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.aborted.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let length = into.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut into[..length]);
        self.reads = self.reads.saturating_add(1);
        Poll::Ready(Ok(length))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The first block is read before the client has agreed to the size: a question, not a transfer.
        if self.reads <= 1 {
            return;
        }
        let sent = self.size - self.rest.len();
        let sighting = Sighting::BootProgram {
            address: self.client,
            file: std::mem::take(&mut self.file),
            over: "tftp",
            bytes: sent as u64,
            whole: self.rest.is_empty(),
        };
        if self.sightings.try_send(sighting).is_err() {
            tracing::debug!("a finished TFTP transfer could not be logged");
        }
    }
}
