//! The service of this site.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, Scheme};
use hyper::http::{HeaderValue, Uri, Version, header};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::refusal::{FRONT, Refusal};
use super::{Front, edge};
use crate::body::{Body, boxed, whole};
use crate::headers;
use crate::progress::Progress;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take to begin, once all of the request has gone.
pub(super) const ANSWER: Duration = Duration::from_secs(120);
/// Connections that nobody uses are kept for so long: less than services keep them.
const KEPT: Duration = Duration::from_secs(4);
/// The most bytes of the headers of an answer.
const MAX_HEADERS: usize = 64 * 1024;

/// The service of this site.
pub(super) struct Upstream {
    client: Client<HttpConnector, Body>,
    authority: Authority,
    /// What all paths begin with.
    base: String,
}

impl Upstream {
    /// The service at a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{error}; write http://HOST:PORT"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err("write http://HOST:PORT; of TLS a proxy between can take care".to_owned());
        }
        if uri.query().is_some() {
            return Err("it cannot have a query".to_owned());
        }
        let authority = uri.authority().cloned().ok_or("write http://HOST:PORT")?;
        if authority.as_str().contains('@') {
            return Err("it cannot have a user: credentials are those of whoever asks".to_owned());
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_keepalive(Some(Duration::from_secs(30)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .http1_max_buf_size(MAX_HEADERS)
            .build(connector);
        Ok(Self { client, authority, base: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Where it is, which no request has a say in.
    fn uri(&self, parts: &Parts) -> Result<Uri, Refusal> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone());
        uri.path_and_query(format!("{}{path}", self.base))
            .build()
            .map_err(|error| Refusal::bad_request(format!("the path cannot be asked for: {error}")))
    }

    /// Sends a request, and answers as soon as the service begins to.
    pub(super) async fn send(&self, front: &Front, mut parts: Parts, body: Body) -> Result<Response<Body>, Refusal> {
        parts.uri = self.uri(&parts)?;
        parts.version = Version::HTTP_11;
        headers::end_to_end_or_upgrade(&mut parts.headers);
        headers::say_chunked(&mut parts.headers, &body);
        edge::via(&mut parts.headers, &front.pseudonym);
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            parts.headers.insert(header::HOST, host);
        }
        let (progress, body) = Progress::watch(body);
        let of = |words: String| format!("the service {} of the site {}: {words}", front.name, front.handle.site());
        let answer = self.client.request(Request::from_parts(parts, body.boxed_unsync()));
        let answer = tokio::select! {
            answer = answer => answer,
            () = progress.stalled(ANSWER) => {
                return Err(Refusal::no_answer(of(format!("no answer within {} s", ANSWER.as_secs()))));
            }
        };
        let mut answer = match answer {
            Ok(answer) => answer.map(boxed),
            Err(error) if error.is_connect() => return Err(Refusal::unreachable(of(whole(&error)))),
            Err(error) => return Err(Refusal::broken(of(whole(&error)))),
        };
        headers::end_to_end_or_upgrade(answer.headers_mut());
        answer.headers_mut().remove(FRONT);
        edge::via(answer.headers_mut(), &front.pseudonym);
        *answer.version_mut() = Version::HTTP_11;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn where_the_service_is_no_request_says() {
        let upstream = Upstream::new("http://127.0.0.1:9000/base/").unwrap();
        for (asked, uri) in [
            ("/a%2Fb?c=d", "http://127.0.0.1:9000/base/a%2Fb?c=d"),
            ("http://evil.example/a", "http://127.0.0.1:9000/base/a"),
            ("//evil.example/a", "http://127.0.0.1:9000/base//evil.example/a"),
        ] {
            let (parts, ()) = Request::get(asked).body(()).unwrap().into_parts();
            assert_eq!(upstream.uri(&parts).unwrap(), uri, "{asked}");
        }
        for bad in ["127.0.0.1:9000", "https://x", "http://user:secret@x", "http://x/?a=b", "/x", ""] {
            assert!(Upstream::new(bad).is_err(), "{bad}");
        }
    }
}
