//! Takes connections in, so many at most, and serves each until it ends or the node stops.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
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

use crate::crowd::{Crowd, One};
use crate::patient::Patient;

/// Connections at once; further ones wait in the queue of the operating system.
const MAX_CONNECTIONS: usize = 512;
/// Connections at once from one address that is not of this machine; further ones are closed.
const MAX_OF_ADDRESS: usize = 128;
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
    /// From where there may be as many as altogether.
    is_own: fn(IpAddr) -> bool,
}

/// How a connection that was taken in is served.
pub(crate) struct Serving {
    limits: Limits,
    closed: watch::Receiver<bool>,
    what: &'static str,
}

/// The place of a connection among all, kept as long as anything of it is open.
#[derive(Debug, Clone)]
pub(crate) struct Place(
    #[expect(dead_code, reason = "it is free again when it is dropped")] Arc<(OwnedSemaphorePermit, Option<One>)>,
);

/// Whether somebody is on this machine: what stands in front of it may have all connections of others.
fn is_own(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl Listener {
    /// Takes the address, and the port that the system chose if it was 0.
    pub(crate) async fn bind(address: SocketAddr, limits: Limits, what: &'static str) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, limits, what, is_own })
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
        let others = Crowd::new(MAX_OF_ADDRESS, MAX_CONNECTIONS);
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                accepted = self.accept(&places, &others) => accepted,
                _ = closed.wait_for(|closed| *closed) => break,
            };
            match accepted {
                Ok(None) => {}
                Ok(Some((stream, place))) => {
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

    /// The next connection; none if that address has as many as it may have.
    async fn accept(&self, places: &Arc<Semaphore>, others: &Crowd) -> io::Result<Option<(TcpStream, Place)>> {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = self.listener.accept().await?;
        let one = match (self.is_own)(peer.ip()) {
            true => None,
            false => match others.enter(Some(peer.ip())) {
                Some(one) => Some(one),
                None => {
                    tracing::debug!(address = %peer.ip(), "has as many connections to {} as it may have", self.what);
                    return Ok(None);
                }
            },
        };
        stream.set_nodelay(true)?;
        // Who has gone without a word is noticed, also where nothing is sent: in streams of events, and in other protocols.
        let alive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        SockRef::from(&stream).set_tcp_keepalive(&alive)?;
        Ok(Some((stream, Place(Arc::new((place, one))))))
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpSocket;

    use super::*;

    const LIMITS: Limits =
        Limits { headers: Duration::from_secs(60), unread: Duration::from_secs(60), grace: Duration::from_secs(1) };

    /// A connection from an address of this machine, and whether it is closed at once.
    async fn connect(to: SocketAddr, number: u8) -> (TcpStream, bool) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, number), 0).into()).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        // Whoever is taken in is greeted.
        let is_closed = stream.read_u8().await.is_err();
        (stream, is_closed)
    }

    async fn listening(is_own: fn(IpAddr) -> bool) -> (SocketAddr, watch::Sender<bool>) {
        let mut listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), LIMITS, "a test").await.unwrap();
        listener.is_own = is_own;
        let (address, closed) = (listener.address(), watch::Sender::new(false));
        let serve = |mut stream: TcpStream, place: Place, _: Serving| async move {
            tokio::io::AsyncWriteExt::write_u8(&mut stream, 1).await.unwrap();
            // It is held until the client goes.
            while stream.read_u8().await.is_ok() {}
            drop(place);
        };
        tokio::spawn(listener.serve(closed.subscribe(), serve));
        (address, closed)
    }

    #[tokio::test]
    async fn one_address_has_not_all_connections() {
        let (address, _closed) = listening(|_| false).await;
        let mut all = Vec::new();
        for _ in 0..MAX_OF_ADDRESS {
            let (stream, is_closed) = connect(address, 1).await;
            assert!(!is_closed);
            all.push(stream);
        }
        assert!(connect(address, 1).await.1, "it has as many as it may have");
        assert!(!connect(address, 2).await.1, "another has not");
        all.truncate(MAX_OF_ADDRESS / 2);
        // Its places are free as soon as it is seen that they are not used any more.
        while connect(address, 1).await.1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn this_machine_may_have_more() {
        let (address, _closed) = listening(is_own).await;
        let mut all = Vec::new();
        for _ in 0..=MAX_OF_ADDRESS {
            let (stream, is_closed) = connect(address, 1).await;
            assert!(!is_closed);
            all.push(stream);
        }
    }
}
