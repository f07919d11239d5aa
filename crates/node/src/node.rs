//! A running node, in the hands of whoever embeds it.

use std::net::SocketAddr;

use khufu_crdt::SiteName;
use khufu_engine::{NodeId, Request, RequestError, Response};
use tokio::task::JoinHandle;

use crate::builder::Builder;
use crate::events::{Cursor, Events};
use crate::forward::Forward;
use crate::handle::Handle;
use crate::{Faults, FaultsError, PeerView};

/// Why a node has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// It was asked to.
    Asked,
    /// It could not go on: this is why. What was acknowledged is safe on disk.
    Failed(String),
}

/// A running node. Dropping it stops it in the background; [`Node::shutdown`] also waits for the end.
#[derive(Debug)]
pub struct Node {
    pub(crate) handle: Handle,
    pub(crate) api_address: Option<SocketAddr>,
    pub(crate) api: Option<JoinHandle<()>>,
    pub(crate) forward: Forward,
    #[cfg(feature = "kubernetes")]
    pub(crate) front: Option<(SocketAddr, JoinHandle<()>)>,
    #[cfg(feature = "shell")]
    pub(crate) cheops: Option<(SocketAddr, JoinHandle<()>)>,
    #[cfg(feature = "http")]
    pub(crate) http_fronts: Vec<(String, SocketAddr, JoinHandle<()>)>,
}

impl Node {
    /// A node that serves `site`, to be set up further.
    pub fn builder(site: impl Into<String>) -> Builder {
        Builder::new(site.into())
    }

    /// The site that it serves.
    #[must_use]
    pub fn site(&self) -> &SiteName {
        self.handle.site()
    }

    /// Its peer id.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        self.handle.node()
    }

    /// Asks what a user can ask, and waits for the answer. `who` is written in the audit log of what it changes.
    ///
    /// # Errors
    /// [`RequestError`] says what to do. [`RequestError::Busy`] after 25 s (and the time that an operation asks to
    /// wait) without an answer: the change may or may not have been made.
    pub async fn request(&self, who: impl Into<String>, request: Request) -> Result<Response, RequestError> {
        self.handle.request(who.into(), request).await
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.handle.follow(None)
    }

    /// What happened after an event that was received before, and goes on happening.
    #[must_use]
    pub fn events_after(&self, cursor: Cursor) -> Events {
        self.handle.follow(Some(cursor))
    }

    /// Where other nodes can reach it, as multiaddresses with its peer id: what they take as bootstrap.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.handle.addresses()
    }

    /// Where its API serves, if it has one.
    #[must_use]
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api_address
    }

    /// Where its front for kubectl serves, if it has one.
    #[cfg(feature = "kubernetes")]
    #[must_use]
    pub fn front_address(&self) -> Option<SocketAddr> {
        self.front.as_ref().map(|(address, _)| *address)
    }

    /// Where the API of Cheops is served, if it is.
    #[cfg(feature = "shell")]
    #[must_use]
    pub fn cheops_address(&self) -> Option<SocketAddr> {
        self.cheops.as_ref().map(|(address, _)| *address)
    }

    /// The fronts of HTTP services by name, and where they serve.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http_fronts(&self) -> std::collections::BTreeMap<&str, SocketAddr> {
        self.http_fronts.iter().map(|(name, address, _)| (name.as_str(), *address)).collect()
    }

    /// The way of HTTP requests to other sites, and of theirs to services here.
    #[must_use]
    pub fn forward(&self) -> &Forward {
        &self.forward
    }

    /// The nodes that it has a connection with.
    pub async fn peers(&self) -> Vec<PeerView> {
        self.handle.peers().await
    }

    /// All its metrics as OpenMetrics text.
    ///
    /// # Errors
    /// The engine does not answer; the text says since when.
    pub async fn metrics(&self) -> Result<String, String> {
        self.handle.scrape().await
    }

    /// Makes things go wrong on purpose, from now on and instead of what went wrong before.
    ///
    /// # Errors
    /// The faults make no sense, or the node was not built to allow any.
    pub async fn set_faults(&self, faults: Faults) -> Result<(), FaultsError> {
        self.handle.set_faults(faults).await
    }

    /// Waits until it has stopped, and says why.
    pub async fn stopped(&self) -> Stopped {
        self.handle.stopped().await
    }

    /// Stops it: what is under way gets a few seconds to end, what was taken is stored, connections are closed, and the
    /// data directory is given free.
    pub async fn shutdown(mut self) -> Stopped {
        self.handle.close();
        let stopped = self.handle.stopped().await;
        if let Some(api) = self.api.take() {
            // It ends by itself; a panic in it was logged.
            let _ = api.await;
        }
        #[cfg(feature = "kubernetes")]
        if let Some((_, front)) = self.front.take() {
            let _ = front.await;
        }
        #[cfg(feature = "shell")]
        if let Some((_, cheops)) = self.cheops.take() {
            let _ = cheops.await;
        }
        #[cfg(feature = "http")]
        for (_, _, front) in self.http_fronts.drain(..) {
            let _ = front.await;
        }
        stopped
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.close();
    }
}
