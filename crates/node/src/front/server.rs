//! The listening socket of the front.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Front;
use super::bodies::Peer;
use crate::listen::{Limits, Listener, Place, Serving};

/// How long it may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
const LIMITS: Limits =
    Limits { headers: Duration::from_secs(60), unread: Duration::from_secs(60), grace: Duration::from_secs(2) };

/// The listening socket.
pub(super) struct Server {
    listener: Listener,
    acceptor: TlsAcceptor,
}

/// Takes the address.
pub(super) async fn bind(address: SocketAddr) -> io::Result<Listener> {
    Listener::bind(address, LIMITS, "the front for kubectl").await
}

impl Server {
    pub(super) fn new(listener: Listener, config: ServerConfig) -> Self {
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `closed` says so, then lets requests under way finish.
    pub(super) async fn serve(self, front: Arc<Front>, closed: watch::Receiver<bool>) {
        let serve = |stream, place, serving| connection(stream, place, serving, self.acceptor.clone(), front.clone());
        self.listener.serve(closed, serve).await;
    }
}

async fn connection(stream: TcpStream, place: Place, serving: Serving, acceptor: TlsAcceptor, front: Arc<Front>) {
    let Ok(peer) = stream.peer_addr() else { return };
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::debug!(%error, "a connection to the front for kubectl is no TLS, or not ours");
        }
        Err(_) => return,
    };
    let kept = place.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        // What becomes another protocol outlives its request.
        request.extensions_mut().insert(kept.clone());
        request.extensions_mut().insert(Peer(peer.ip()));
        let front = front.clone();
        let answer: BoxFuture<'static, _> = Box::pin(async move { Ok::<_, Infallible>(front.serve(request).await) });
        answer
    });
    serving.http(stream, service).await;
    drop(place);
}
