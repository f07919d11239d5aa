//! Opens and accepts streams of one protocol: those that carry frames, and plain ones.
//!
//! `libp2p-stream` would do nearly this, but it picks any connection of a peer, says of an accepted stream not which
//! connection it is on, drops one that is not fetched at once, and never forgets a connection. Which connection a
//! stream is on is what the promise of order rests on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Debug;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, Stream, StreamProtocol};

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
pub(crate) enum Opened<I> {
    Inbound(Stream),
    /// With what it was asked for with.
    Outbound(I, Result<Stream, OpenError>),
}

/// A stream of one connection.
#[derive(Debug)]
pub(crate) struct Event<I> {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) opened: Opened<I>,
}

/// Asks a connection to open a stream, for this.
#[derive(Debug)]
pub(crate) struct Open<I>(I);

/// What `I` is, whoever asks for a stream decides: it comes back with the stream.
pub(crate) struct Behaviour<I> {
    protocol: StreamProtocol,
    queue: VecDeque<ToSwarm<Event<I>, Open<I>>>,
    waker: Option<Waker>,
    open_timeout: Duration,
}

impl<I> Behaviour<I> {
    pub(crate) fn new(protocol: StreamProtocol, open_timeout: Duration) -> Self {
        Self { protocol, queue: VecDeque::new(), waker: None, open_timeout }
    }

    /// Opens a stream on that connection. Answered by [`Opened::Outbound`], unless the connection closes before; `wanted`
    /// is dropped then.
    pub(crate) fn open(&mut self, peer: PeerId, connection: ConnectionId, wanted: I) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: Open(wanted),
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<I: Debug + Send + 'static> NetworkBehaviour for Behaviour<I> {
    type ConnectionHandler = Handler<I>;
    type ToSwarm = Event<I>;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.protocol.clone(), self.open_timeout))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.protocol.clone(), self.open_timeout))
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

pub(crate) struct Handler<I> {
    protocol: StreamProtocol,
    queue: VecDeque<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, I, Opened<I>>>,
    open_timeout: Duration,
}

impl<I> Handler<I> {
    fn new(protocol: StreamProtocol, open_timeout: Duration) -> Self {
        Self { protocol, queue: VecDeque::new(), open_timeout }
    }

    fn report(&mut self, opened: Opened<I>) {
        self.queue.push_back(ConnectionHandlerEvent::NotifyBehaviour(opened));
    }

    fn upgrade<T>(&self, info: T) -> SubstreamProtocol<ReadyUpgrade<StreamProtocol>, T> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), info).with_timeout(self.open_timeout)
    }
}

impl<I: Debug + Send + 'static> ConnectionHandler for Handler<I> {
    type FromBehaviour = Open<I>;
    type ToBehaviour = Opened<I>;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = I;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        self.upgrade(())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, I, Self::ToBehaviour>> {
        // No waker: the queue only grows in the two methods below, after which the connection polls again.
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn on_behaviour_event(&mut self, Open(wanted): Open<I>) {
        let protocol = self.upgrade(wanted);
        self.queue.push_back(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol, (), I>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.report(Opened::Inbound(stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) => {
                self.report(Opened::Outbound(info, Ok(stream)));
            }
            ConnectionEvent::DialUpgradeError(failure) => {
                let error = match failure.error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Timeout => OpenError::Failed("not answered in time".into()),
                    StreamUpgradeError::Io(error) => OpenError::Failed(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never as Infallible {},
                };
                self.report(Opened::Outbound(failure.info, Err(error)));
            }
            _ => {}
        }
    }
}
