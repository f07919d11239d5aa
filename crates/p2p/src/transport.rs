//! TCP, then the private network where there is a key, then Noise and Yamux.
//!
//! Built by hand: the library's own builder knows no private networks, and QUIC, which it offers, goes around them.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::core::{Multiaddr, Transport};
use libp2p::metrics::{BandwidthTransport, Registry};
use libp2p::pnet::PnetConfig;
use libp2p::{noise, tcp, yamux};
use tokio::time::Sleep;

use crate::config::{Config, MOST_STREAMS_PER_PEER};
use crate::error::StartError;

/// Streams that may be open on one connection: the plain ones of both sides, a handful of protocols with two streams each,
/// and room for what is being closed. This node ends a connection on which it needs one more; a peer that opens more is told to
/// go, and what it has open stays until it does. Each may fill a receive window of 256 KiB before anybody reads it, which takes
/// many times that where it is filled with frames of a byte each, since Yamux keeps every one by itself.
const MAX_STREAMS_PER_CONNECTION: usize = 2 * MOST_STREAMS_PER_PEER + 32;

/// Streams that a peer may have open on one connection and not have said yet what for: all that it may open, and a handful of
/// other protocols. Others are reset.
pub(crate) const MAX_NEGOTIATING: usize = MOST_STREAMS_PER_PEER + 16;

/// A failure before the handshake: nobody there, rather than somebody who was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect: {0}")]
struct Unreachable(String, #[source] NobodyThere);

/// What is looked for. It is a source of its own because some of the errors around it show the source of what they hold
/// and not what they hold.
#[derive(Debug, thiserror::Error)]
#[error("nobody there")]
struct NobodyThere;

pub(crate) fn build(config: &Config, registry: &mut Registry) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let tcp = FreshPort(tcp::tokio::Transport::new(tcp::Config::new().nodelay(true)));
    let tcp = TransportTimeout::with_outgoing_timeout(tcp, config.timing.connect_timeout)
        .map_err(|error| io::Error::other(Unreachable(error.to_string(), NobodyThere)));
    match config.psk {
        Some(psk) => {
            let key = PnetConfig::new(psk.shared());
            secure(tcp.and_then(move |socket, _| key.handshake(socket)), config, registry)
        }
        None => secure(tcp, config, registry),
    }
}

fn secure<T>(
    transport: T,
    config: &Config,
    registry: &mut Registry,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    let noise = noise::Config::new(config.identity.keypair())
        .map_err(|error| StartError::Setup { part: "Noise", reason: error.to_string() })?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS_PER_CONNECTION);
    let timing = &config.timing;
    let transport = transport
        .upgrade(Version::V1)
        .authenticate(noise)
        .multiplex(yamux)
        .inbound_timeout(timing.handshake_timeout)
        .outbound_timeout(timing.connect_timeout + timing.handshake_timeout)
        .boxed();
    let limit = timing.connect_timeout;
    Ok(BandwidthTransport::new(transport, registry)
        .map(move |(peer, muxer), _| (peer, StreamMuxerBox::new(LimitedClose { muxer, limit, timer: None })))
        .boxed())
}

/// Whether a dial failed before anybody answered.
pub(crate) fn is_unreachable(error: &(dyn Error + 'static)) -> bool {
    if error.is::<NobodyThere>() {
        return true;
    }
    // An I/O error made from another error hides that one from `source`.
    let inner =
        error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
    inner.or_else(|| error.source()).is_some_and(is_unreachable)
}

/// Dials from a fresh port, never from the one listened on: when two nodes dial each other at once from their listening
/// ports, TCP makes one connection of it with two initiators, and the handshake fails.
struct FreshPort<T>(T);

impl<T: Transport + Unpin> Transport for FreshPort<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        self.0.dial(address, DialOpts { port_use: PortUse::New, ..options })
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Gives up closing after a time.
///
/// Saying good-bye over a connection that takes nothing any more lasts until the system gives it up, a quarter of an
/// hour or so. All that time the library would count it as a connection to that peer.
struct LimitedClose<M> {
    muxer: M,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<M: StreamMuxer + Unpin> StreamMuxer for LimitedClose<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(context)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.muxer).poll_close(context) {
            return Poll::Ready(result);
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.limit)));
        timer.as_mut().poll(context).map(Ok)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.muxer).poll(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::io::Cursor;
    use libp2p::core::muxing::StreamMuxerExt;

    use super::*;

    struct Stuck;

    impl StreamMuxer for Stuck {
        type Substream = Cursor<Vec<u8>>;
        type Error = io::Error;

        fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_closed_is_given_up() {
        let stuck = LimitedClose { muxer: Stuck, limit: Duration::from_millis(10), timer: None };
        tokio::time::timeout(Duration::from_secs(10), stuck.close()).await.unwrap().unwrap();
    }

    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn nobody_there_is_told_from_somebody_who_refuses() {
        let nobody = || io::Error::other(Unreachable("connection refused".into(), NobodyThere));
        assert!(is_unreachable(&nobody()));
        assert!(is_unreachable(&io::Error::other(io::Error::other(nobody()))));
        assert!(is_unreachable(&Wrapped(nobody())), "also as a source");
        assert!(!is_unreachable(&io::Error::other("handshake failed")));
        assert!(!is_unreachable(&io::Error::from(io::ErrorKind::ConnectionRefused)));
    }
}
