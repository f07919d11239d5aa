//! HTTP requests to another site, and those of other sites to services here.
//!
//! A request goes as HTTP/1.1 over a plain stream of the private network, so it needs no port of its own, nobody but nodes
//! of the network can send one, and its bodies stream both ways with nothing kept in between. A node *serves* services by
//! name ([`Forward::serve`]), and sends requests to such at other sites ([`Forward::to`]). This module must never know what
//! a service is: the HTTP front is one (`http-front/NAME`), `crates/node/src/cheops/show.rs` another.

mod client;
mod connect;
mod error;
mod members;
mod server;
mod untouched;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::BoxFuture;
use hyper::http::HeaderName;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use khufu_crdt::SiteName;
use khufu_engine::NodeId;

pub use self::error::ForwardError;
use self::members::Members;
use crate::body::Body;
use crate::handle::Handle;

/// Which service a request is for.
const SERVICE: HeaderName = HeaderName::from_static("khufu-service");
/// Why a node does not let a service see a request; no service can answer with it.
const REFUSED: HeaderName = HeaderName::from_static("khufu-refused");
/// Values of it: no service of that name, nobody of the network as far as this node knows, and that it cannot say who it is.
const UNKNOWN_SERVICE: &str = "unknown-service";
const STRANGER: &str = "stranger";
const UNREADY: &str = "unready";

/// Who sent a request: a node, as its connection has proved it, and the site that the node says it is of.
///
/// The record that says so is signed by the node and by nobody else: whoever has the key of the network can claim any site. So
/// the name of the site is for people and logs, and must grant nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The site.
    pub site: SiteName,
    /// The node.
    pub node: NodeId,
}

type Handler = dyn Fn(Origin, Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync;

/// The way of requests between sites. Clones are of the same node.
#[derive(Clone)]
pub struct Forward(Arc<Inner>);

struct Inner {
    handle: Handle,
    members: Members,
    services: RwLock<BTreeMap<String, Arc<Handler>>>,
    client: Client<connect::Connector, Body>,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").field("site", self.0.handle.site()).finish_non_exhaustive()
    }
}

impl Forward {
    /// Takes in requests of other sites until the node stops.
    pub(crate) fn start(handle: Handle) -> Self {
        let (client, near) = connect::client(handle.network().clone(), handle.node().clone());
        let inner = Inner { members: Members::default(), services: RwLock::default(), client, handle };
        let forward = Self(Arc::new(inner));
        tokio::spawn(server::run(forward.clone(), near));
        forward
    }

    /// Serves requests of other sites to this service; also those of this site's own to itself. False, and nothing is
    /// changed, if a service of that name is served already.
    ///
    /// The handler is dropped at its next `await` when the connection to whoever asked is lost, and when whoever asked has gone.
    /// The latter shows once all of the request's body has been read; before, it may take until nothing has come or gone for
    /// ten minutes.
    #[must_use]
    pub fn serve<F, R>(&self, service: impl Into<String>, handler: F) -> bool
    where
        F: Fn(Origin, Request<Body>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let handler: Arc<Handler> = Arc::new(move |origin, request| Box::pin(handler(origin, request)));
        let mut services = self.0.services.write().unwrap_or_else(PoisonError::into_inner);
        match services.entry(service.into()) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(handler);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }

    fn service(&self, name: &str) -> Option<Arc<Handler>> {
        self.0.services.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
