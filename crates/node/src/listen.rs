//! Takes connections in, so many at most, and serves each until it ends or the node stops.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::patient::Patient;

/// Connections at once; further ones wait in the queue of the operating system.
const MAX_CONNECTIONS: usize = 512;
/// The most bytes of the headers of a request.
const MAX_HEADERS: usize = 64 * 1024;
/// Whoever has said nothing for so long is asked whether he is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long others may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The headers of a request must have come in so long. Also how long a connection may idle between requests.
    pub(crate) headers: Duration,
    /// Whoever reads nothing of an answer for so long is given up.
    pub(crate) unread: Duration,
    /// Requests under way when the node stops get so long.
    pub(crate) grace: Duration,
}

/// A listening socket.
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    /// What is served, for the log.
    what: &'static str,
}

/// How a connection that was taken in is served.
pub(crate) struct Serving {
    limits: Limits,
    closed: watch::Receiver<bool>,
    what: &'static str,
}

/// The place of a connection among all, kept as long as anything of it is open.
#[derive(Debug, Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is free again when it is dropped")] Arc<OwnedSemaphorePermit>);

impl Listener {
    /// Takes the address, and the port that the system chose if it was 0.
    pub(crate) async fn bind(address: SocketAddr, limits: Limits, what: &'static str) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, limits, what })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has each connection served by `serve` until `closed` says so, then lets requests under way finish.
    pub(crate) async fn serve<F>(
        self,
        mut closed: watch::Receiver<bool>,
        serve: impl Fn(TcpStream, Place, Serving) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (limits, what) = (self.limits, self.what);
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
                    connections.spawn(serve(stream, place, Serving { limits, closed: closed.clone(), what }));
                }
                Err(error) => {
                    // Of one connection, or no file descriptors left: neither is a reason to stop.
                    tracing::warn!(%error, "cannot accept a connection to {what}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        // Streams of events never end by themselves.
        if tokio::time::timeout(limits.grace, all).await.is_err() {
            connections.shutdown().await;
        }
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, Place)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // Who has gone without a word is noticed, also where nothing is sent: in streams of events, and in other protocols.
    let alive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&alive)?;
    Ok((stream, Place(Arc::new(place))))
}

impl Serving {
    /// Answers the requests that come over a connection.
    pub(crate) async fn http<S, B>(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>>,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { limits, mut closed, what } = self;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.headers)
            .max_buf_size(MAX_HEADERS)
            .serve_connection(TokioIo::new(Patient::new(stream, limits.unread)), service)
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
            tracing::debug!(%error, "a connection to {what} ended badly");
        }
    }
}
