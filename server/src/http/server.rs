//! The HTTP server: binding a port or a Unix socket, accepting connections, and finishing the last ones. Bounded in
//! number and in time, because anybody on the network can connect. Serves the machines' routes and the admin's. Touches
//! sockets.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use common::limits::{ADMINS_MAX, CONNECTIONS_PER_RELAY, HEAD_BYTES_MAX, HEAD_TIME, STALLED};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{ConnectionBounds, CountsByAddress, Place};
use super::paced::Paced;
use super::turns::{Sending, Turns};
use crate::fleet::relays::RelayTable;
use crate::traffic::Traffic;

/// The longest TCP segment, both ways: with its headers 1,460 bytes, as TFTP's longest packet. Firmware and iPXE do not
/// discover a path's real MTU, so where a tunnel or a switch silently drops larger packets, the kernel would stop at
/// its first byte although TFTP worked (ipxe/ipxe#288: 1,486 bytes).
const SEGMENT_BYTES_MAX: u32 = 1420;
/// How long open requests may take to finish when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The port cannot be bound.
    #[error("cannot listen for HTTP on {address}")]
    Port {
        /// The address and port that could not be bound.
        address: SocketAddr,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be bound.
    #[error("cannot listen on the admin socket {}", path.display())]
    Socket {
        /// The path of the Unix socket.
        path: PathBuf,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// Another server answers on the socket of this path.
    #[error("another swarmboot listens on {}", .0.display())]
    Taken(PathBuf),
}

impl HttpError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Port { address, source } => match source.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "another program has port {}: `ss -ltnp 'sport = :{0}'` shows which; stop it or choose another port",
                    address.port()
                ),
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
                }
                io::ErrorKind::AddrNotAvailable => "this host does not have that address".to_owned(),
                _ => "look at the address and port".to_owned(),
            },
            Self::Socket { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => "run as root, or name a socket elsewhere".to_owned(),
                _ => "look whether its folder exists and can be written".to_owned(),
            },
            Self::Taken(_) => "stop it first, or name another socket".to_owned(),
        }
    }
}

/// The addresses of both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The client's address.
    pub peer: SocketAddr,
    /// Which of the server's addresses the client connected to, or the relay's address that passed its request on.
    pub local: SocketAddr,
    /// Which of the server's own addresses the request came to.
    pub own: SocketAddr,
}

impl Ends {
    /// The server's own address, where the request was passed on by a relay.
    #[must_use]
    pub fn fallback(&self) -> Option<SocketAddr> {
        (self.own != self.local).then_some(self.own)
    }

    /// For a connection without addresses: over the admin's socket.
    const NONE: Self = {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self { peer: nowhere, local: nowhere, own: nowhere }
    };
}

/// Which listener a connection came to, and with that what is known of whoever made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The machines' HTTP port: anybody on the network.
    Machines,
    /// The admin's Unix socket: the user of this host with this id, as the kernel says; `None` where it does not.
    Socket(Option<u32>),
    /// The API's TLS port: whoever shows a token.
    Api,
}

/// Cancelled when the server stops: a request that waits for something is answered then.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving(pub(super) CancellationToken);

/// The machines' TCP listener, bound but not yet accepting.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    relays: Option<watch::Receiver<Arc<RelayTable>>>,
    traffic: Traffic,
    open: Arc<CountsByAddress>,
}

/// Binds the machines' TCP listener.
///
/// # Errors
/// When the address cannot be bound.
pub async fn bind(address: SocketAddr) -> Result<Bound, HttpError> {
    let failed = |source| HttpError::Port { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // Every accepted connection inherits it. If it fails, only paths with a small MTU suffer.
    if let Err(error) = socket2::SockRef::from(&listener).set_tcp_mss(SEGMENT_BYTES_MAX) {
        tracing::warn!(%error, "TCP segments stay as long as the interface allows");
    }
    Ok(Bound { listener, address, relays: None, traffic: Traffic::default(), open: Arc::default() })
}

impl Bound {
    /// The address and port that it is bound to; the port is a real one where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Allows the relays of `table` as many connections as their sites' machines need.
    #[must_use]
    pub fn with_relays(mut self, table: watch::Receiver<Arc<RelayTable>>) -> Self {
        self.relays = Some(table);
        self
    }

    /// How many connections `address` may have within `bounds`: that of a relay has its whole site's.
    pub(super) fn most_of(&self, address: IpAddr, bounds: ConnectionBounds) -> usize {
        let is_relays = |table: &watch::Receiver<Arc<RelayTable>>| table.borrow().is_relays(address);
        match &self.relays {
            // Half of all connections are left to machines that ask the server themselves.
            Some(table) if is_relays(table) => {
                CONNECTIONS_PER_RELAY.min(bounds.all / 2).max(bounds.per_address)
            }
            _ => bounds.per_address,
        }
    }

    /// Counts what is sent there, and obeys its limits; without this call there are none.
    #[must_use]
    pub fn with_traffic(mut self, traffic: Traffic) -> Self {
        self.traffic = traffic;
        self
    }

    /// Tells how many connections are open.
    pub fn open(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let open = Arc::clone(&self.open);
        move || open.all()
    }

    /// Serves `router` within `bounds` until `cancel`, then finishes the open requests.
    pub async fn run(self, router: Router, bounds: ConnectionBounds, cancel: CancellationToken) {
        let connections = receive(&self, bounds, router, &cancel).await;
        drop(self.listener);
        connections.say_goodbye().await;
    }
}

impl Listener for Bound {
    type Stream = Paced<TcpStream>;
    const HEAD_MAX: Option<usize> = Some(HEAD_BYTES_MAX);

    fn counts(&self) -> Arc<CountsByAddress> {
        Arc::clone(&self.open)
    }

    fn per_address(&self, address: IpAddr, bounds: ConnectionBounds) -> usize {
        self.most_of(address, bounds)
    }

    async fn accept(&self) -> io::Result<Accepted<Self::Stream>> {
        let (stream, peer) = self.listener.accept().await?;
        let local = stream.local_addr().unwrap_or(self.address);
        notice_the_dead(&stream);
        let sending = Sending::default();
        let turns = Turns::new(self.traffic.to(peer.ip()), sending.clone());
        let ends = Ends { peer, local, own: local };
        Ok(Accepted { stream: Paced::new(stream, turns), ends, door: Door::Machines, sending })
    }
}

/// The admin's Unix listener, bound but not yet accepting.
#[derive(Debug)]
pub struct AdminBound {
    listener: UnixListener,
    path: PathBuf,
    open: Arc<CountsByAddress>,
}

/// Binds the admin's Unix socket, for its owner and group only. One that a killed server left behind is replaced.
///
/// # Errors
/// When the path cannot be bound, is no socket, or another server listens there.
pub async fn bind_admin(path: &Path) -> Result<AdminBound, HttpError> {
    let failed = |source| HttpError::Socket { path: path.to_owned(), source };
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(failed(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something that is no socket is there",
            )));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(HttpError::Taken(path.to_owned()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // Bound under another name and renamed once the mode is set: nobody can connect in between, whatever the umask.
    let early = path.with_extension(format!("new-{}", std::process::id()));
    drop(std::fs::remove_file(&early));
    let listener = UnixListener::bind(&early).map_err(failed)?;
    let placed = std::fs::set_permissions(&early, std::fs::Permissions::from_mode(0o660))
        .and_then(|()| std::fs::rename(&early, path));
    if let Err(source) = placed {
        drop(std::fs::remove_file(&early));
        return Err(failed(source));
    }
    Ok(AdminBound { listener, path: path.to_owned(), open: Arc::default() })
}

impl AdminBound {
    /// Tells how many connections are open.
    pub fn open(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let open = Arc::clone(&self.open);
        move || open.all()
    }

    /// Serves `router` until `cancel`, then finishes the open requests and removes the socket.
    pub async fn run(self, router: Router, cancel: CancellationToken) {
        // All admins count as one address, because a Unix socket has none.
        let bounds = ConnectionBounds { all: ADMINS_MAX, per_address: ADMINS_MAX };
        let connections = receive(&self, bounds, router, &cancel).await;
        drop(std::fs::remove_file(&self.path));
        connections.say_goodbye().await;
    }
}

impl Listener for AdminBound {
    type Stream = UnixStream;
    /// Images are uploaded here, so hyper may choose how large its buffer is.
    const HEAD_MAX: Option<usize> = None;

    fn counts(&self) -> Arc<CountsByAddress> {
        Arc::clone(&self.open)
    }

    async fn accept(&self) -> io::Result<Accepted<UnixStream>> {
        let (stream, _) = self.listener.accept().await?;
        let door = Door::Socket(stream.peer_cred().ok().map(|user| user.uid()));
        Ok(Accepted { stream, ends: Ends::NONE, door, sending: Sending::default() })
    }
}

/// Has the kernel notice soon when the other end of a connection is gone. If that fails, it is only noticed later.
pub(super) fn notice_the_dead(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(STALLED));
    let _ = socket.set_keepalive(true);
}

/// An accepted connection.
pub(super) struct Accepted<S> {
    pub(super) stream: S,
    pub(super) ends: Ends,
    pub(super) door: Door,
    pub(super) sending: Sending,
}

/// Accepts connections: what differs between the TCP ports and the Unix socket.
pub(super) trait Listener {
    /// An accepted connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The longest head of a request, in bytes; `None` for hyper's default.
    const HEAD_MAX: Option<usize>;

    /// Counts the connections that are open.
    fn counts(&self) -> Arc<CountsByAddress>;

    /// How many connections `address` may have within `bounds`.
    fn per_address(&self, _address: IpAddr, bounds: ConnectionBounds) -> usize {
        bounds.per_address
    }

    /// The next connection. Cancel safe: dropping the future loses none.
    fn accept(&self) -> impl Future<Output = io::Result<Accepted<Self::Stream>>> + Send;
}

/// Accepts connections until `cancel`, at most as many at once as `bounds` say; returns those that are still open.
pub(super) async fn receive<D: Listener>(
    listener: &D,
    bounds: ConnectionBounds,
    router: Router,
    cancel: &CancellationToken,
) -> Connections {
    let room = Arc::new(Semaphore::new(bounds.all));
    let counts = listener.counts();
    let connections = Connections::new(cancel);
    loop {
        let turn = Arc::clone(&room).acquire_owned();
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = async { (turn.await, listener.accept().await) } => accepted,
        };
        match accepted {
            // A connection beyond an address's share is closed at once; the client retries when another has ended.
            (Ok(turn), Ok(accepted)) => match counts
                .enter(accepted.ends.peer.ip(), listener.per_address(accepted.ends.peer.ip(), bounds))
            {
                Some(place) => attend::<D>(accepted, router.clone(), &connections, (turn, place)),
                None => {
                    tracing::debug!(peer = %accepted.ends.peer, "an address has all the connections it may have");
                }
            },
            (_, Err(error)) => refused_by_kernel(&error).await,
            (Err(_), _) => break,
        }
    }
    connections
}

/// Spawns a task that serves one connection until the client closes it or the server stops.
fn attend<D: Listener>(
    accepted: Accepted<D::Stream>,
    router: Router,
    connections: &Connections,
    turn: (tokio::sync::OwnedSemaphorePermit, Place),
) {
    let Accepted { stream, ends, door, sending } = accepted;
    let stops = Leaving(connections.leaving.clone());
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ends);
        request.extensions_mut().insert(door);
        request.extensions_mut().insert(stops.clone());
        one_slash(request.uri_mut());
        sending.answers(request.uri().path());
        let answer = tower_call(router.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    // GRUB's UEFI HTTP code finds `Content-Length` in no other spelling, and takes every file for empty.
    http.title_case_headers(true);
    if let Some(most) = D::HEAD_MAX {
        http.max_buf_size(most);
    }
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let leaving = connections.leaving.clone();
    connections.inside.spawn(async move {
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = leaving.cancelled() => {
                // Requests in progress are finished; then the connection is closed.
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            // Port scanners, browsers that cancel, machines that lose power: there is nothing to act on.
            tracing::debug!(peer = %ends.peer, %error, "a connection ended early");
        }
        drop(turn);
    });
}

/// Firmware that joins a root path and a name asks for `//boot.ipxe`: repeated slashes count as one.
fn one_slash(uri: &mut hyper::Uri) {
    if !uri.path().contains("//") {
        return;
    }
    let mut path = String::with_capacity(uri.path().len());
    for c in uri.path().chars() {
        if c != '/' || !path.ends_with('/') {
            path.push(c);
        }
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(tidy) = format!("{path}{query}").parse() {
        *uri = tidy;
    }
}

/// The open connections, each served by a task of its own. hyper-util's `GracefulShutdown` would do half of it: it
/// waits for all connections, but has no timeout for those that do not end.
pub(super) struct Connections {
    inside: TaskTracker,
    leaving: CancellationToken,
}

impl Connections {
    fn new(cancel: &CancellationToken) -> Self {
        Self { inside: TaskTracker::new(), leaving: cancel.child_token() }
    }

    /// Tells every connection to close after its current request, and waits for that.
    pub(super) async fn say_goodbye(self) {
        self.leaving.cancel();
        self.inside.close();
        self.inside.wait().await;
    }
}

async fn tower_call(router: Router, request: hyper::Request<Incoming>) -> axum::response::Response {
    use hyper::service::Service as _;
    let Ok(response) = hyper_util::service::TowerToHyperService::new(router).call(request).await;
    response
}

/// The kernel has no files or memory left for another connection: logs that and waits a moment before the next try.
async fn refused_by_kernel(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be taken");
    tokio::time::sleep(Duration::from_millis(200)).await;
}
