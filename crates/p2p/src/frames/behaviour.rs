//! Opens and accepts the streams that carry frames.
//!
//! `libp2p-stream` would do nearly this, but it picks any connection of a peer, says of an accepted stream not which
//! connection it is on, drops one that is not fetched at once, and never forgets a connection. Which connection a
//! stream is on is what the promise of order rests on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, Stream, StreamProtocol};

use std::time::Duration;

use super::PROTOCOL;

/// Why a stream could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The peer does not speak the protocol: trying again is of no use.
    Unsupported,
    /// It may work later.
    Failed(String),
}

/// A stream, or why there is none.
#[derive(Debug)]
pub(crate) enum Opened {
    Inbound(Stream),
    Outbound(Result<Stream, OpenError>),
}

/// A stream of one connection.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) opened: Opened,
}

/// Asks a connection to open a stream.
#[derive(Debug)]
pub(crate) struct Open;

pub(crate) struct Behaviour {
    queue: VecDeque<ToSwarm<Event, Open>>,
    waker: Option<Waker>,
    open_timeout: Duration,
}

impl Behaviour {
    pub(crate) fn new(open_timeout: Duration) -> Self {
        Self { queue: VecDeque::new(), waker: None, open_timeout }
    }

    /// Opens a stream on that connection. Answered by [`Opened::Outbound`], unless the connection closes before.
    pub(crate) fn open(&mut self, peer: PeerId, connection: ConnectionId) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: Open,
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.open_timeout))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.open_timeout))
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.queue.push_back(ToSwarm::GenerateEvent(Event { peer, connection, opened: event }));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.queue.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

pub(crate) struct Handler {
    queue: VecDeque<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, (), Opened>>,
    open_timeout: Duration,
}

impl Handler {
    fn new(open_timeout: Duration) -> Self {
        Self { queue: VecDeque::new(), open_timeout }
    }

    fn report(&mut self, opened: Opened) {
        self.queue.push_back(ConnectionHandlerEvent::NotifyBehaviour(opened));
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Opened;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(self.open_timeout)
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        // No waker: the queue only grows in the two methods below, after which the connection polls again.
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn on_behaviour_event(&mut self, Open: Open) {
        let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(self.open_timeout);
        self.queue.push_back(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.report(Opened::Inbound(stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                self.report(Opened::Outbound(Ok(stream)));
            }
            ConnectionEvent::DialUpgradeError(failure) => {
                let error = match failure.error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Timeout => OpenError::Failed("not answered in time".into()),
                    StreamUpgradeError::Io(error) => OpenError::Failed(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never as Infallible {},
                };
                self.report(Opened::Outbound(Err(error)));
            }
            _ => {}
        }
    }
}
