//! Sends requests to other sites.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::http::request::Parts;
use hyper::http::uri::InvalidUri;
use hyper::http::{HeaderValue, Uri, Version};
use hyper::{Request, Response};
use hyper_util::client::legacy::Error as ClientError;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use khufu_crdt::SiteName;
use khufu_engine::NodeId;
use khufu_p2p::StreamError;

use super::members::NoNode;
use super::untouched::Untouched;
use super::{Forward, ForwardError, REFUSED, SERVICE, UNKNOWN_SERVICE, UNREADY};
use crate::body::{Body, boxed, whole};
use crate::headers;
use crate::progress::Progress;

impl Forward {
    /// Sends a request to a service at another site, and answers as soon as that begins to answer. Path, query and headers
    /// go as they are, `Host` included, but for what is of one connection (RFC 9110, section 7.6.1); a change of the protocol
    /// goes through, too. Dropping the answer, or this future, ends the work there.
    ///
    /// `within` is how long it may take until the answer begins, from when all that there was of the request's body has gone:
    /// finding a node of the site and opening a stream to it are part of it, waiting for more of the body is not. Where the
    /// site has several nodes, the next is asked when one cannot be, for as long as nothing of the body has gone.
    ///
    /// # Errors
    /// [`ForwardError`] names the site, says what a gateway should answer, and whether the request may have been seen.
    pub async fn to(
        &self,
        site: &SiteName,
        service: &str,
        request: Request<Body>,
        within: Duration,
    ) -> Result<Response<Body>, ForwardError> {
        let answer = self.send(site, service, request, within).await;
        let outcome = answer.as_ref().map_or_else(ForwardError::kind, |_| "answered");
        self.0.handle.metrics().forwarded("out", outcome);
        answer
    }

    async fn send(
        &self,
        site: &SiteName,
        service: &str,
        mut request: Request<Body>,
        within: Duration,
    ) -> Result<Response<Body>, ForwardError> {
        let unknown = || ForwardError::UnknownService { site: site.clone(), service: service.to_owned() };
        let name = HeaderValue::from_str(service).map_err(|_| unknown())?;
        headers::end_to_end_or_upgrade(request.headers_mut());
        let (mut parts, body) = request.into_parts();
        headers::say_chunked(&mut parts.headers, &body);
        parts.version = Version::HTTP_11;
        parts.headers.insert(SERVICE, name);
        let (progress, body) = Progress::watch(body);
        let body = Untouched::new(body.boxed_unsync());
        let connected = Mutex::new(None);
        let attempts = async {
            let mut failed = None;
            for node in self.nodes(site, service).await? {
                match self.ask(site, service, &node, (&parts, &body), &connected).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) if error.may_have_been_seen() || !body.is_whole() => return Err(error),
                    // That another cannot be asked says more than that this one is not the right one.
                    Err(error) if failed.is_none() || !matches!(error, ForwardError::UnknownService { .. }) => {
                        failed = Some(error);
                    }
                    Err(_) => {}
                }
            }
            Err(failed.unwrap_or_else(unknown))
        };
        tokio::select! {
            answer = attempts => answer,
            () = progress.stalled(within) => {
                let connected = connected.lock().unwrap_or_else(PoisonError::into_inner);
                let sent = connected.as_ref().is_some_and(|of: &CaptureConnection| of.connection_metadata().is_some());
                Err(ForwardError::NoAnswer { site: site.clone(), after: within, sent })
            }
        }
    }

    /// The nodes to ask, one after the other.
    async fn nodes(&self, site: &SiteName, service: &str) -> Result<Vec<NodeId>, ForwardError> {
        let handle = &self.0.handle;
        if site == handle.site() && self.service(service).is_some() {
            return Ok(vec![handle.node().clone()]);
        }
        self.0.members.nodes_of(handle, site).await.or_else(|error| match error {
            // Where this node is the only one of its site, it is its services that are meant.
            NoNode::Unreachable(_) if site == handle.site() => Ok(Vec::new()),
            NoNode::Unreachable(reason) => Err(ForwardError::Unreachable { site: site.clone(), reason }),
            NoNode::Unready => Err(ForwardError::Unready { site: site.clone() }),
        })
    }

    /// Asks one node.
    async fn ask(
        &self,
        site: &SiteName,
        service: &str,
        node: &NodeId,
        (parts, body): (&Parts, &Untouched),
        connected: &Mutex<Option<CaptureConnection>>,
    ) -> Result<Response<Body>, ForwardError> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("http://{}{path}", node.0).parse().map_err(|error: InvalidUri| {
            let reason = format!("its path cannot be sent: {error}");
            ForwardError::Broken { site: site.clone(), reason, sent: false }
        })?;
        let mut request = Request::new(body.lend().boxed_unsync());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = parts.headers.clone();
        let capture = capture_connection(&mut request);
        *connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(capture);
        let mut answer = self.0.client.request(request).await.map_err(|error| failed(site, &error))?;
        match answer.headers().get(REFUSED) {
            Some(reason) if reason == UNKNOWN_SERVICE => {
                return Err(ForwardError::UnknownService { site: site.clone(), service: service.to_owned() });
            }
            Some(reason) if reason == UNREADY => {
                let reason = "the node there cannot say now who asks".to_owned();
                return Err(ForwardError::Busy { site: site.clone(), reason });
            }
            Some(_) => return Err(ForwardError::Stranger { site: site.clone() }),
            None => {}
        }
        if !answer.body().is_end_stream() && !headers::say_length(answer.headers()) {
            let reason = "the answer does not say how long it is".to_owned();
            return Err(ForwardError::Broken { site: site.clone(), reason, sent: true });
        }
        headers::end_to_end_or_upgrade(answer.headers_mut());
        Ok(answer.map(boxed))
    }

    /// Whether a request to that site could be sent now.
    pub async fn reaches(&self, site: &SiteName) -> bool {
        site == self.0.handle.site() || self.0.members.nodes_of(&self.0.handle, site).await.is_ok()
    }
}

/// What an error of the client means.
fn failed(site: &SiteName, error: &ClientError) -> ForwardError {
    let site = site.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        match cause.downcast_ref::<StreamError>() {
            Some(error @ (StreamError::TooMany { .. } | StreamError::Full { .. } | StreamError::QueueFull)) => {
                return ForwardError::Busy { site, reason: error.to_string() };
            }
            Some(StreamError::Timeout { after, .. }) => {
                return ForwardError::NoAnswer { site, after: *after, sent: false };
            }
            Some(error) => return ForwardError::Unreachable { site, reason: error.to_string() },
            None => {}
        }
        // Nothing of it was written: the connection had ended before.
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return ForwardError::Broken { site, reason: whole(error), sent: false };
        }
        source = cause.source();
    }
    ForwardError::Broken { site, reason: whole(error), sent: true }
}
