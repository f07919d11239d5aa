//! Who may come in: the Host header, bearer tokens, and how many at once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;

use super::Problem;
use crate::{Role, Tokens};

/// Requests that are worked on at once.
pub(crate) const MAX_REQUESTS: usize = 256;

/// Who makes a request, for the audit log.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Arc<str>);

/// Decides about each request before anything else sees it.
#[derive(Debug)]
pub(crate) struct Guard {
    loopback: bool,
    tokens: Option<Tokens>,
    places: Semaphore,
}

impl Guard {
    pub(crate) fn new(address: SocketAddr, tokens: Option<Tokens>) -> Arc<Self> {
        Arc::new(Self { loopback: address.ip().is_loopback(), tokens, places: Semaphore::new(MAX_REQUESTS) })
    }

    fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Problem> {
        if self.loopback {
            demand_loopback_host(uri, headers)?;
        }
        let Some(tokens) = &self.tokens else { return Ok(Caller("local".into())) };
        let Some(needed) = needed(method, uri.path()) else { return Ok(Caller("anonymous".into())) };
        let (name, role) = bearer(headers).and_then(|secret| tokens.bearer(secret)).ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "A token is needed",
                "send the header `Authorization: Bearer TOKEN` with a token that this node knows",
            )
        })?;
        if role < needed {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "The token's role does not allow this",
                format!("the token of {name:?} has the role {role}, and this takes {needed}"),
            ));
        }
        Ok(Caller(name.into()))
    }
}

/// The role that a request takes; none for what tells nothing but that the node runs.
fn needed(method: &Method, path: &str) -> Option<Role> {
    match path {
        "/healthz" | "/readyz" => None,
        "/v1/faults" => Some(Role::Admin),
        _ if method == Method::GET || method == Method::HEAD => Some(Role::Read),
        _ => Some(Role::Write),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// A web page that was loaded from a name which now resolves to this machine (DNS rebinding) counts as of the same
/// origin for a browser. Its requests still carry that name.
fn demand_loopback_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    // Browsers always send one. Whoever sends several must mean this machine with each.
    let authority = uri.authority().map(Authority::as_str);
    let hosts = headers.get_all(header::HOST).into_iter().map(|host| host.to_str().unwrap_or("?"));
    let Some(named) = authority.into_iter().chain(hosts).find(|named| !is_loopback_host(named)) else { return Ok(()) };
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "host",
        "Not the name of this server",
        format!("the request is for the host {named:?}, and this API serves loopback names only: use 127.0.0.1"),
    ))
}

fn is_loopback_host(named: &str) -> bool {
    let split = match named.strip_prefix('[') {
        Some(rest) => rest.split_once(']'),
        None => Some(named.split_at(named.find(':').unwrap_or(named.len()))),
    };
    let Some((host, port)) = split else { return false };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The middleware.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let caller = match guard.admit(request.method(), request.uri(), request.headers()) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    // Whoever watches over this node sees it also while it is busy.
    if matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics") {
        request.extensions_mut().insert(caller);
        return next.run(request).await;
    }
    let Ok(_place) = guard.places.try_acquire() else {
        return Problem::busy(format!("{MAX_REQUESTS} requests are under way: try again in a second")).into_response();
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hosts() {
        for good in ["localhost", "LOCALHOST:80", "a.localhost", "127.0.0.1:7070", "127.9.9.9", "[::1]:7070", "[::1]"] {
            assert!(is_loopback_host(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:7070",
            "[::2]",
            "::1x",
            "[::1",
            "[::1].example.com",
            "localhost:80@example.com",
            "localhost@example.com",
        ] {
            assert!(!is_loopback_host(bad), "{bad}");
        }
    }

    #[test]
    fn each_host_of_a_request_counts() {
        let host = |names: &[&'static str]| {
            names.iter().map(|name| (header::HOST, axum::http::HeaderValue::from_static(name))).collect::<HeaderMap>()
        };
        let admits =
            |uri: &str, names: &[&'static str]| demand_loopback_host(&uri.parse().unwrap(), &host(names)).is_ok();
        assert!(admits("/v1/sites", &["localhost"]) && admits("/v1/sites", &[]));
        assert!(admits("http://localhost/v1/sites", &["127.0.0.1"]));
        assert!(!admits("/v1/sites", &["localhost", "example.com"]));
        assert!(!admits("http://localhost/v1/sites", &["example.com"]));
        assert!(!admits("http://example.com/v1/sites", &["localhost"]));
    }

    #[test]
    fn roles() {
        assert_eq!(needed(&Method::GET, "/healthz"), None);
        assert_eq!(needed(&Method::GET, "/metrics"), Some(Role::Read));
        assert_eq!(needed(&Method::GET, "/v1/faults"), Some(Role::Admin));
        assert_eq!(needed(&Method::DELETE, "/v1/replicants/x"), Some(Role::Write));
    }
}
