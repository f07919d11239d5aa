//! The listening socket of an API.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;

use crate::listen::{Limits, Listener};

const LIMITS: Limits =
    Limits { headers: Duration::from_secs(30), unread: Duration::from_secs(30), grace: Duration::from_secs(5) };

/// The listening socket of an API.
pub(crate) struct Server(Listener);

/// Takes the address, and the port that the system chose if it was 0.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<Server> {
    Listener::bind(address, LIMITS, "the API").await.map(Server)
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Serves until `closed` says so, then lets requests under way finish.
    pub(crate) async fn serve(self, router: Router, closed: watch::Receiver<bool>) {
        let serve = |stream, place, serving: crate::listen::Serving| {
            let service = TowerToHyperService::new(router.clone());
            async move {
                serving.http(stream, service).await;
                drop(place);
            }
        };
        self.0.serve(closed, serve).await;
    }
}
