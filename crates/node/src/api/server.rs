//! Takes connections in, so many at most, and serves each until it ends or the node stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::patient::Patient;

/// Connections at once; further ones wait in the queue of the operating system.
const MAX_CONNECTIONS: usize = 512;
/// The headers of a request must have come in so long. Also how long a connection may idle between requests.
const HEADERS: Duration = Duration::from_secs(30);
/// Whoever reads nothing of an answer for so long is given up.
const UNREAD: Duration = Duration::from_secs(30);
/// Requests under way when the node stops get so long.
const GRACE: Duration = Duration::from_secs(5);

/// The listening socket of an API.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// Takes the address, and the port that the system chose if it was 0.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<Server> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok(Server { listener, address })
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `closed` says so, then lets requests under way finish.
    pub(crate) async fn serve(self, router: Router, mut closed: watch::Receiver<bool>) {
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
                    let (router, closed) = (router.clone(), closed.clone());
                    connections.spawn(async move {
                        connection(stream, router, closed).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Of one connection, or no file descriptors left: neither is a reason to stop.
                    tracing::warn!(%error, "cannot accept a connection to the API");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            connections.shutdown().await;
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

async fn connection(stream: TcpStream, router: Router, mut closed: watch::Receiver<bool>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(Patient::new(stream, UNREAD)), TowerToHyperService::new(router));
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
        tracing::debug!(%error, "a connection to the API ended badly");
    }
}
