//! The connection handler of the behaviour: opens the stream that a connection was dialled for, or accepts the few
//! streams that the other end may open. Owns one connection's queues; touches libp2p alone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};
use libp2p::{Multiaddr, Stream};

use crate::wire::swarm::{CONTROL_PROTOCOL, PULL_PROTOCOL};

/// The most streams that an accepted connection may open in its life. Our nodes open one per connection and dial again
/// when it ends; another program may try more.
pub(super) const STREAMS_PER_CONNECTION_MAX: usize = 4;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Control: an agent's hello, haves and reports to the server, and the server's leases to the agent.
    Control,
    /// Pull: chunks, from the node that was dialled to the one that dialled.
    Pull,
}

impl Protocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Control => CONTROL_PROTOCOL,
            Self::Pull => PULL_PROTOCOL,
        }
    }
}

/// The behaviour's order to the handler of a dialled connection: open a stream of this protocol.
#[derive(Debug)]
pub struct Open(pub(super) Protocol);

/// An event of one connection's handler, for the behaviour.
#[derive(Debug)]
pub enum HandlerOut {
    /// The stream that this node dialled for is open.
    Opened(Protocol, Stream),
    /// The other end does not speak this protocol.
    Refused(Protocol),
    /// The other end opened a stream.
    Accepted(Protocol, Multiaddr, Stream),
}

/// Negotiates any of the offered protocols and says which one it was.
#[derive(Debug, Clone)]
pub struct Offer(Vec<Protocol>);

/// A protocol as multistream-select names it.
#[derive(Debug, Clone)]
pub struct Named(Protocol);

impl AsRef<str> for Named {
    fn as_ref(&self) -> &str {
        self.0.name()
    }
}

impl UpgradeInfo for Offer {
    type Info = Named;
    type InfoIter = std::vec::IntoIter<Named>;
    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().copied().map(Named).collect::<Vec<_>>().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;
    fn upgrade_inbound(self, stream: Stream, named: Named) -> Self::Future {
        ready(Ok((named.0, stream)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;
    fn upgrade_outbound(self, stream: Stream, named: Named) -> Self::Future {
        ready(Ok((named.0, stream)))
    }
}

/// The handler of one connection.
#[derive(Debug)]
pub struct Handler {
    /// Where an accepted connection came from; none for one that we dialled, which accepts no streams.
    remote: Option<Multiaddr>,
    streams_accepted: usize,
    wanted: VecDeque<Protocol>,
    out: VecDeque<HandlerOut>,
}

impl Handler {
    pub(super) fn accepted(remote: Multiaddr) -> Self {
        Self { remote: Some(remote), streams_accepted: 0, wanted: VecDeque::new(), out: VecDeque::new() }
    }

    pub(super) fn dialled() -> Self {
        Self { remote: None, streams_accepted: 0, wanted: VecDeque::new(), out: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = HandlerOut;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Protocol;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer, ()> {
        let open = self.remote.is_some() && self.streams_accepted < STREAMS_PER_CONNECTION_MAX;
        let offer = if open { vec![Protocol::Control, Protocol::Pull] } else { vec![] };
        SubstreamProtocol::new(Offer(offer), ())
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, Protocol, HandlerOut>> {
        if let Some(event) = self.out.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(protocol) = self.wanted.pop_front() {
            let protocol = SubstreamProtocol::new(Offer(vec![protocol]), protocol);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        // Both queues are filled only by calls after which the connection polls the handler again.
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Open(protocol): Open) {
        self.wanted.push_back(protocol);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Protocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                let (protocol, stream) = protocol;
                if let Some(remote) = &self.remote
                    && self.streams_accepted < STREAMS_PER_CONNECTION_MAX
                {
                    self.streams_accepted += 1;
                    self.out.push_back(HandlerOut::Accepted(protocol, remote.clone(), stream));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                let (protocol, stream) = protocol;
                self.out.push_back(HandlerOut::Opened(protocol, stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, .. }) => {
                self.out.push_back(HandlerOut::Refused(info));
            }
            _ => {}
        }
    }
}
