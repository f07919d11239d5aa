//! Sends requests to other sites.

use std::error::Error;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::http::uri::InvalidUri;
use hyper::http::{HeaderValue, Uri, Version};
use hyper::{Request, Response};
use hyper_util::client::legacy::Error as ClientError;
use khufu_crdt::SiteName;
use khufu_p2p::StreamError;

use super::{Forward, ForwardError, Origin, REFUSED, SERVICE, UNKNOWN_SERVICE};
use crate::body::{Body, boxed, whole};
use crate::headers;
use crate::progress::Progress;

impl Forward {
    /// Sends a request to a service at another site, and answers as soon as that begins to answer. Path, query and headers
    /// go as they are, `Host` included, but for what is of one connection (RFC 9110, section 7.6.1); a change of the protocol
    /// goes through, too. Dropping the answer, or this future, ends the work there.
    ///
    /// `within` is how long the site may take to begin its answer, once all of the request's body has gone.
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
        if site == self.0.handle.site() {
            let handler = self.service(service).ok_or_else(unknown)?;
            let origin = Origin { site: site.clone(), node: self.0.handle.node().clone() };
            return Ok(handler(origin, request).await);
        }
        let unreachable = |reason| ForwardError::Unreachable { site: site.clone(), reason };
        let node = self.0.members.node_of(&self.0.handle, site).await.map_err(unreachable)?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = format!("http://{}{path}", node.0).parse().map_err(|error: InvalidUri| {
            let reason = format!("its path cannot be sent: {error}");
            ForwardError::Broken { site: site.clone(), reason, sent: false }
        })?;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().insert(SERVICE, name);
        let (parts, body) = request.into_parts();
        let (progress, body) = Progress::watch(body);
        let answer = self.0.client.request(Request::from_parts(parts, body.boxed_unsync()));
        let mut answer = tokio::select! {
            answer = answer => answer.map_err(|error| failed(site, &error))?,
            () = progress.stalled(within) => {
                return Err(ForwardError::NoAnswer { site: site.clone(), after: within, sent: true });
            }
        };
        match answer.headers().get(REFUSED) {
            Some(reason) if reason == UNKNOWN_SERVICE => return Err(unknown()),
            Some(_) => return Err(ForwardError::Stranger { site: site.clone() }),
            None => {}
        }
        headers::end_to_end_or_upgrade(answer.headers_mut());
        Ok(answer.map(boxed))
    }
}

impl Forward {
    /// Whether a request to that site could be sent now.
    pub async fn reaches(&self, site: &SiteName) -> bool {
        site == self.0.handle.site() || self.0.members.node_of(&self.0.handle, site).await.is_ok()
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
