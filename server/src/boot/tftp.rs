//! Boot programs over TFTP, from memory: a fixed map, never a path. Touches one socket.
//!
//! async-tftp 0.4.2 has faults that are contained here (all tried): without limits one client can make it
//! buffer gigabytes; a client's timeout of a second turns 1 % loss into a minute; an aborted transfer (every
//! PXE ROM asks for the size first, then aborts) is repeated until its retries end and the same port is deaf
//! meanwhile, so retries end after 5 seconds; the handler is behind a lock while a file opens, so opening only
//! looks into a map; a server on 0.0.0.0 answers from the wrong address, so this one is bound to one address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_tftp::packet::Error as Refusal;
use async_tftp::server::{Handler, TftpServer, TftpServerBuilder};
use bytes::{Buf, Bytes};
use futures::io::{AsyncRead, Sink};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::fleet::standing::Sighting;

/// Above it, fragments: boot ROMs cannot put them together. iPXE asks for 1,432 at most; 1,428 also passes
/// common tunnels.
const BLOCK_BYTES_MAX: u16 = 1428;
/// EDK2 asks for 4. Sixteen hide a lost packet's wait without bursts that fill a switch's buffers.
const WINDOW_MAX: u16 = 16;
const TIMEOUT: Duration = Duration::from_millis(250);
/// Times the timeout: 5 s, after which an aborted transfer's port is heard again.
const RETRIES: u32 = 20;
/// A room full of machines after a power cut, each with a leftover of an aborted transfer.
const TRANSFERS_MAX: usize = 4096;
/// A ROM has one transfer and one leftover; behind a router with address translation there are more machines.
const TRANSFERS_PER_CLIENT_MAX: usize = 64;

/// The files that are served, by name; another map replaces the whole when a boot kit is imported.
pub type Files = Arc<HashMap<String, Bytes>>;

/// Why TFTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TftpError {
    /// The port cannot be had.
    #[error("UDP port {} cannot be opened on {}", .at.port(), .at.ip())]
    Bind {
        /// Where.
        at: SocketAddrV4,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server could not be made of the socket, or its socket failed.
    #[error("the TFTP server failed")]
    Serve(#[source] async_tftp::Error),
}

impl TftpError {
    /// What an admin can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Bind { source, at } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("another TFTP server has it, stop it; see: ss -lunp 'sport = :{}'", at.port())
                }
                io::ErrorKind::PermissionDenied => {
                    "run as root, or give the program CAP_NET_BIND_SERVICE".to_owned()
                }
                _ => "see the cause".to_owned(),
            },
            Self::Serve(_) => "was the interface's address taken away?".to_owned(),
        }
    }
}

/// A socket that is bound, and nothing more yet.
#[derive(Debug)]
pub struct Bound {
    socket: UdpSocket,
}

/// Opens port 69 at the interface's `address`.
///
/// # Errors
///
/// When the port cannot be had; see [`TftpError::hint`].
pub fn bind(address: Ipv4Addr) -> Result<Bound, TftpError> {
    bind_at(SocketAddrV4::new(address, 69))
}

fn bind_at(at: SocketAddrV4) -> Result<Bound, TftpError> {
    UdpSocket::bind(at).map(|socket| Bound { socket }).map_err(|source| TftpError::Bind { at, source })
}

impl Bound {
    /// Serves `files` until `cancel`; transfers under way end with it. Every transfer that got beyond its first
    /// block is reported when it ends.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub async fn run(
        self,
        files: watch::Receiver<Files>,
        sightings: mpsc::Sender<Sighting>,
        cancel: CancellationToken,
    ) -> Result<(), TftpError> {
        let server = build(self.socket, Shelf::new(files, sightings)).await.map_err(TftpError::Serve)?;
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            ended = server.serve() => ended.map_err(TftpError::Serve),
        }
    }
}

async fn build(socket: UdpSocket, shelf: Shelf) -> Result<TftpServer<Shelf>, async_tftp::Error> {
    TftpServerBuilder::with_handler(shelf)
        .std_socket(socket)?
        .block_size_limit(BLOCK_BYTES_MAX)
        .window_size_limit(WINDOW_MAX)
        .timeout(TIMEOUT)
        .ignore_client_timeout()
        .max_send_retries(RETRIES)
        .build()
        .await
}

/// How many transfers each client has. Locked only to count, never across an await.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// The files, and who is fetching some.
struct Shelf {
    files: watch::Receiver<Files>,
    counts: Counts,
    sightings: mpsc::Sender<Sighting>,
}

impl Shelf {
    fn new(files: watch::Receiver<Files>, sightings: mpsc::Sender<Sighting>) -> Self {
        Self { files, counts: Counts::default(), sightings }
    }

    /// Finds a file as firmware names it: with a leading slash, with backslashes, in capitals, or in a folder
    /// that another program's own path put before it (iPXE looks for `autoexec.ipxe` beside itself).
    fn find(&self, path: &str) -> Option<(String, Bytes)> {
        let path = path.replace('\\', "/");
        let path = path.trim_start_matches('/');
        let files = self.files.borrow();
        let named = |wanted: &str| {
            let found = files.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
            Some((found.0.clone(), found.1.clone()))
        };
        named(path).or_else(|| named(path.rsplit('/').next()?))
    }

    fn open(&self, client: SocketAddr, path: &str) -> Result<Reader, Refusal> {
        let (name, bytes) = self.find(path).ok_or(Refusal::FileNotFound)?;
        let slot = Slot::take(&self.counts, client.ip())?;
        Ok(Reader {
            _slot: slot,
            client: client.ip(),
            file: name,
            size: bytes.len(),
            rest: bytes,
            reads: 0,
            sightings: self.sightings.clone(),
        })
    }
}

impl Handler for Shelf {
    type Reader = Reader;
    type Writer = Sink;

    async fn read_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
    ) -> Result<(Reader, Option<u64>), Refusal> {
        let path = path.to_str().ok_or(Refusal::FileNotFound)?;
        let reader = self.open(*client, path).inspect_err(|error| {
            tracing::debug!(%client, path, ?error, "a TFTP request was refused");
        })?;
        let size = reader.size as u64;
        Ok((reader, Some(size)))
    }

    async fn write_req_open(
        &mut self,
        _client: &SocketAddr,
        _path: &Path,
        _size: Option<u64>,
    ) -> Result<Sink, Refusal> {
        Err(Refusal::PermissionDenied)
    }
}

/// One of the transfers that may run at once.
struct Slot {
    counts: Counts,
    client: IpAddr,
}

impl Slot {
    fn take(counts: &Counts, client: IpAddr) -> Result<Self, Refusal> {
        let mut running = counts.lock().unwrap_or_else(PoisonError::into_inner);
        // Only clients with a transfer are in the map, so the sum over it is bounded as well.
        let busy = running.values().sum::<usize>() >= TRANSFERS_MAX
            || running.get(&client).is_some_and(|own| *own >= TRANSFERS_PER_CLIENT_MAX);
        if busy {
            return Err(Refusal::Msg("too many transfers, try again".to_owned()));
        }
        *running.entry(client).or_default() += 1;
        Ok(Self { counts: Arc::clone(counts), client })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut running = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = running.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                running.remove(&self.client);
            }
        }
    }
}

/// A file on its way. What async-tftp has read counts as sent: up to one window more than was acknowledged.
struct Reader {
    _slot: Slot,
    client: IpAddr,
    file: String,
    size: usize,
    rest: Bytes,
    reads: u32,
    sightings: mpsc::Sender<Sighting>,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        let program: Bytes = (0..50_000_u32).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        Arc::new(HashMap::from([
            ("snponly.efi".to_owned(), program),
            ("autoexec.ipxe".to_owned(), Bytes::from_static(b"#!ipxe\n")),
        ]))
    }

    fn shelf() -> (Shelf, mpsc::Receiver<Sighting>) {
        let (sightings, seen) = mpsc::channel(8);
        (Shelf::new(watch::channel(files()).1, sightings), seen)
    }

    fn client(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 2070))
    }

    #[test]
    fn a_file_is_found_as_firmware_names_it() {
        let (shelf, _seen) = shelf();
        for name in ["snponly.efi", "/snponly.efi", "\\SNPONLY.EFI", "boot\\snponly.efi", "//a/b/Snponly.efi"]
        {
            assert_eq!(shelf.find(name).unwrap().0, "snponly.efi", "{name}");
        }
        for name in ["", "/", "..", "../../etc/passwd", "snponly.efi/", "snponly"] {
            assert!(shelf.find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn transfers_are_capped_for_each_client_and_counted_down() {
        let (shelf, _seen) = shelf();
        let mut open: Vec<_> =
            (0..TRANSFERS_PER_CLIENT_MAX).map(|_| shelf.open(client(1), "snponly.efi").unwrap()).collect();
        assert!(matches!(shelf.open(client(1), "snponly.efi"), Err(Refusal::Msg(_))));
        assert!(shelf.open(client(2), "snponly.efi").is_ok());
        open.pop();
        assert!(shelf.open(client(1), "snponly.efi").is_ok());
        open.clear();
        assert!(shelf.counts.lock().unwrap().is_empty());
    }

    /// Fetches over a socket as a ROM does; stops after `blocks`. Gives the bytes and the negotiated options.
    async fn fetch(server: SocketAddr, name: &str, options: &[&str], blocks: usize) -> (Vec<u8>, Vec<u8>) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut request = vec![0, 1];
        for text in [&[name, "octet"], options].concat() {
            request.extend(text.as_bytes());
            request.push(0);
        }
        socket.send_to(&request, server).await.unwrap();
        let (mut whole, mut agreed, mut block_bytes) = (Vec::new(), Vec::new(), 512);
        let mut buffer = [0; 2048];
        for _ in 0..=blocks {
            let wait = tokio::time::timeout(Duration::from_secs(5), socket.recv_from(&mut buffer));
            let (length, peer) = wait.await.unwrap().unwrap();
            match buffer[1] {
                6 => {
                    agreed = buffer[2..length].to_vec();
                    block_bytes = usize::from(BLOCK_BYTES_MAX);
                    socket.send_to(&[0, 4, 0, 0], peer).await.unwrap();
                }
                3 => {
                    whole.extend(&buffer[4..length]);
                    socket.send_to(&[0, 4, buffer[2], buffer[3]], peer).await.unwrap();
                    if length - 4 < block_bytes {
                        break;
                    }
                }
                other => panic!("packet {other}: {:?}", &buffer[..length]),
            }
        }
        (whole, agreed)
    }

    #[tokio::test]
    async fn a_rom_gets_the_whole_file_in_blocks_that_fit() {
        let bound = bind_at(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = bound.socket.local_addr().unwrap();
        let (sightings, mut seen) = mpsc::channel(8);
        let cancel = CancellationToken::new();
        let (imported, shelf) = watch::channel(Files::default());
        let server = tokio::spawn(bound.run(shelf, sightings, cancel.clone()));
        // A boot kit that is imported later is served without a restart.
        imported.send(files()).unwrap();

        let options = ["blksize", "9000", "tsize", "0", "timeout", "9"];
        let (bytes, agreed) = fetch(at, "/SNPONLY.efi", &options, 100).await;
        assert_eq!(bytes, files()["snponly.efi"]);
        let agreed = String::from_utf8(agreed).unwrap();
        assert!(agreed.contains("blksize\x001428\0") && agreed.contains("tsize\x0050000\0"), "{agreed:?}");
        assert!(!agreed.contains("timeout"), "{agreed:?}");
        let wanted = Sighting::BootProgram {
            address: at.ip(),
            file: "snponly.efi".to_owned(),
            over: "tftp",
            bytes: 50_000,
            whole: true,
        };
        assert_eq!(seen.recv().await, Some(wanted));

        let (script, _) = fetch(at, "autoexec.ipxe", &[], 1).await;
        assert_eq!(script, b"#!ipxe\n");

        cancel.cancel();
        server.await.unwrap().unwrap();
        assert!(UdpSocket::bind(at).is_ok(), "the port is free again");
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_what_to_do() {
        let bound = bind_at(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(at) = bound.socket.local_addr().unwrap() else { panic!("not IPv4") };
        let error = bind_at(at).unwrap_err();
        assert!(
            error.to_string().contains(&at.port().to_string())
                && error.hint().contains("another TFTP server")
        );
    }
}
