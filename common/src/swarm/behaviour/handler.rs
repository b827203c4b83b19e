//! One connection's part of the behaviour: opens the stream that it was dialled for, or takes in the few that the other
//! end may open. Touches libp2p alone.

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

/// Streams that one accepted connection may open in its life. A node opens one per connection and dials
/// again when it ends; more is somebody else's program.
pub(super) const STREAMS_PER_CONNECTION_MAX: usize = 4;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Agent to server: hello, haves, leases.
    Control,
    /// Chunks, from the dialled node to the one that dialled.
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

/// Opens a stream on a dialled connection.
#[derive(Debug)]
pub struct Open(pub(super) Protocol);

/// What a connection tells the behaviour.
#[derive(Debug)]
pub enum HandlerOut {
    /// A stream we opened.
    Opened(Protocol, Stream),
    /// A stream that the other end would not have.
    Refused(Protocol),
    /// A stream that the other end opened.
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

/// One connection's part of the behaviour.
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
