//! A way in for an unmodified `kubectl`: a front of the API server of this site's cluster.
//!
//! Everything is passed on to the API server with the credentials of whoever asks, and the node adds none of its own: nobody
//! gets more rights than he has there. Only a write that carries a scope, or that is about an object of a replicant, is
//! captured: the API server tries it without doing it (`dryRun=All`), and what it would have changed becomes the edit of a
//! replicant, which the driver makes here as at all other sites.

mod annotate;
mod answer;
mod bodies;
mod capture;
mod delete;
mod difference;
mod edit;
mod hangup;
mod headers;
mod here;
mod id;
mod kept;
mod keys;
mod marks;
mod named;
mod pass;
mod place;
mod policy;
mod protobuf;
mod remembered;
mod rest;
mod scope;
mod server;
mod settled;
mod steps;
mod take;
mod target;
mod tls;
mod upstream;
mod wanted;
mod who;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::http::{Method, header};
use hyper::{Request, Response};
use khufu_engine::Request as Asked;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::handle::Handle;
use crate::turns::Turns;
use answer::{Body, Refusal};
use target::{Target, Verb, parameters};
use upstream::Upstream;

/// Scopes of paths that are known to have a meaning.
const MAX_SCOPES: usize = 1_000;
/// The longest scope that is read.
const MAX_SCOPE: usize = 1024;
/// Captured writes at once, but for those that only wait until they are made; further ones wait a while.
const MAX_CAPTURED: usize = 64;
/// Answers at once to which is added how it is elsewhere; further ones come without.
const MAX_ANNOTATED: usize = 8;

/// How a node serves the front.
#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// The file that says where the API server is, the same as that of the driver; none for the cluster that the process
    /// runs in. The credentials in it are not used.
    pub kubeconfig: Option<PathBuf>,
    /// Which context of the file; the current one unless given.
    pub context: Option<String>,
    /// A certificate with its chain and its key, in PEM. Without, an authority is made once, in `kubernetes-front/` of the
    /// data directory, and a certificate of it for this address.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Why the front cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontError {
    /// The address is taken, or not of this machine.
    #[error(
        "the front for kubectl cannot listen on {address}: {source}; give it another address, or port 0 for a free one"
    )]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("the certificate of the front for kubectl: {}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("the front for kubectl cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no place for the certificate.
    #[error(
        "the front for kubectl needs a certificate and its key, since the node has no data directory to make them in"
    )]
    NoData,
    /// The API server cannot be used.
    #[error("the API server behind the front for kubectl: {0}")]
    Upstream(String),
}

/// The front, ready to serve.
pub(crate) struct Listening {
    server: server::Server,
    upstream: Upstream,
}

/// Takes the address, and reads all that is needed.
pub(crate) async fn listen(config: &FrontConfig, data: Option<&Path>) -> Result<Listening, FrontError> {
    let upstream = Upstream::new(config.kubeconfig.clone(), config.context.clone()).await?;
    let listener =
        server::bind(config.address).await.map_err(|source| FrontError::Address { address: config.address, source })?;
    let tls = match (&config.certificate, data) {
        (Some((certificate, key)), _) => tls::load(certificate, key)?,
        (None, Some(data)) => tls::make(&data.join("kubernetes-front"), listener.address())?,
        (None, None) => return Err(FrontError::NoData),
    };
    Ok(Listening { server: server::Server::new(listener, tls), upstream })
}

impl Listening {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Serves until the node stops.
    pub(crate) fn serve(self, handle: Handle) -> JoinHandle<()> {
        let closed = handle.closed();
        let front = Front {
            handle,
            upstream: self.upstream,
            scopes: Mutex::default(),
            who: who::Known::default(),
            places: Arc::new(Semaphore::new(MAX_CAPTURED)),
            bodies: bodies::Bodies::default(),
            annotated: Semaphore::new(MAX_ANNOTATED),
            turns: Turns::default(),
        };
        tokio::spawn(self.server.serve(Arc::new(front), closed))
    }
}

/// What all requests share.
struct Front {
    handle: Handle,
    upstream: Upstream,
    scopes: Mutex<BTreeSet<String>>,
    who: who::Known,
    places: Arc<Semaphore>,
    bodies: bodies::Bodies,
    annotated: Semaphore,
    turns: Turns,
}

impl Front {
    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        self.answer(request).await.unwrap_or_else(|refusal| refusal.response())
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().to_owned();
        if !path.starts_with('/') || request.method() == Method::CONNECT {
            return Err(Refusal::bad_request("a path is wanted"));
        }
        headers::names_no_identity(request.headers())?;
        let (meant, path) = scope::split(&path).map_or((None, path.as_str()), |(meant, rest)| (Some(meant), rest));
        let query = request.uri().query().unwrap_or_default().to_owned();
        let target = Target::read(path)?;
        let scope = match meant {
            // What a server serves is asked first, and a client that is told no then does not say why.
            Some(meant) if target.is_some() => Some(self.scope_of(meant).await?),
            _ => None,
        };
        let verb = target.as_ref().and_then(|target| target.verb(request.method()));
        if verb.is_some_and(|verb| verb != Verb::Read) && parameters(&query, "dryRun").any(|value| !is_known(&value)) {
            // An API server that cannot read it leaves it out, and writes.
            return Err(Refusal::bad_request("dryRun is All, or left out"));
        }
        match (target, verb) {
            (Some(target), Some(Verb::Read)) if headers::upgrade(request.headers()).is_none() => {
                annotate::read(self, request, &target, &query).await
            }
            (Some(_), Some(verb)) if verb != Verb::Read && request.headers().contains_key(header::UPGRADE) => {
                Err(Refusal::bad_request("a write cannot become another protocol"))
            }
            // What is only tried changes nothing. Of a deletion, its body says so.
            (Some(_), Some(Verb::Create | Verb::Update | Verb::Scale)) if is_dry(&query) => {
                pass::pass(self, request, path).await
            }
            (Some(target), Some(verb)) if verb != Verb::Read => self.write(request, target, verb, query, scope).await,
            _ => pass::pass(self, request, path).await,
        }
    }

    /// A write: it is read before anything is kept free for it.
    async fn write(
        self: &Arc<Self>,
        request: Request<Incoming>,
        target: Target,
        verb: Verb,
        query: String,
        scope: Option<String>,
    ) -> Result<Response<Body>, Refusal> {
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get::<bodies::Peer>().copied();
        let (body, held) = bodies::read(self, &parts.headers, peer, body).await?;
        let begun = hangup::Begun::default();
        let write = capture::Captured {
            target,
            verb,
            method: parts.method,
            query,
            headers: parts.headers,
            scope,
            body,
            place: Mutex::default(),
            begun: begun.clone(),
        };
        if verb == Verb::Patch && is_dry(&write.query) {
            return annotate::tried(self, &write).await;
        }
        let front = self.clone();
        let write = async move {
            let _held = held;
            let _turn = match write.target.turn() {
                Some(object) => Some(front.turns.take(object).await?),
                None => None,
            };
            write.take_place(&front.places).await?;
            capture::capture(&front, write).await
        };
        hangup::carry_out(begun, write).await
    }

    /// What a path means as a scope: the first of these texts that has a meaning.
    async fn scope_of(&self, meant: Vec<String>) -> Result<String, Refusal> {
        let mut refusal = None;
        for text in meant {
            if text.len() > MAX_SCOPE {
                return Err(too_long());
            }
            if self.scopes.lock().unwrap_or_else(PoisonError::into_inner).contains(&text) {
                return Ok(text);
            }
            match self.explain(&text).await {
                Ok(()) => {
                    let mut known = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
                    if known.len() >= MAX_SCOPES {
                        known.clear();
                    }
                    known.insert(text.clone());
                    return Ok(text);
                }
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| Refusal::bad_request("a scope is wanted")))
    }

    /// Whether a scope has a meaning now.
    async fn explain(&self, scope: &str) -> Result<(), Refusal> {
        if scope.len() > MAX_SCOPE {
            return Err(too_long());
        }
        if let Err(errors) = khufu_scope::parse(scope) {
            let picture = errors.render(scope, false);
            return Err(Refusal::bad_request(format!("the scope {scope:?} cannot be read: {errors}\n{picture}")));
        }
        let asked = Asked::Explain { scope: scope.to_owned() };
        self.handle.request("kubernetes-front".to_owned(), asked).await.map(drop).map_err(Refusal::from)
    }
}

fn too_long() -> Refusal {
    Refusal::bad_request(format!("a scope has at most {MAX_SCOPE} bytes"))
}

/// Whether a value of `dryRun` is one that API servers know.
fn is_known(value: &str) -> bool {
    matches!(value, "" | "All")
}

/// Whether a write is only tried.
fn is_dry(query: &str) -> bool {
    parameters(query, "dryRun").any(|value| !value.is_empty())
}
