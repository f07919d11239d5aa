//! TCP, then the private network where there is a key, then Noise and Yamux.
//!
//! Built by hand: the library's own builder knows no private networks, and QUIC, which it offers, goes around them.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::core::{Multiaddr, Transport};
use libp2p::metrics::{BandwidthTransport, Registry};
use libp2p::pnet::PnetConfig;
use libp2p::{noise, tcp, yamux};

use crate::config::Config;
use crate::error::StartError;

/// Streams a peer may have open on one connection: a handful of protocols, two streams each, and room. Each may fill a
/// receive window of 256 KiB before anybody reads it.
const MAX_STREAMS_PER_CONNECTION: usize = 64;

/// Marks a failure before the handshake: nobody there, rather than somebody who was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect: {0}")]
pub(crate) struct Unreachable(String);

pub(crate) fn build(config: &Config, registry: &mut Registry) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let tcp = FreshPort(tcp::tokio::Transport::new(tcp::Config::new().nodelay(true)));
    let tcp = TransportTimeout::with_outgoing_timeout(tcp, config.timing.connect_timeout)
        .map_err(|error| io::Error::other(Unreachable(error.to_string())));
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
    Ok(BandwidthTransport::new(transport, registry).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed())
}

/// Whether a dial failed before anybody answered.
pub(crate) fn is_unreachable(error: &(dyn Error + 'static)) -> bool {
    if error.is::<Unreachable>() {
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
