//! Who may come in: the Host header, bearer tokens, and how many at once.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;

use super::Problem;
use crate::{Role, Tokens, loopback};

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

fn demand_loopback_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(named) = loopback::other_host(uri, headers) else { return Ok(()) };
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "host",
        "Not the name of this server",
        format!("the request is for the host {named:?}, and this API serves loopback names only: use 127.0.0.1"),
    ))
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
    fn roles() {
        assert_eq!(needed(&Method::GET, "/healthz"), None);
        assert_eq!(needed(&Method::GET, "/metrics"), Some(Role::Read));
        assert_eq!(needed(&Method::GET, "/v1/faults"), Some(Role::Admin));
        assert_eq!(needed(&Method::DELETE, "/v1/replicants/x"), Some(Role::Write));
    }
}
