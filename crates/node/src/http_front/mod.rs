//! A way in for clients of any HTTP service: a reverse proxy before the service of this site, that knows scopes.
//!
//! A request without a scope goes to the service behind it as it is. One with a scope goes to the service of the site that
//! the scope names, through the front of the same name there. The front adds no rights of its own: the service asks for
//! credentials, and gets those of whoever asks. It must never log headers or bodies, nor take from a request where the
//! service is.

mod ask;
mod decide;
mod edge;
mod refusal;
mod send;
mod upstream;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::http::{HeaderMap, Method};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use self::decide::Way;
use self::refusal::Refusal;
use self::upstream::Upstream;
use crate::body::{Body, boxed};
use crate::forward::{Forward, Origin};
use crate::handle::Handle;
use crate::headers;
use crate::listen::{Limits, Listener, Place, Serving};
use crate::{loopback, upgraded};

const LIMITS: Limits =
    Limits { headers: Duration::from_secs(60), unread: Duration::from_secs(60), grace: Duration::from_secs(5) };
/// What is served, for the log.
const WHAT: &str = "a front of an HTTP service";

/// How a node serves a front of an HTTP service.
#[derive(Debug, Clone)]
pub struct HttpFrontConfig {
    /// What the service is called in scopes, and at all sites.
    pub name: String,
    /// Where the front listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Where the service of this site is: `http://HOST:PORT`, and a path that all others begin with, if wanted.
    pub upstream: String,
    /// Listen beyond this machine, and serve requests for any host: whoever gets there can ask the services of all sites, with
    /// credentials of his own.
    pub open: bool,
}

/// Why a front of an HTTP service cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpFrontError {
    /// The name is none that a scope can speak of.
    #[error(
        "http front {name:?}: a name has letters, digits, `-`, `_` and `.`, and is neither `all`, `here` nor `prime`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Two fronts have one name.
    #[error("two http fronts are called {name:?}: give each a name of its own")]
    Twice {
        /// The name.
        name: String,
    },
    /// The address is taken, or not of this machine.
    #[error(
        "the http front {name} cannot listen on {address}: {source}; give it another address, or port 0 for a free one"
    )]
    Address {
        /// The front.
        name: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Where the service is cannot be used.
    #[error("the http front {name}: {url:?} is no place of a service: {reason}")]
    Upstream {
        /// The front.
        name: String,
        /// What was given.
        url: String,
        /// Why not, and what can be.
        reason: String,
    },
    /// Everybody could ask the services of all sites.
    #[error(
        "the http front {name} would listen on {address}, beyond this machine, and whoever gets there could ask the services of \
         all sites: let a proxy on this machine decide who may, listen on 127.0.0.1, or say in plain words that it is to be open"
    )]
    OpenNeeded {
        /// The front.
        name: String,
        /// The address.
        address: SocketAddr,
    },
}

/// The listening socket of a front, before it is served.
pub(crate) struct Listening {
    name: String,
    listener: Listener,
    upstream: Upstream,
    open: bool,
}

/// Takes the addresses.
pub(crate) async fn listen(configs: &[HttpFrontConfig]) -> Result<Vec<Listening>, HttpFrontError> {
    let mut fronts: Vec<Listening> = Vec::new();
    for config in configs {
        let (name, address) = (config.name.clone(), config.address);
        if !ask::is_name(&name) {
            return Err(HttpFrontError::Name { name });
        }
        if fronts.iter().any(|front| front.name == name) {
            return Err(HttpFrontError::Twice { name });
        }
        if !config.open && !address.ip().is_loopback() {
            return Err(HttpFrontError::OpenNeeded { name, address });
        }
        let upstream = Upstream::new(&config.upstream).map_err(|reason| {
            let (name, url) = (name.clone(), config.upstream.clone());
            HttpFrontError::Upstream { name, url, reason }
        })?;
        let listener = Listener::bind(address, LIMITS, WHAT).await;
        let listener = listener.map_err(|source| HttpFrontError::Address { name: name.clone(), address, source })?;
        fronts.push(Listening { name, listener, upstream, open: config.open });
    }
    Ok(fronts)
}

impl Listening {
    /// Serves until the node stops: clients here, and the fronts of the same name at other sites.
    pub(crate) fn serve(self, handle: Handle, forward: Forward) -> (String, SocketAddr, JoinHandle<()>) {
        let Self { name, listener, upstream, open } = self;
        let (address, closed) = (listener.address(), handle.closed());
        let service = format!("http-front/{name}");
        let pseudonym = edge::pseudonym(&name, handle.site().as_str(), &handle.node().0);
        let front = Arc::new(Front { name: name.clone(), service, pseudonym, handle, forward, upstream, open });
        let of_sites = front.clone();
        let served = front.forward.serve(front.service.clone(), move |origin, request| {
            let front = of_sites.clone();
            async move { front.of_site(&origin, request).await }
        });
        debug_assert!(served, "names of fronts are different");
        let serve = move |stream, place, serving| connection(stream, place, serving, front.clone());
        (name, address, tokio::spawn(async move { listener.serve(closed, serve).await }))
    }
}

async fn connection(stream: TcpStream, place: Place, serving: Serving, front: Arc<Front>) {
    let Ok(peer) = stream.peer_addr() else { return };
    let kept = place.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, place) = (front.clone(), kept.clone());
        let answer: BoxFuture<'static, _> =
            Box::pin(async move { Ok::<_, Infallible>(front.of_client(request.map(boxed), peer.ip(), place).await) });
        answer
    });
    serving.http(stream, service).await;
    drop(place);
}

/// What all requests share.
struct Front {
    /// What the service is called.
    name: String,
    /// What the fronts of that name are called among sites.
    service: String,
    /// What this one calls itself in `Via`.
    pseudonym: String,
    handle: Handle,
    forward: Forward,
    upstream: Upstream,
    /// Whether it is asked under other names than those of this machine.
    open: bool,
}

impl Front {
    /// A request of a client.
    async fn of_client(&self, mut request: Request<Body>, peer: IpAddr, place: Place) -> Response<Body> {
        let client = headers::upgrade(request.headers()).map(|_| hyper::upgrade::on(&mut request));
        let answer = self.decided(request, peer).await;
        let answer = self.joined(client, answer.unwrap_or_else(|refusal| refusal.response()), place);
        self.handle.metrics().front_answered(&self.name, answer.status().as_u16());
        answer
    }

    async fn decided(&self, request: Request<Body>, peer: IpAddr) -> Result<Response<Body>, Refusal> {
        let (mut parts, body) = request.into_parts();
        // The service is told another host, so it cannot see to this itself.
        if !self.open
            && let Some(named) = loopback::other_host(&parts.uri, &parts.headers)
        {
            return Err(Refusal::other_host(named));
        }
        let scope = ask::take(&mut parts)?;
        if parts.method == Method::CONNECT || !parts.uri.path().starts_with('/') {
            return Err(Refusal::bad_request("a path is wanted"));
        }
        // Before anything is said in headers, or a client could have it taken out as one of his connection.
        headers::end_to_end_or_upgrade(&mut parts.headers);
        edge::no_loop(&parts.headers, &self.pseudonym)?;
        edge::forwarded(&mut parts, peer);
        let way = match scope {
            None => Way::To(vec![self.handle.site().clone()]),
            Some(scope) => decide::decide(&self.handle, &self.name, &scope, &parts.method).await?,
        };
        match way {
            Way::To(sites) => send::send(self, parts, body, &sites).await,
            Way::Replicate(sites) => Err(refusal::replicate(&sites)),
        }
    }

    /// A request that the front of another site passes on: it has decided already, so a scope is of no use here.
    async fn of_site(&self, origin: &Origin, mut request: Request<Body>) -> Response<Body> {
        let client = headers::upgrade(request.headers()).map(|_| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let answer = match edge::no_loop(&parts.headers, &self.pseudonym) {
            Ok(()) => self.upstream.send(self, parts, body).await,
            Err(refusal) => Err(refusal),
        };
        tracing::debug!(front = self.name, site = %origin.site, "a request of another site");
        self.joined(client, answer.unwrap_or_else(|refusal| refusal.response()), ())
    }

    /// Where both ends have agreed on another protocol, passes that on.
    fn joined<T: Send + 'static>(
        &self,
        client: Option<hyper::upgrade::OnUpgrade>,
        mut answer: Response<Body>,
        kept: T,
    ) -> Response<Body> {
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return answer;
        }
        let Some(client) = client else {
            return Refusal::broken("it changes to a protocol that nobody has asked for").response();
        };
        let server = hyper::upgrade::on(&mut answer);
        tokio::spawn(upgraded::join(client, server, self.handle.closed(), kept, WHAT));
        answer
    }
}

/// Whether doing it twice is as doing it once (RFC 9110, section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    is_read(method) || [Method::PUT, Method::DELETE].contains(method)
}

/// Whether it only looks.
fn is_read(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method)
}

/// One header as text.
fn text<'a>(headers: &'a HeaderMap, name: &hyper::http::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
