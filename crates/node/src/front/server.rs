//! Takes connections in, so many at most, and serves each until it ends or the node stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Front;
use crate::api::Patient;

/// Connections at once; further ones wait in the queue of the operating system.
const MAX_CONNECTIONS: usize = 512;
/// How long it may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The headers of a request must have come in so long. Also how long a connection may idle between requests.
const HEADERS: Duration = Duration::from_secs(60);
/// The most bytes of the headers of a request.
const MAX_HEADERS: usize = 64 * 1024;
/// Whoever reads nothing of an answer for so long is given up.
const UNREAD: Duration = Duration::from_secs(60);
/// Whoever has said nothing for so long is asked whether he is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Requests under way when the node stops get so long.
const GRACE: Duration = Duration::from_secs(2);

/// The listening socket.
pub(super) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
}

impl Server {
    pub(super) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, acceptor: None })
    }

    pub(super) fn with_tls(mut self, config: ServerConfig) -> Self {
        self.acceptor = Some(TlsAcceptor::from(Arc::new(config)));
        self
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `closed` says so, then lets requests under way finish.
    pub(super) async fn serve(self, front: Arc<Front>, mut closed: watch::Receiver<bool>) {
        let Some(acceptor) = self.acceptor else { return };
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &places) => accepted,
                _ = closed.wait_for(|closed| *closed) => break,
            };
            match accepted {
                Ok((stream, place)) => {
                    let (acceptor, front, closed) = (acceptor.clone(), front.clone(), closed.clone());
                    connections.spawn(async move {
                        connection(stream, acceptor, front, closed, Place(Arc::new(place))).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the front for kubectl");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        // Watches never end by themselves.
        if tokio::time::timeout(GRACE, all).await.is_err() {
            connections.shutdown().await;
        }
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // Who has gone without a word is noticed, also where nothing is sent: in watches, and in other protocols.
    let alive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&alive)?;
    Ok((stream, place))
}

/// The place of a connection among all, kept as long as anything of it is open.
#[derive(Debug, Clone)]
pub(super) struct Place(#[expect(dead_code, reason = "it is free again when it is dropped")] Arc<OwnedSemaphorePermit>);

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    front: Arc<Front>,
    mut closed: watch::Receiver<bool>,
    place: Place,
) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::debug!(%error, "a connection to the front for kubectl is no TLS, or not ours");
        }
        Err(_) => return,
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        // What becomes another protocol outlives its request.
        request.extensions_mut().insert(place.clone());
        let front = front.clone();
        let answer: BoxFuture<'static, _> = Box::pin(async move { Ok::<_, Infallible>(front.serve(request).await) });
        answer
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream, UNREAD)), service)
        .with_upgrades();
    tokio::pin!(connection);
    let stopping = async { drop(closed.wait_for(|closed| *closed).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopping => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the front for kubectl ended badly");
    }
}
