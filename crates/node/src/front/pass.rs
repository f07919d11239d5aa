//! Passing a request on as it is, whatever it becomes: an answer, a stream without an end, or a connection of its own.

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::http::{HeaderMap, StatusCode, header};
use hyper::{Request, Response};

use super::Front;
use super::answer::{Body, Refusal, boxed};
use super::headers;
use super::target::is_set;
use crate::listen::Place;
use crate::upgraded;

/// The most bytes of a write that is looked into: API servers take no more.
pub(super) const MAX_WRITE: usize = 3 << 20;

/// How long it may take until an answer begins that has an end.
const ANSWER: Duration = Duration::from_secs(120);

/// Whether an answer may begin when it likes: when something happens, or when what a proxy leads to answers.
fn is_endless(path: &str) -> bool {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    is_set(query, "watch") || is_set(query, "follow") || path.contains("/watch/") || path.contains("/proxy")
}

/// Refuses what says of itself that it is longer than a write may be.
pub(super) fn is_short_enough(headers: &HeaderMap) -> Result<(), Refusal> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_WRITE) { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Refusal {
    Refusal::too_large(format!("a write has at most {MAX_WRITE} bytes"))
}

/// Reads what is to be written, which may take so long to come in.
pub(super) async fn whole(body: Incoming, limit: Duration) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(limit, Limited::new(body, MAX_WRITE).collect()).await;
    let read = read.map_err(|_| {
        let message = format!("what is to be written has not come in within {} s", limit.as_secs());
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message)
    })?;
    match read {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Refusal::bad_request(error.to_string())),
    }
}

/// Passes a request on to a path (its query is kept), and the answer back.
pub(super) async fn pass(front: &Front, request: Request<Incoming>, path: &str) -> Result<Response<Body>, Refusal> {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    pass_as(front, request.map(boxed), &format!("{path}{query}")).await
}

/// The same, with a path and query of its own.
pub(super) async fn pass_as(front: &Front, mut request: Request<Body>, path: &str) -> Result<Response<Body>, Refusal> {
    let upgrade = headers::upgrade(request.headers());
    let place = request.extensions().get::<Place>().cloned();
    let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let has_end = upgrade.is_none() && !is_endless(path);
    let (mut parts, body) = request.into_parts();
    headers::end_to_end_or_upgrade(&mut parts.headers);
    crate::headers::say_chunked(&mut parts.headers, &body);
    let mut onward = Request::new(body);
    *onward.method_mut() = parts.method;
    *onward.headers_mut() = parts.headers;
    let answer = front.upstream.send(onward, path);
    let mut response = if has_end {
        let late =
            |_| Refusal::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", "the API server of this site does not answer");
        tokio::time::timeout(ANSWER, answer).await.map_err(late)??
    } else {
        answer.await?
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(Refusal::unavailable("it changes to a protocol that nobody has asked for"));
        };
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(upgraded::join(client, server, front.handle.closed(), place, "the front for kubectl"));
        let (mut parts, _) = response.into_parts();
        headers::end_to_end_or_upgrade(&mut parts.headers);
        return Ok(Response::from_parts(parts, boxed(http_body_util::Empty::new())));
    }
    headers::end_to_end(response.headers_mut());
    Ok(response.map(boxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_begin_late_has_all_the_time() {
        for path in ["/api/v1/pods?watch=1", "/api/v1/namespaces/a/pods/p/log?follow=true", "/api/v1/watch/pods"] {
            assert!(is_endless(path), "{path}");
        }
        for path in ["/api/v1/pods?watch=false", "/api/v1/namespaces/a/pods/p/log", "/version?x=watch"] {
            assert!(!is_endless(path), "{path}");
        }
    }
}
