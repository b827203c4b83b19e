//! The libp2p behaviour of every swarm node: admits only the keys on its list, opens on each connection that it
//! *dialled* the one stream that it was dialled for, and hands out raw streams. Owns the list of admitted keys; touches
//! libp2p and `trust`; reads and writes no byte of a stream.
//!
//! Own code rather than `libp2p-stream`, which loses inbound streams when several are opened at once
//! (measured: 90 of 200 arrived) and picks any connection to a peer. Bulk must flow one way per connection
//! (rust-yamux#227), so two nodes that pull from each other keep two connections, one dialled by each.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::identity;
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, Swarm, SwarmBuilder, noise, tcp, yamux};

use crate::trust::{KeyPair, PublicKey};

mod handler;

use super::handshakes::Handshakes;
pub use handler::Protocol;
use handler::{Handler, HandlerOut, Open, STREAMS_PER_CONNECTION_MAX};

/// The most connections that one key may have opened to this node. An agent needs one for control and one for pulling;
/// the oldest are closed first, because after a broken connection the old ones look alive for minutes.
const ACCEPTED_PER_PEER_MAX: usize = 4;

/// The idle timeout: a connection without an open stream is closed after this.
const IDLE: Duration = Duration::from_secs(20);

/// An event of the behaviour, for the task that owns the swarm.
#[derive(Debug)]
pub enum MeshEvent {
    /// A stream that this node dialled for is open.
    Opened {
        /// The node that was dialled.
        peer: PeerId,
        /// Names the connection to [`Mesh::close`]; the number that [`Mesh::dial`] returned.
        connection: ConnectionId,
        /// What the stream is for.
        protocol: Protocol,
        /// The one stream of this connection, with nothing read or written yet.
        stream: Stream,
    },
    /// The connection is open, but the other end does not speak the protocol.
    Refused {
        /// The node that was dialled.
        peer: PeerId,
        /// The number that [`Mesh::dial`] returned; the connection is being closed.
        connection: ConnectionId,
        /// The protocol that it was dialled for.
        protocol: Protocol,
    },
    /// The other end opened a stream.
    Accepted {
        /// The node that dialled this one; its key is on the list.
        peer: PeerId,
        /// Names the connection to [`Mesh::close`]; one peer may have several.
        connection: ConnectionId,
        /// The protocol that the other end chose.
        protocol: Protocol,
        /// The address that it dialled from, which tells its site.
        remote: Multiaddr,
        /// The one stream of this connection, with nothing read or written yet.
        stream: Stream,
    },
}

/// The refusal of a connection whose key is not on the list.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not admitted")]
struct NotAdmitted(PeerId);

/// The refusal of a connection while too many handshakes are under way, in all or from its address.
#[derive(Debug, thiserror::Error)]
#[error("too many connections are being opened at once")]
struct Crowded;

/// The behaviour: the list of admitted keys, and the connections by key.
pub struct Mesh {
    allowed: HashSet<PeerId>,
    always: Option<PeerId>,
    handshakes: Handshakes<ConnectionId>,
    began: Instant,
    accepted: HashMap<PeerId, Vec<ConnectionId>>,
    dialled: HashMap<ConnectionId, (PeerId, Protocol)>,
    actions: VecDeque<ToSwarm<MeshEvent, Open>>,
    waker: Option<Waker>,
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("allowed", &self.allowed.len()).finish_non_exhaustive()
    }
}

impl Mesh {
    /// Admits nobody yet but `always` (for an agent: the server).
    #[must_use]
    pub fn new(always: Option<PeerId>) -> Self {
        Self {
            allowed: HashSet::new(),
            always,
            handshakes: Handshakes::new(),
            began: Instant::now(),
            accepted: HashMap::new(),
            dialled: HashMap::new(),
            actions: VecDeque::new(),
            waker: None,
        }
    }

    /// Whether connections of `peer` are admitted.
    #[must_use]
    pub fn admits(&self, peer: &PeerId) -> bool {
        self.always.as_ref() == Some(peer) || self.allowed.contains(peer)
    }

    /// Replaces the list of admitted peers; connections of all others are closed.
    pub fn allow(&mut self, list: HashSet<PeerId>) {
        self.allowed = list;
        let connected = self.accepted.keys().copied().chain(self.dialled.values().map(|(peer, _)| *peer));
        let out: HashSet<PeerId> = connected.filter(|peer| !self.admits(peer)).collect();
        for peer_id in out {
            self.push(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All });
        }
    }

    /// Adds `peer` to the list.
    pub fn let_in(&mut self, peer: PeerId) {
        self.allowed.insert(peer);
    }

    /// Takes `peer` off the list; its connections are closed.
    pub fn shut_out(&mut self, peer_id: PeerId) {
        self.allowed.remove(&peer_id);
        if !self.admits(&peer_id) {
            self.push(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All });
        }
    }

    /// Dials `peer` anew and opens one stream of `protocol`. The result arrives as [`MeshEvent::Opened`],
    /// [`MeshEvent::Refused`], or the swarm's own event that this dial failed or its connection was closed.
    pub fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, protocol: Protocol) -> ConnectionId {
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(addresses)
            .allocate_new_port()
            .build();
        let connection = opts.connection_id();
        self.dialled.insert(connection, (peer, protocol));
        self.push(ToSwarm::Dial { opts });
        connection
    }

    /// Closes one connection; harmless when it is closed already.
    pub fn close(&mut self, peer_id: PeerId, connection: ConnectionId) {
        self.push(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(connection) });
    }

    fn push(&mut self, action: ToSwarm<MeshEvent, Open>) {
        self.actions.push_back(action);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn established(&mut self, event: &ConnectionEstablished<'_>) {
        let (peer_id, connection) = (event.peer_id, event.connection_id);
        if event.endpoint.is_listener() {
            let list = self.accepted.entry(peer_id).or_default();
            list.push(connection);
            if list.len() > ACCEPTED_PER_PEER_MAX {
                let oldest = list.remove(0);
                self.close(peer_id, oldest);
            }
        } else if let Some(&(_, protocol)) = self.dialled.get(&connection) {
            self.push(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event: Open(protocol),
            });
        }
    }

    fn closed(&mut self, event: &ConnectionClosed<'_>) {
        self.dialled.remove(&event.connection_id);
        if let ConnectedPoint::Listener { .. } = event.endpoint
            && let Some(list) = self.accepted.get_mut(&event.peer_id)
        {
            list.retain(|connection| *connection != event.connection_id);
            if list.is_empty() {
                self.accepted.remove(&event.peer_id);
            }
        }
    }
}

impl NetworkBehaviour for Mesh {
    type ConnectionHandler = Handler;
    type ToSwarm = MeshEvent;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.handshakes.begin(connection, ip(remote), self.began.elapsed()) {
            Ok(())
        } else {
            Err(ConnectionDenied::new(Crowded))
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handshakes.over(connection);
        if self.admits(&peer) {
            Ok(Handler::accepted(remote.clone()))
        } else {
            Err(ConnectionDenied::new(NotAdmitted(peer)))
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.admits(&peer) {
            Ok(Handler::dialled())
        } else {
            Err(ConnectionDenied::new(NotAdmitted(peer)))
        }
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.established(&event),
            FromSwarm::ConnectionClosed(event) => self.closed(&event),
            FromSwarm::DialFailure(event) => {
                self.dialled.remove(&event.connection_id);
            }
            FromSwarm::ListenFailure(event) => {
                self.handshakes.over(event.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            HandlerOut::Opened(protocol, stream) => MeshEvent::Opened { peer, connection, protocol, stream },
            HandlerOut::Refused(protocol) => {
                self.close(peer, connection);
                MeshEvent::Refused { peer, connection, protocol }
            }
            HandlerOut::Accepted(protocol, remote, stream) => {
                MeshEvent::Accepted { peer, connection, protocol, remote, stream }
            }
        };
        self.push(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<MeshEvent, THandlerInEvent<Self>>> {
        if let Some(action) = self.actions.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The first IP address in `address`; none in one of names alone.
#[must_use]
pub fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Part::Ip4(ip) => Some(IpAddr::V4(ip)),
        Part::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// The libp2p peer id of `key`.
///
/// # Errors
/// When libp2p does not take the key; it takes every key that [`PublicKey`] does.
pub fn peer_id(key: &PublicKey) -> Result<PeerId, NoNode> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&key.bytes()).map_err(|_| NoNode::Key)?;
    Ok(identity::PublicKey::from(key).to_peer_id())
}

/// The key of `peer`, if its id holds an ed25519 key whole, as those of our nodes always do.
#[must_use]
pub fn public_key(peer: &PeerId) -> Option<PublicKey> {
    // A short key is contained in the id itself, as an "identity" multihash (code 0).
    let hash = peer.as_ref();
    let digest = (hash.code() == 0).then(|| hash.digest())?;
    let key = identity::PublicKey::try_decode_protobuf(digest).ok()?.try_into_ed25519().ok()?;
    PublicKey::from_bytes(key.to_bytes()).ok()
}

/// Why a swarm node cannot be built or cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum NoNode {
    /// libp2p does not take the key as an ed25519 key.
    #[error("the key cannot be used in the swarm")]
    Key,
    /// The transport could not be set up.
    #[error("the swarm's transport cannot be set up: {0}")]
    Transport(String),
    /// The configured address is not a multiaddr.
    #[error("`{0}` is no address such as /ip4/0.0.0.0/tcp/4001")]
    Address(String),
    /// The address is in use, or not of this host.
    #[error("the swarm cannot listen on {address}")]
    Listen {
        /// The address, as it was configured.
        address: Multiaddr,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// No address was bound within 5 seconds.
    #[error("the swarm got no address to listen on")]
    NoAddress,
}

/// Builds a swarm node over TCP, noise and yamux. `always` is admitted whatever the list says.
///
/// # Errors
/// When the key or the transport cannot be used.
pub fn build(keypair: &KeyPair, always: Option<&PublicKey>) -> Result<Swarm<Mesh>, NoNode> {
    let always = always.map(peer_id).transpose()?;
    let keypair = identity::Keypair::ed25519_from_bytes(keypair.secret()).map_err(|_| NoNode::Key)?;
    // Our nodes open no more than a handful of streams per connection; the bound is for other programs.
    let muxer = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(2 * STREAMS_PER_CONNECTION_MAX);
        config
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, muxer)
        .map_err(|error| NoNode::Transport(error.to_string()))?
        .with_behaviour(|_| Mesh::new(always))
        .map_err(|error| NoNode::Transport(error.to_string()))?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE)
                .with_max_negotiating_inbound_streams(STREAMS_PER_CONNECTION_MAX)
        })
        .build();
    Ok(swarm)
}

/// Listens on `address` and waits until the system has bound it. The addresses that are listened on.
///
/// # Errors
/// When `address` is not a multiaddr, is in use, or is not of this host.
pub async fn listen(swarm: &mut Swarm<Mesh>, address: &str) -> Result<Vec<Multiaddr>, NoNode> {
    use futures::StreamExt as _;
    use libp2p::swarm::SwarmEvent;

    let wanted: Multiaddr = address.parse().map_err(|_| NoNode::Address(address.to_owned()))?;
    let failed = |source| NoNode::Listen { address: wanted.clone(), source };
    swarm.listen_on(wanted.clone()).map_err(|error| failed(std::io::Error::other(error)))?;
    let mut found = Vec::new();
    loop {
        // The first address comes at once; the others of a wildcard follow within milliseconds.
        let wait = Duration::from_millis(if found.is_empty() { 5000 } else { 50 });
        match tokio::time::timeout(wait, swarm.select_next_some()).await {
            Ok(SwarmEvent::NewListenAddr { address, .. }) => found.push(address),
            Ok(SwarmEvent::ListenerClosed { reason: Err(error), .. }) => return Err(failed(error)),
            Ok(SwarmEvent::ListenerError { error, .. }) => return Err(failed(error)),
            Ok(_) => {}
            Err(_) if found.is_empty() => return Err(NoNode::NoAddress),
            Err(_) => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HANDSHAKES_PER_ADDRESS_MAX;

    /// M13: one host that opens many connections does not keep others out.
    #[test]
    fn one_address_does_not_take_all_handshakes() {
        let mut mesh = Mesh::new(None);
        let (here, there) = ("/ip4/10.0.0.1/tcp/1".parse().unwrap(), "/ip4/10.0.0.2/tcp/1".parse().unwrap());
        let opens = |mesh: &mut Mesh, number, from: &Multiaddr| {
            mesh.handle_pending_inbound_connection(ConnectionId::new_unchecked(number), &here, from).is_ok()
        };
        let taken = (0..1000).filter(|&number| opens(&mut mesh, number, &there)).count();
        assert_eq!(taken, HANDSHAKES_PER_ADDRESS_MAX);
        let other = "/ip4/10.0.0.3/tcp/1".parse().unwrap();
        assert!(opens(&mut mesh, 2000, &other), "somebody else comes in");
        assert!(!opens(&mut mesh, 2001, &there));
        // A handshake that has shown a key gives its place back, whether the key is admitted or not.
        let stranger = PeerId::random();
        let first = ConnectionId::new_unchecked(0);
        assert!(mesh.handle_established_inbound_connection(first, stranger, &there, &there).is_err());
        assert!(opens(&mut mesh, 2002, &there));
    }
}
