//! Streams to peers, as connections that HTTP clients take; also one to this node itself.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use khufu_engine::NodeId;
use khufu_p2p::{Network, PeerStream, StreamError};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tower::Service;

use crate::body::Body;

/// Streams that are kept for the next request to a peer, and for how long. Each takes one of its places.
const KEPT: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(15);
/// Streams of this node to itself: as many as of all others to it.
const NEAR: usize = 256;
/// Bytes of such a stream that nobody has read yet.
const NEAR_BYTES: usize = 64 << 10;

/// Opens a stream to the peer that the authority of a URI names.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    network: Network,
    node: NodeId,
    near: mpsc::Sender<Near>,
    places: Arc<Semaphore>,
}

/// A stream of this node to itself: what is asked here goes the same way as what is asked elsewhere.
#[derive(Debug)]
pub(super) struct Near {
    pub(super) stream: DuplexStream,
    /// Ends when whoever asked has dropped the other end.
    pub(super) ended: oneshot::Receiver<Infallible>,
    pub(super) place: OwnedSemaphorePermit,
}

/// A client, and the streams of this node to itself, to be served.
pub(super) fn client(network: Network, node: NodeId) -> (Client<Connector, Body>, mpsc::Receiver<Near>) {
    let (near, streams) = mpsc::channel(NEAR);
    let connector = Connector { network, node, near, places: Arc::new(Semaphore::new(NEAR)) };
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEPT_FOR)
        .pool_max_idle_per_host(KEPT)
        .http1_max_buf_size(super::server::MAX_HEADERS)
        .build(connector);
    (client, streams)
}

impl Connector {
    async fn open(self, peer: &str) -> Result<Link, StreamError> {
        if peer != self.node.0 {
            return self.network.open_stream(peer).await.map(|stream| Link::Far(Box::new(stream)));
        }
        let full = |_| StreamError::TooMany { peer: self.node.0.clone(), limit: NEAR };
        let place = self.places.try_acquire_owned().map_err(full)?;
        let (stream, served) = tokio::io::duplex(NEAR_BYTES);
        let (kept, ended) = oneshot::channel();
        let near = Near { stream: served, ended, place };
        self.near.send(near).await.map_err(|_| StreamError::Stopped)?;
        Ok(Link::Near { stream, _kept: kept })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = StreamError;
    type Future = BoxFuture<'static, Result<Self::Response, StreamError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.open(uri.host().unwrap_or_default()).await.map(TokioIo::new) })
    }
}

/// A stream to a node.
#[derive(Debug)]
pub(super) enum Link {
    Far(Box<PeerStream>),
    Near { stream: DuplexStream, _kept: oneshot::Sender<Infallible> },
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Far(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Near { stream, .. } => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Far(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Near { stream, .. } => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Far(stream) => Pin::new(stream).poll_flush(context),
            Self::Near { stream, .. } => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Far(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Near { stream, .. } => Pin::new(stream).poll_shutdown(context),
        }
    }
}
