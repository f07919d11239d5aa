//! The API server of this site: it is asked with the credentials of whoever asks here, and with no others.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::Config;
use kube::client::ConfigExt as _;
use serde_json::Value;

use super::FrontError;
use super::answer::{Body, Refusal, boxed};
use super::headers;
use crate::body::whole;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a single answer that is read as a whole may take.
const LIMIT: Duration = Duration::from_secs(40);
/// The most bytes of such an answer: a list of thousands of objects has some.
const MAX_ANSWER: usize = 32 << 20;

type Send = dyn Fn(Request<Body>) -> BoxFuture<'static, Result<Response<Incoming>, String>> + std::marker::Send + Sync;

/// The API server.
pub(super) struct Upstream {
    reached: RwLock<Reached>,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

/// How it is reached.
#[derive(Clone)]
struct Reached {
    send: Arc<Send>,
    base: Uri,
    authority: Option<Vec<Vec<u8>>>,
}

/// An answer that was read as a whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Its body as JSON; null if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The same, unless it says that it has no time to answer.
    pub(super) fn or_later(self) -> Result<Self, Refusal> {
        if self.status != StatusCode::TOO_MANY_REQUESTS && !self.status.is_server_error() {
            return Ok(self);
        }
        let later = Refusal::later(format!("the API server of this site has no time to answer: {}", self.status));
        // As long as it says, if it says so.
        let seconds = self.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(Refusal { again: seconds.or(later.again), ..later })
    }

    /// The same for whoever asked.
    pub(super) fn pass(self) -> Response<Body> {
        let mut response = Response::new(boxed(Full::new(self.body)));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        headers::end_to_end(response.headers_mut());
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
    }
}

/// A question whose answer is read as a whole.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    /// The headers of whoever asks: of these, those that say who it is are passed on.
    pub(super) from: &'a HeaderMap,
    /// The type of what is sent, and that.
    pub(super) body: Option<(HeaderValue, Bytes)>,
    /// What is wanted; JSON unless given.
    pub(super) accept: Option<HeaderValue>,
}

/// What says who somebody is, and by what name he wants to be known.
fn is_identity(name: &HeaderName) -> bool {
    name == header::AUTHORIZATION || name == header::USER_AGENT || name.as_str().starts_with("impersonate-")
}

impl Reached {
    fn new(mut config: Config) -> Result<Self, FrontError> {
        // Nobody gets the rights of the node by asking here.
        config.auth_info = Default::default();
        config.headers.clear();
        if config.proxy_url.is_some() {
            return Err(FrontError::Upstream("a kubeconfig with a proxy-url cannot be used for the front".into()));
        }
        if config.cluster_url.scheme_str() != Some("https") {
            // Such an endpoint, as `kubectl proxy` has, does for everybody what its owner may do.
            let words =
                format!("{}: the front needs an API server with https, which knows who asks", config.cluster_url);
            return Err(FrontError::Upstream(words));
        }
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_keepalive(Some(Duration::from_secs(30)));
        let connector = config
            .rustls_https_connector_with_connector(connector)
            .map_err(|error| FrontError::Upstream(error.to_string()))?;
        let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector);
        let send = move |request| -> BoxFuture<'static, _> {
            let answer = client.request(request);
            Box::pin(async move { answer.await.map_err(|error| whole(&error)) })
        };
        Ok(Self { send: Arc::new(send), base: config.cluster_url, authority: config.root_cert })
    }

    /// Where something is at the API server.
    fn uri(&self, path: &str) -> Result<Uri, Refusal> {
        let prefix = self.base.path().trim_end_matches('/');
        let mut parts = self.base.clone().into_parts();
        let path = format!("{prefix}{path}");
        let wrong = |error: String| Refusal::bad_request(format!("{path}: {error}"));
        parts.path_and_query = Some(path.parse().map_err(|error| wrong(format!("{error}")))?);
        Uri::from_parts(parts).map_err(|error| wrong(error.to_string()))
    }
}

impl Upstream {
    /// The API server of a file and one of its contexts; without a file, that of the cluster that the process runs in.
    pub(super) async fn new(kubeconfig: Option<PathBuf>, context: Option<String>) -> Result<Self, FrontError> {
        let config = Self::config(kubeconfig.as_deref(), context.as_deref()).await?;
        Ok(Self { reached: RwLock::new(Reached::new(config)?), kubeconfig, context })
    }

    async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config, FrontError> {
        let config = match kubeconfig {
            Some(path) => khufu_drivers::kubernetes::config(path, context).await,
            None => khufu_drivers::kubernetes::config_in_cluster(),
        };
        config.map_err(|error| FrontError::Upstream(error.to_string()))
    }

    fn reached(&self) -> Reached {
        self.reached.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks whether the file says something else now: the API server may have moved.
    async fn look_again(&self, before: &Reached) {
        let Some(path) = &self.kubeconfig else { return };
        let Ok(config) = Self::config(Some(path), self.context.as_deref()).await else { return };
        if config.cluster_url == before.base && config.root_cert == before.authority {
            return;
        }
        match Reached::new(config) {
            Ok(reached) => *self.reached.write().unwrap_or_else(PoisonError::into_inner) = reached,
            Err(error) => tracing::warn!(%error, "the kubeconfig is another, and cannot be used"),
        }
    }

    /// Sends a request as it is, but for where it goes.
    pub(super) async fn send(&self, mut request: Request<Body>, path: &str) -> Result<Response<Incoming>, Refusal> {
        let reached = self.reached();
        *request.uri_mut() = reached.uri(path)?;
        request.headers_mut().remove(header::HOST);
        match (reached.send)(request).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.look_again(&reached).await;
                Err(Refusal::unavailable(error))
            }
        }
    }

    /// Asks, and reads the answer as a whole.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, Refusal> {
        let mut request = Request::new(match &question.body {
            Some((_, bytes)) => boxed(Full::new(bytes.clone())),
            None => boxed(Full::default()),
        });
        *request.method_mut() = question.method;
        let headers = request.headers_mut();
        for (name, value) in question.from.iter().filter(|(name, _)| is_identity(name)) {
            headers.append(name, value.clone());
        }
        headers.insert(header::ACCEPT, question.accept.unwrap_or(HeaderValue::from_static("application/json")));
        if let Some((kind, _)) = question.body {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        let answer = async {
            let (parts, body) = self.send(request, &question.path).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Refusal::too_large(format!("the answer of the API server has more than {MAX_ANSWER} bytes"))
                } else {
                    Refusal::unavailable(error.to_string())
                }
            })?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        let late = || Refusal::unavailable(format!("it has not answered for {} s", LIMIT.as_secs()));
        tokio::time::timeout(LIMIT, answer).await.unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_endpoint_that_knows_nobody_is_refused() {
        let of =
            |url: &str| Reached::new(Config::new(url.parse().unwrap())).map(drop).map_err(|error| error.to_string());
        assert!(of("http://127.0.0.1:8001").unwrap_err().contains("https"));
        assert!(!of("https://127.0.0.1:6443").is_err_and(|error| error.contains("knows who asks")));
    }
}
