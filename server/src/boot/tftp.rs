//! Boot programs over TFTP, from memory: a fixed map of names, never a path. Touches the socket of port 69, and two for
//! each transfer.
//!
//! Packets at port 69 are parsed here; async-tftp does the sending, behind this on the loopback. That contains its
//! faults (all tried with 0.4.2): slightly malformed requests are silently dropped; an aborted transfer (every PXE ROM
//! requests the size first, then aborts) is repeated until its retries end, and requests from the same port are ignored
//! meanwhile; without limits one client can make it buffer gigabytes; a client's timeout of a second turns 1 % loss
//! into a minute; the handler is behind a lock while a file opens, so opening only looks into a map; a server on
//! 0.0.0.0 answers from the wrong address, so this one is bound to one address.

// Core: parses a packet into a request.
mod request;

// Core: limits which transfers may run.
mod gate;

// The files, as async-tftp's handler.
mod library;

// Core: repetitions that the line itself has caused.
mod repeats;

// One transfer, relayed between a machine and async-tftp.
mod carry;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use async_tftp::server::{TftpServer, TftpServerBuilder};
use bytes::Bytes;
use common::limits::{TFTP_BLOCK_BYTES_MAX, TFTP_REQUEST_BYTES_MAX, TFTP_WINDOW_MAX};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::carry::{Carriage, End};
use self::gate::{Admission, Gate};
use self::library::{Library, Ticket, Tickets};
use self::request::{Packet, Read, Refusal};
use crate::fleet::boot_policy::Sighting;
use crate::metrics::{Metrics, TftpResult};
use crate::noise::Noise;
use crate::traffic::{Kind, Traffic};

const TIMEOUT: Duration = Duration::from_millis(250);
/// How many timeouts in a row: 5 s, after which a machine has lost power.
const RETRIES: u32 = 20;
/// Bytes of the port's receive buffer: a request of each of 2,000 machines, with the kernel's overhead.
const RECEIVE_BYTES: usize = 2 << 20;
/// How many lines about refusals are logged in ten seconds.
const LINES: u32 = 20;

/// The files that are served, by name; the whole map is replaced when a boot kit is imported.
pub type Files = Arc<HashMap<String, Bytes>>;

/// The networks that are served; the whole list is replaced when machines of another are seen.
pub type Served = Arc<Vec<Ipv4Net>>;

/// Why TFTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TftpError {
    /// The port cannot be opened.
    #[error("UDP port {} cannot be opened on {}", .at.port(), .at.ip())]
    Bind {
        /// The address and port that could not be bound.
        at: SocketAddrV4,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// async-tftp could not be started on its socket, or its socket failed.
    #[error("the TFTP server failed")]
    Serve(#[source] async_tftp::Error),
    /// Receiving from port 69 failed.
    #[error("the TFTP port failed")]
    Receive(#[source] io::Error),
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
            Self::Serve(_) | Self::Receive(_) => "was the interface's address taken away?".to_owned(),
        }
    }
}

/// The socket of port 69; nothing is received yet.
#[derive(Debug)]
pub struct Bound {
    socket: UdpSocket,
    address: Ipv4Addr,
    traffic: Traffic,
    metrics: Metrics,
}

/// Opens port 69 at the interface's `address`.
///
/// # Errors
///
/// When the port cannot be opened; see [`TftpError::hint`].
pub fn bind(address: Ipv4Addr) -> Result<Bound, TftpError> {
    bind_at(SocketAddrV4::new(address, 69))
}

fn bind_at(at: SocketAddrV4) -> Result<Bound, TftpError> {
    let failed = |source| TftpError::Bind { at, source };
    let socket = UdpSocket::bind(at).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    roomy(&socket);
    Ok(Bound { socket, address: *at.ip(), traffic: Traffic::default(), metrics: Metrics::default() })
}

/// Asks for a larger receive buffer, so that a rack of machines can send requests in one instant. Root may exceed the
/// system's limit; others get what the limit allows.
pub(crate) fn roomy(socket: &impl std::os::fd::AsFd) {
    use nix::sys::socket::{setsockopt, sockopt};
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BYTES);
    }
}

impl Bound {
    /// Counts what is sent there, and obeys its limits; without this call there are none.
    #[must_use]
    pub fn with_traffic(mut self, traffic: Traffic) -> Self {
        self.traffic = traffic;
        self
    }

    /// Counts there what becomes of each request.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Serves `files` to the networks in `served` until `cancel`, which also ends running transfers. Every transfer
    /// that got beyond its first block is reported when it ends.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub async fn run(
        self,
        files: watch::Receiver<Files>,
        served: watch::Receiver<Served>,
        sightings: mpsc::Sender<Sighting>,
        cancel: CancellationToken,
    ) -> Result<(), TftpError> {
        let tickets = Tickets::default();
        let library = Library { tickets: Arc::clone(&tickets), sightings };
        let (server, at) = build(library).await.map_err(TftpError::Serve)?;
        let socket = tokio::net::UdpSocket::from_std(self.socket).map_err(TftpError::Receive)?;
        let front = Front {
            socket,
            address: self.address,
            traffic: self.traffic,
            metrics: self.metrics,
            files,
            served,
            library: at,
            tickets,
            transfers: Arc::default(),
            began: Instant::now(),
            noise: Noise::burst(LINES),
            cancel: cancel.child_token(),
        };
        let _ends_all = front.cancel.clone().drop_guard();
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            ended = server.serve() => ended.map_err(TftpError::Serve),
            ended = front.run() => ended.map_err(TftpError::Receive),
        }
    }
}

async fn build(library: Library) -> Result<(TftpServer<Library>, SocketAddr), async_tftp::Error> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(async_tftp::Error::Bind)?;
    roomy(&socket);
    let server = TftpServerBuilder::with_handler(library)
        .std_socket(socket)?
        .block_size_limit(TFTP_BLOCK_BYTES_MAX)
        .window_size_limit(TFTP_WINDOW_MAX)
        .timeout(TIMEOUT)
        .ignore_client_timeout()
        .max_send_retries(RETRIES)
        .build()
        .await?;
    let at = server.listen_addr()?;
    Ok((server, at))
}

/// The running transfers, and the token that cancels each. The lock is never held across an await.
#[derive(Debug, Default)]
struct Transfers {
    gate: Gate,
    hang_up: HashMap<u64, CancellationToken>,
}

impl Transfers {
    fn end(&mut self, id: u64) {
        self.gate.end(id);
        if let Some(token) = self.hang_up.remove(&id) {
            token.cancel();
        }
    }
}

/// The receive loop of port 69: parses packets, refuses requests or starts transfers.
struct Front {
    socket: tokio::net::UdpSocket,
    address: Ipv4Addr,
    traffic: Traffic,
    metrics: Metrics,
    files: watch::Receiver<Files>,
    served: watch::Receiver<Served>,
    library: SocketAddr,
    tickets: Tickets,
    transfers: Arc<Mutex<Transfers>>,
    began: Instant,
    noise: Noise,
    cancel: CancellationToken,
}

impl Front {
    async fn run(mut self) -> io::Result<()> {
        let mut buffer = [0; TFTP_REQUEST_BYTES_MAX];
        loop {
            let (length, client) = match self.socket.recv_from(&mut buffer).await {
                Ok((length, SocketAddr::V4(client))) => (length, client),
                Ok(_) => continue,
                // The ICMP error of an unreachable client is reported by the next receive; this socket is not broken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            self.heed(client, request::read(&buffer[..length])).await;
        }
    }

    async fn heed(&mut self, client: SocketAddrV4, packet: Packet) {
        let shown = match &packet {
            Packet::Noise => return,
            Packet::HangUp => String::new(),
            Packet::Refused(_, shown) => shown.clone(),
            Packet::Read(read) => read.shown.clone(),
        };
        // The sender's address may be forged: an address of a network that is not served is sent nothing.
        if !self.served.borrow().iter().any(|network| network.contains(client.ip())) {
            self.metrics.tftp(TftpResult::Foreign);
            self.noise.warn(|unsaid| {
                tracing::warn!(
                    %client, file = shown, unsaid,
                    "a TFTP request from a network that is not served: if it is a machine's, add its subnet to a [[site]]"
                );
            });
            return;
        }
        match packet {
            Packet::Read(read) => match self.find(&read.file) {
                Some((file, bytes)) => self.begin(client, read, file, bytes).await,
                None => self.refuse(client, Refusal::Absent, &shown),
            },
            Packet::Refused(refusal, _) => self.refuse(client, refusal, &shown),
            Packet::HangUp => {
                let mut transfers = self.transfers.lock();
                if let Some(id) = transfers.gate.of(client) {
                    transfers.end(id);
                }
            }
            Packet::Noise => {}
        }
    }

    /// Finds a file as firmware names it: with a leading slash, with backslashes, in capitals, or in a folder that
    /// another program's own path put before it (iPXE requests `autoexec.ipxe` from the folder that it came from).
    fn find(&self, path: &str) -> Option<(String, Bytes)> {
        find(&self.files.borrow(), path)
    }

    fn refuse(&mut self, client: SocketAddrV4, refusal: Refusal, file: &str) {
        let why = refusal.words().1;
        self.metrics.tftp(match refusal {
            Refusal::Absent => TftpResult::Absent,
            Refusal::Busy => TftpResult::Busy,
            Refusal::Broken => TftpResult::Broken,
            _ => TftpResult::Refused,
        });
        self.noise.warn(|unsaid| tracing::info!(%client, file, why, unsaid, "a TFTP request was refused"));
        // Sent from a port of its own, as the file would be; dropped if the kernel cannot send it at once.
        let sent = UdpSocket::bind((self.address, 0)).and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to(&refusal.packet(), client)
        });
        match sent {
            Ok(bytes) => self.traffic.to((*client.ip()).into()).charge(Kind::Tftp, bytes),
            Err(error) => tracing::debug!(%client, %error, "a TFTP refusal could not be sent"),
        }
    }

    async fn begin(&mut self, client: SocketAddrV4, read: Read, file: String, bytes: Bytes) {
        let (admission, hang_up) = self.admit(client, &read);
        let id = match admission {
            Admission::Begin { id, .. } => id,
            Admission::Wait => return,
            Admission::Full => return self.refuse(client, Refusal::Busy, &read.shown),
        };
        let opened = async {
            let line = self.traffic.to((*client.ip()).into());
            let carriage = Carriage::open(self.address, client, self.library, line).await?;
            let inner = carriage.address()?;
            Ok::<_, io::Error>((carriage, inner))
        };
        let (carriage, inner) = match opened.await {
            Ok(opened) => opened,
            Err(error) => {
                self.noise
                    .warn(|unsaid| tracing::error!(%client, %error, unsaid, "no socket for a TFTP transfer"));
                self.transfers.lock().end(id);
                return self.refuse(client, Refusal::Broken, &read.shown);
            }
        };
        let ticket = Ticket {
            client: (*client.ip()).into(),
            file,
            bytes,
            aborted: Arc::new(AtomicBool::new(false)),
            done: CancellationToken::new(),
        };
        self.tickets.lock().insert(inner, ticket.clone());
        let transfer = Transfer {
            id,
            transfers: Arc::clone(&self.transfers),
            tickets: Arc::clone(&self.tickets),
            inner,
            began: self.began,
            metrics: self.metrics.clone(),
        };
        tokio::spawn(transfer.run(carriage, read.clean(), ticket, hang_up, self.cancel.clone()));
    }

    fn admit(&self, client: SocketAddrV4, read: &Read) -> (Admission, CancellationToken) {
        let mut transfers = self.transfers.lock();
        let admission = transfers.gate.ask(client, read, millis(self.began));
        let hang_up = self.cancel.child_token();
        if let Admission::Begin { id, instead_of } = admission {
            if let Some(other) = instead_of {
                transfers.end(other);
            }
            transfers.hang_up.insert(id, hang_up.clone());
        }
        (admission, hang_up)
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn find(files: &Files, path: &str) -> Option<(String, Bytes)> {
    let path = path.replace('\\', "/");
    let path = path.trim_start_matches('/');
    let named = |wanted: &str| {
        let found = files.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        Some((found.0.clone(), found.1.clone()))
    };
    named(path).or_else(|| named(path.rsplit('/').next()?))
}

/// The state of one transfer's task.
struct Transfer {
    id: u64,
    transfers: Arc<Mutex<Transfers>>,
    tickets: Tickets,
    inner: SocketAddr,
    began: Instant,
    metrics: Metrics,
}

impl Transfer {
    async fn run(
        self,
        mut carriage: Carriage,
        request: Vec<u8>,
        ticket: Ticket,
        hang_up: CancellationToken,
        cancel: CancellationToken,
    ) {
        let heard = || {
            let mut transfers = self.transfers.lock();
            transfers.gate.heard(self.id, millis(self.began));
        };
        let ended = carriage.run(&request, &ticket, &hang_up, heard).await;
        // From here on the machine may start another transfer.
        self.transfers.lock().end(self.id);
        self.metrics.tftp(match &ended {
            Ok(End::Done) => TftpResult::Ended,
            Ok(End::HungUp) => TftpResult::HungUp,
            Err(_) => TftpResult::Broken,
        });
        match ended {
            Ok(End::Done) => {}
            Ok(End::HungUp) => {
                tokio::select! {
                    () = carriage.dismiss(&ticket) => {}
                    () = cancel.cancelled() => {}
                }
            }
            Err(error) => {
                tracing::error!(client = %ticket.client, %error, "a TFTP transfer failed inside: is the loopback interface up?");
            }
        }
        self.tickets.lock().remove(&self.inner);
    }
}

/// The entry point of `tests/fuzz`: parses a packet, and again what async-tftp is sent of it.
#[cfg(fuzzing)]
pub fn try_request(packet: &[u8]) {
    if let request::Packet::Read(read) = request::read(packet) {
        assert!(
            matches!(request::read(&read.clean()), request::Packet::Read(again) if again.file == read.file)
        );
    }
}

#[cfg(test)]
mod tests;
