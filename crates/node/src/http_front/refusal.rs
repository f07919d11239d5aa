//! Why the front does not do what it was asked.

use std::collections::BTreeSet;

use hyper::http::{HeaderName, HeaderValue, header};
use hyper::{Response, StatusCode};
use khufu_engine::RequestError;

use crate::api::Problem;
use crate::body::{Body, full};
use crate::forward::ForwardError;

/// Says that an answer is of a front, and not of the service, and whether the service may have seen the request. No service
/// can answer with it.
pub(super) const FRONT: HeaderName = HeaderName::from_static("khufu-front");
pub(super) const UNSEEN: &str = "unseen";
const MAYBE_SEEN: &str = "maybe-seen";

/// Why the front does not do what it was asked.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    word: &'static str,
    title: &'static str,
    pub(super) message: String,
    /// Whether the service may have seen the request.
    pub(super) seen: bool,
}

impl Refusal {
    fn new(status: StatusCode, word: &'static str, title: &'static str, message: impl Into<String>) -> Self {
        Self { status, word, title, message: message.into(), seen: false }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", "The request makes no sense", message)
    }

    pub(super) fn scope(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "scope", "The scope cannot be used", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The request is not allowed", message)
    }

    /// Only a proxy, or a page that was loaded from a name which now leads here, asks for that host.
    pub(super) fn other_host(named: &str) -> Self {
        let message = format!(
            "the request is for the host {named:?}, and this front serves loopback names only: use 127.0.0.1, let the proxy \
             before it send that as `Host`, or say in plain words that the front is to be open"
        );
        Self::new(StatusCode::MISDIRECTED_REQUEST, "host", "Not the name of this server", message)
    }

    pub(super) fn slow_body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow", "The request has not come in in time", message)
    }

    pub(super) fn a_loop(message: impl Into<String>) -> Self {
        Self::new(StatusCode::LOOP_DETECTED, "loop", "The request goes round in circles", message)
    }

    /// The service cannot be asked, and has seen nothing.
    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "unreachable", "The service cannot be reached", message)
    }

    /// The service may have seen it.
    pub(super) fn broken(message: impl Into<String>) -> Self {
        let title = "The service has not answered as it should";
        Self { seen: true, ..Self::new(StatusCode::BAD_GATEWAY, "broken", title, message) }
    }

    /// The same, and there is no answer.
    pub(super) fn no_answer(message: impl Into<String>) -> Self {
        let title = "The service has not answered in time";
        Self { seen: true, ..Self::new(StatusCode::GATEWAY_TIMEOUT, "no-answer", title, message) }
    }

    pub(super) fn response(self) -> Response<Body> {
        let problem = Problem::new(self.status, self.word, self.title, self.message);
        let mut response = Response::new(full(serde_json::to_vec(&problem).unwrap_or_default()));
        *response.status_mut() = self.status;
        let seen = if self.seen { MAYBE_SEEN } else { UNSEEN };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(FRONT, HeaderValue::from_static(seen));
        response
    }
}

/// What is to be replicated, and cannot be here.
pub(super) fn replicate(sites: &BTreeSet<String>) -> Refusal {
    let sites = sites.iter().map(String::as_str).collect::<Vec<_>>().join(" & ");
    let message = format!(
        "a front does not replicate yet: put a replicant of kind http with the scope {sites:?} (`khufu apply --kind http`), \
         and ask it for this request as an operation (`khufu op ID --payload ...`); nothing was done"
    );
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "replicate", "One request for several sites", message)
}

impl From<ForwardError> for Refusal {
    fn from(error: ForwardError) -> Self {
        let title = "The other site cannot be asked, or has not answered";
        let refusal = Self::new(error.status(), "site", title, error.to_string());
        Self { seen: error.may_have_been_seen(), ..refusal }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Invalid { message } => Self::scope(message),
            other => {
                let title = "This node cannot say where that is";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title, other.to_string())
            }
        }
    }
}
