//! The files that async-tftp serves, on the loopback only: a request is served only if there is a ticket for the
//! address of the socket that it comes from. Touches nothing but memory.

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

/// Which file is sent to which machine, for one transfer.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    /// The machine's address.
    pub(super) client: IpAddr,
    /// The file's name, for the log.
    pub(super) file: String,
    /// The file's bytes.
    pub(super) bytes: Bytes,
    /// Set when the machine has aborted: the next read fails, which ends the transfer.
    pub(super) aborted: Arc<AtomicBool>,
    /// Cancelled when async-tftp has ended the transfer, successful or not.
    pub(super) done: CancellationToken,
}

/// The tickets, by the address of the transfer's inner socket. The lock is never held across an await.
pub(super) type Tickets = Arc<Mutex<HashMap<SocketAddr, Ticket>>>;

/// The handler of async-tftp: opens the file of a ticket.
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

/// A file that is being read. What async-tftp has read counts as sent: up to one window more than was acknowledged.
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
        // The first block is read before the client has agreed to the size; that alone is only a query for the size.
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
